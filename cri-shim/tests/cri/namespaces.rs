//! Which namespaces a container has.

use corten_cri_api::v1;
use v1::NamespaceMode;

use crate::node::Node;

fn options(network: NamespaceMode, pid: NamespaceMode, ipc: NamespaceMode) -> v1::NamespaceOption {
    v1::NamespaceOption { network: network.into(), pid: pid.into(), ipc: ipc.into(), ..Default::default() }
}

fn pod_options(config: &mut v1::PodSandboxConfig, options: v1::NamespaceOption) {
    let context = v1::LinuxSandboxSecurityContext { namespace_options: Some(options), ..Default::default() };
    config.linux.as_mut().unwrap().security_context = Some(context);
}

fn container_options(config: &mut v1::ContainerConfig, options: v1::NamespaceOption) {
    let context =
        v1::LinuxContainerSecurityContext { namespace_options: Some(options), ..Default::default() };
    config.linux.as_mut().unwrap().security_context = Some(context);
}

fn own(namespace: &str) -> String {
    std::fs::read_link(format!("/proc/self/ns/{namespace}")).unwrap().display().to_string()
}

async fn namespace(node: &Node, container: &str, name: &str) -> String {
    node.exec(container, &format!("busybox readlink /proc/self/ns/{name}")).await.0.trim().to_owned()
}

const SLEEP: &str = "exec busybox sleep 1000";

#[tokio::test(flavor = "multi_thread")]
async fn pid_modes() {
    let Some(node) = Node::start().await else { return };
    let with = |pid| options(NamespaceMode::Pod, pid, NamespaceMode::Pod);
    let shared = node.pod_with("shared", |c| pod_options(c, with(NamespaceMode::Pod))).await;
    let a =
        node.container_with(&shared, "a", SLEEP, |c| container_options(c, with(NamespaceMode::Pod))).await;
    let b =
        node.container_with(&shared, "b", SLEEP, |c| container_options(c, with(NamespaceMode::Pod))).await;
    let own_pid = node
        .container_with(&shared, "own", SLEEP, |c| container_options(c, with(NamespaceMode::Container)))
        .await;
    let (pid_a, pid_b) = (namespace(&node, &a, "pid").await, namespace(&node, &b, "pid").await);
    assert!(pid_a == pid_b && pid_a != own("pid"));
    assert!(node.exec(&a, "busybox cat /proc/1/cmdline").await.0.contains("pause"));
    assert_ne!(namespace(&node, &own_pid, "pid").await, pid_a);
    assert!(node.exec(&own_pid, "busybox cat /proc/1/cmdline").await.0.contains("sleep"));
    let target = v1::NamespaceOption { target_id: own_pid.clone(), ..with(NamespaceMode::Target) };
    let debug = node.container_with(&shared, "debug", SLEEP, |c| container_options(c, target)).await;
    assert_eq!(namespace(&node, &debug, "pid").await, namespace(&node, &own_pid, "pid").await);
    let host = node.pod_with("host", |c| pod_options(c, with(NamespaceMode::Node))).await;
    let h = node.container_with(&host, "h", SLEEP, |c| container_options(c, with(NamespaceMode::Node))).await;
    assert_eq!(namespace(&node, &h, "pid").await, own("pid"));
    assert_eq!(
        node.pod_status(&host).await.linux.unwrap().namespaces.unwrap().options.unwrap().pid(),
        NamespaceMode::Node
    );
}

#[tokio::test(flavor = "multi_thread")]
async fn a_pod_on_the_hosts_network_has_no_address_of_its_own() {
    let Some(node) = Node::start().await else { return };
    let host = options(NamespaceMode::Node, NamespaceMode::Container, NamespaceMode::Node);
    let pod = node.pod_with("p", |c| pod_options(c, host.clone())).await;
    let c = node.container_with(&pod, "c", SLEEP, |c| container_options(c, host)).await;
    let expected =
        node.in_network(|| std::fs::read_link("/proc/thread-self/ns/net").unwrap().display().to_string());
    assert_eq!(namespace(&node, &c, "net").await, expected);
    assert_eq!(namespace(&node, &c, "ipc").await, own("ipc"));
    assert_eq!(namespace(&node, &c, "uts").await, own("uts"));
    assert_eq!(node.pod_status(&pod).await.network.unwrap().ip, "");
    assert_eq!(node.names("state/netns"), [""; 0]);
    node.remove_pod(&pod).await.unwrap();
    node.assert_clean();
}
