//! Who a container runs as, and what it may do.

use corten_cri_api::v1;

use crate::node::Node;

const SLEEP: &str = "exec busybox sleep 1000";

fn secure(
    change: impl FnOnce(&mut v1::LinuxContainerSecurityContext),
) -> impl FnOnce(&mut v1::ContainerConfig) {
    |config| {
        let mut context = v1::LinuxContainerSecurityContext::default();
        change(&mut context);
        config.linux.as_mut().unwrap().security_context = Some(context);
    }
}

fn number(value: i64) -> v1::Int64Value {
    v1::Int64Value { value }
}

#[tokio::test(flavor = "multi_thread")]
async fn users_by_number_and_by_name() {
    let Some(node) = Node::start().await else { return };
    let pod = node.pod("p").await;
    let script = "echo $(busybox id -u) $(busybox id -g) $(busybox id -G) $HOME";
    type Change = fn(&mut v1::LinuxContainerSecurityContext);
    let cases: [(&str, Change, &str); 5] = [
        ("root", |_| {}, "0 0 0 /root"),
        ("uid", |s| s.run_as_user = Some(number(5)), "5 0 0 /"),
        ("name", |s| s.run_as_username = "web".into(), "33 34 34 50000 /srv"),
        (
            "group",
            |s| {
                s.run_as_user = Some(number(33));
                s.run_as_group = Some(number(7));
                s.supplemental_groups = vec![9];
            },
            "33 7 7 9 50000 /srv",
        ),
        (
            "strict",
            |s| {
                s.run_as_username = "web".into();
                s.supplemental_groups = vec![9];
                s.supplemental_groups_policy = v1::SupplementalGroupsPolicy::Strict.into();
            },
            "33 34 34 9 /srv",
        ),
    ];
    for (name, change, expected) in cases {
        let c = node.container_with(&pod, name, SLEEP, secure(change)).await;
        assert_eq!(node.exec(&c, script).await.0.trim(), expected, "{name}");
        let user = node.status(&c).await.user.unwrap().linux.unwrap();
        assert_eq!(user.uid.to_string(), expected.split(' ').next().unwrap());
    }
    let error = node
        .try_create(&pod, "nobody", SLEEP, secure(|s| s.run_as_username = "absent".into()))
        .await
        .unwrap_err();
    assert!(error.message().contains("no user \"absent\""), "{error}");
}

#[tokio::test(flavor = "multi_thread")]
async fn privileged_has_devices_and_capabilities_and_an_ordinary_one_has_not() {
    let Some(node) = Node::start().await else { return };
    let pod = node.pod("p").await;
    let plain = node.container(&pod, "plain", SLEEP).await;
    let mighty = node.container_with(&pod, "mighty", SLEEP, secure(|s| s.privileged = true)).await;
    let effective = "busybox grep CapEff /proc/self/status | busybox awk '{print $2}'";
    assert_eq!(node.exec(&plain, effective).await.0.trim(), "00000000a80425fb");
    let all = node.exec(&mighty, effective).await.0;
    let own = std::fs::read_to_string("/proc/self/status").unwrap();
    let own = own.lines().find_map(|l| l.strip_prefix("CapEff:\t")).unwrap();
    assert_eq!(all.trim(), own);
    assert_ne!(node.exec(&plain, "echo x > /sys/kernel/mm/ksm/nothing").await.1, 0);
    assert!(node.exec(&mighty, "busybox grep ' /sys ' /proc/mounts").await.0.contains("sysfs rw"));
    assert!(node.exec(&plain, "busybox grep ' /sys ' /proc/mounts").await.0.contains("sysfs ro"));
    let devices = |text: String| text.lines().count();
    let list = "busybox ls /dev";
    assert!(devices(node.exec(&mighty, list).await.0) > devices(node.exec(&plain, list).await.0));
}

#[tokio::test(flavor = "multi_thread")]
async fn the_default_seccomp_profile_is_in_force_and_no_new_privileges_too() {
    let Some(node) = Node::start().await else { return };
    let pod = node.pod("p").await;
    let status = "busybox grep -E '^(Seccomp|NoNewPrivs):' /proc/self/status | busybox awk '{print $2}'";
    let free = node.container(&pod, "free", SLEEP).await;
    assert_eq!(node.exec(&free, status).await.0, "0\n0\n");
    let confined = node
        .container_with(
            &pod,
            "confined",
            SLEEP,
            secure(|s| {
                s.no_new_privs = true;
                let kind = v1::security_profile::ProfileType::RuntimeDefault;
                s.seccomp =
                    Some(v1::SecurityProfile { profile_type: kind.into(), localhost_ref: String::new() });
            }),
        )
        .await;
    assert_eq!(node.exec(&confined, status).await.0, "1\n2\n");
    assert_ne!(node.exec(&confined, "busybox unshare -U true").await.1, 0);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_readonly_rootfs_and_masked_paths() {
    let Some(node) = Node::start().await else { return };
    let pod = node.pod("p").await;
    let c = node.container_with(&pod, "c", SLEEP, secure(|s| s.readonly_rootfs = true)).await;
    assert_ne!(node.exec(&c, "echo x > /file").await.1, 0);
    assert_eq!(node.exec(&c, "echo x > /dev/shm/file && echo ok").await.0, "ok\n");
    assert_eq!(node.exec(&c, "busybox cat /proc/keys /proc/timer_list 2>/dev/null").await.0, "");
    assert_ne!(node.exec(&c, "echo 1 > /proc/sys/kernel/hostname").await.1, 0);
}
