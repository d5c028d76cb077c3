//! Pod sandboxes: their life, their network, their names.

use std::collections::HashMap;
use std::io::{Read, Write};
use std::net::TcpStream;

use corten_cri_api::v1;
use tonic::Code;

use crate::node::Node;

#[tokio::test(flavor = "multi_thread")]
async fn a_pod_runs_stops_and_goes_and_each_can_be_repeated() {
    let Some(node) = Node::start().await else { return };
    let pod = node.pod("p").await;
    let status = node.pod_status(&pod).await;
    assert_eq!(status.state(), v1::PodSandboxState::SandboxReady);
    assert_eq!(status.network.unwrap().ip, "10.99.0.2");
    assert!(status.created_at > 0);
    for _ in 0..2 {
        node.stop_pod(&pod).await.unwrap();
        assert_eq!(node.pod_status(&pod).await.state(), v1::PodSandboxState::SandboxNotready);
        assert_eq!(node.addresses(), [""; 0]);
    }
    for _ in 0..2 {
        node.remove_pod(&pod).await.unwrap();
    }
    node.stop_pod(&pod).await.unwrap();
    node.assert_clean();
}

#[tokio::test(flavor = "multi_thread")]
async fn removing_a_running_pod_takes_its_containers_along() {
    let Some(node) = Node::start().await else { return };
    let pod = node.pod("p").await;
    node.container(&pod, "a", "sleep 1000").await;
    node.try_create(&pod, "b", "true", |_| {}).await.unwrap();
    node.remove_pod(&pod).await.unwrap();
    node.assert_clean();
    let list = node.runtime().await.list_containers(v1::ListContainersRequest::default()).await.unwrap();
    assert!(list.into_inner().containers.is_empty());
}

#[tokio::test(flavor = "multi_thread")]
async fn two_containers_share_one_network_and_one_name() {
    let Some(node) = Node::start().await else { return };
    let pod = node.pod("web").await;
    let server = "mkdir /tmp/w; echo hello > /tmp/w/index; exec busybox httpd -f -p 127.0.0.1:8080 -h /tmp/w";
    node.container(&pod, "server", &format!("PATH=/bin; {}", server.replace("mkdir", "busybox mkdir"))).await;
    let client = node.container(&pod, "client", "exec busybox sleep 1000").await;
    node.until("the other container answers", async |node| {
        node.exec(&client, "busybox wget -q -O - http://127.0.0.1:8080/index").await.0 == "hello\n"
    })
    .await;
    assert_eq!(node.exec(&client, "busybox hostname; busybox cat /etc/hostname").await.0, "web\nweb\n");
    assert_eq!(node.exec(&client, "busybox cat /etc/resolv.conf").await.0, "nameserver 10.0.0.10\n");
    assert!(node.exec(&client, "busybox ip addr show eth0").await.0.contains("10.99.0.2/24"));
    let (shm, _) = node.exec(&client, "busybox df -k /dev/shm").await;
    assert!(shm.contains("65536"), "{shm}");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_host_port_leads_into_the_pod() {
    let Some(node) = Node::start().await else { return };
    let pod = node
        .pod_with("p", |config| {
            config.port_mappings =
                vec![v1::PortMapping { container_port: 80, host_port: 8081, ..Default::default() }];
        })
        .await;
    node.container(&pod, "c", "while :; do echo hi | busybox nc -l -p 80; done").await;
    let ip = node.pod_status(&pod).await.network.unwrap().ip;
    // From the node's own side, to the bridge's address.
    node.until("the port answers", async |node| {
        node.in_network(|| {
            let Ok(mut stream) = TcpStream::connect(("10.99.0.1", 8081)) else { return false };
            let _ = stream.write_all(b"\n");
            let mut text = String::new();
            let _ = stream.read_to_string(&mut text);
            text == "hi\n"
        })
    })
    .await;
    assert_eq!(ip, "10.99.0.2");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_second_pod_of_a_name_is_refused_with_the_firsts_id() {
    let Some(node) = Node::start().await else { return };
    let pod = node.pod("p").await;
    let error = node.try_pod("p", |_| {}).await.unwrap_err();
    assert_eq!(error.code(), Code::AlreadyExists);
    assert!(error.message().contains(&pod), "{error}");
    let next = node.pod_with("p", |config| config.metadata.as_mut().unwrap().attempt = 1).await;
    assert_ne!(next, pod);
    node.remove_pod(&pod).await.unwrap();
    node.pod("p").await;
}

#[tokio::test(flavor = "multi_thread")]
async fn the_retry_after_a_deadline_gets_the_first_tries_pod() {
    let Some(node) = Node::start().await else { return };
    node.plugin("slow", "#!/bin/sh\n[ \"$CNI_COMMAND\" = ADD ] && sleep 1\nexec \"$(dirname $0)/test\"\n");
    node.network(r#"{"type":"test"},{"type":"slow"}"#);
    let script = std::fs::read_to_string(node.path("bin/test")).unwrap();
    node.plugin(
        "slow",
        &script.replacen(
            "conf=$(cat)",
            "conf=$(cat | sed s/slow/test/)\n[ $CNI_COMMAND = ADD ] && sleep 1",
            1,
        ),
    );
    let first = tokio::time::timeout(std::time::Duration::from_millis(300), node.try_pod("p", |_| {})).await;
    assert!(first.is_err(), "not slow");
    let pod = node.try_pod("p", |_| {}).await.unwrap();
    let list = node.runtime().await.list_pod_sandbox(v1::ListPodSandboxRequest::default()).await.unwrap();
    let ids: Vec<String> = list.into_inner().items.into_iter().map(|p| p.id).collect();
    assert_eq!(ids, [pod]);
}

#[tokio::test(flavor = "multi_thread")]
async fn lists_are_filtered_and_ids_found_by_prefix() {
    let Some(node) = Node::start().await else { return };
    let label = |value: &str| HashMap::from([("app".to_owned(), value.to_owned())]);
    let a = node.pod_with("a", |c| c.labels = label("a")).await;
    let b = node.pod_with("b", |c| c.labels = label("b")).await;
    node.stop_pod(&b).await.unwrap();
    let mut runtime = node.runtime().await;
    let mut list = async |filter: v1::PodSandboxFilter| -> Vec<String> {
        let request = v1::ListPodSandboxRequest { filter: Some(filter) };
        let items = runtime.list_pod_sandbox(request).await.unwrap().into_inner().items;
        items.into_iter().map(|p| p.id).collect()
    };
    let state = |state: v1::PodSandboxState| Some(v1::PodSandboxStateValue { state: state.into() });
    let by = v1::PodSandboxFilter::default();
    assert_eq!(
        list(v1::PodSandboxFilter { label_selector: label("a"), ..by.clone() }).await,
        std::slice::from_ref(&a)
    );
    assert_eq!(
        list(v1::PodSandboxFilter { id: b[..20].into(), ..by.clone() }).await,
        std::slice::from_ref(&b)
    );
    let ready = state(v1::PodSandboxState::SandboxReady);
    assert_eq!(list(v1::PodSandboxFilter { state: ready, ..by }).await, std::slice::from_ref(&a));
    assert_eq!(node.pod_status(&a[..20]).await.id, a);
}

#[tokio::test(flavor = "multi_thread")]
async fn what_cannot_be_done_is_refused_by_name() {
    let Some(node) = Node::start().await else { return };
    type Change = fn(&mut v1::PodSandboxConfig);
    let cases: [(Change, &str); 5] = [
        (|c| c.metadata = None, "config.metadata"),
        (|c| c.linux.as_mut().unwrap().cgroup_parent = "a.slice".into(), "cgroup_parent"),
        (
            |c| {
                c.linux.as_mut().unwrap().sysctls.insert("kernel.core_pattern".into(), "|/x".into());
            },
            "kernel.core_pattern",
        ),
        (|c| c.dns_config.as_mut().unwrap().servers = vec!["a b".into()], "dns_config"),
        (
            |c| {
                let user = v1::UserNamespace { mode: v1::NamespaceMode::Pod.into(), ..Default::default() };
                let options = v1::NamespaceOption { userns_options: Some(user), ..Default::default() };
                let context = v1::LinuxSandboxSecurityContext {
                    namespace_options: Some(options),
                    ..Default::default()
                };
                c.linux.as_mut().unwrap().security_context = Some(context);
            },
            "userns_options",
        ),
    ];
    for (change, name) in cases {
        let error = node.try_pod("p", change).await.unwrap_err();
        assert!(error.code() == Code::InvalidArgument && error.message().contains(name), "{error}");
    }
    let request =
        v1::RunPodSandboxRequest { config: Some(node.pod_config("p")), runtime_handler: "kata".into() };
    let error = node.runtime().await.run_pod_sandbox(request).await.unwrap_err();
    assert!(error.message().contains("kata"), "{error}");
    let error = node.runtime().await.attach(v1::AttachRequest::default()).await.unwrap_err();
    assert!(error.code() == Code::Unimplemented && error.message().contains("Attach"), "{error}");
    node.assert_clean();
}

#[tokio::test(flavor = "multi_thread")]
async fn sysctls_are_set_in_the_pod() {
    let Some(node) = Node::start().await else { return };
    let pod = node
        .pod_with("p", |c| {
            let sysctls = &mut c.linux.as_mut().unwrap().sysctls;
            sysctls.insert("net.ipv4.ip_local_port_range".into(), "2000\t3000".into());
            sysctls.insert("kernel.shm_rmid_forced".into(), "1".into());
        })
        .await;
    let c = node.container(&pod, "c", "exec busybox sleep 1000").await;
    let (text, _) = node
        .exec(&c, "busybox cat /proc/sys/net/ipv4/ip_local_port_range /proc/sys/kernel/shm_rmid_forced")
        .await;
    assert_eq!(text, "2000\t3000\n1\n");
}
