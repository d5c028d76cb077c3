//! CNI plugins that are missing, fail or hang; a monitor that cannot start; a second daemon.

use corten_cri_api::v1;

use crate::node::Node;

fn calls(node: &Node, verb: &str) -> usize {
    let text = std::fs::read_to_string(node.path("calls")).unwrap_or_default();
    text.lines().filter(|l| l.starts_with(verb)).count()
}

#[tokio::test(flavor = "multi_thread")]
async fn a_pod_whose_network_fails_leaves_nothing() {
    let Some(node) = Node::start().await else { return };
    for (second, words) in [
        (r#"{"type":"test","ADD":"fail"}"#, "told to fail"),
        (r#"{"type":"test","ADD":"hang"}"#, "took longer than 3 s"),
        (r#"{"type":"absent"}"#, "CNI plugin absent: not found in"),
    ] {
        node.network(second);
        let error = node.try_pod("p", |_| {}).await.unwrap_err();
        assert!(error.message().contains(words), "{error}");
        if second.contains("absent") {
            // DEL cannot find the plugin either: the pod stays listed, until it can.
            assert!(error.message().contains("tried again"), "{error}");
            node.plugin("absent", "#!/bin/sh\nexit 0\n");
            node.until("the teardown succeeds", async |node| node.addresses().is_empty()).await;
            let list =
                node.runtime().await.list_pod_sandbox(v1::ListPodSandboxRequest::default()).await.unwrap();
            for pod in list.into_inner().items {
                assert_eq!(pod.state(), v1::PodSandboxState::SandboxNotready);
                node.remove_pod(&pod.id).await.unwrap();
            }
        }
        node.assert_clean();
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn without_a_network_configuration_the_node_is_not_ready_and_says_why() {
    let Some(node) = Node::start().await else { return };
    std::fs::remove_file(node.path("conf/10-pods.conflist")).unwrap();
    let status = node.runtime().await.status(v1::StatusRequest { verbose: true }).await.unwrap().into_inner();
    let conditions = status.status.unwrap().conditions;
    let network = conditions.iter().find(|c| c.r#type == "NetworkReady").unwrap();
    assert!(!network.status && network.message.contains("no CNI configuration"), "{network:?}");
    assert!(conditions.iter().find(|c| c.r#type == "RuntimeReady").unwrap().status);
    assert!(status.info["config"].contains("stateDir"));
    node.try_pod("p", |_| {}).await.unwrap_err();
    node.assert_clean();
}

#[tokio::test(flavor = "multi_thread")]
async fn del_uses_the_configuration_of_add_whatever_became_of_the_file() {
    let Some(node) = Node::start().await else { return };
    node.network(r#"{"type":"test","mark":"of-add"}"#);
    let pod = node.pod("p").await;
    std::fs::remove_file(node.path("conf/10-pods.conflist")).unwrap();
    node.stop_pod(&pod).await.unwrap();
    let text = std::fs::read_to_string(node.path("calls")).unwrap();
    let del = text.lines().find(|l| l.starts_with("DEL")).unwrap();
    assert!(del.contains("of-add") && del.contains("prevResult"), "{del}");
    node.remove_pod(&pod).await.unwrap();
    node.assert_clean();
}

#[tokio::test(flavor = "multi_thread")]
async fn a_failed_del_is_tried_again_until_it_succeeds_also_after_a_restart() {
    let Some(mut node) = Node::start().await else { return };
    node.network(r#"{"type":"test","DEL":"flag"}"#);
    let pod = node.pod("p").await;
    let error = node.stop_pod(&pod).await.unwrap_err();
    assert!(error.message().contains("no flag"), "{error}");
    assert_eq!(node.pod_status(&pod).await.state(), v1::PodSandboxState::SandboxNotready);
    assert!(node.remove_pod(&pod).await.is_err());
    node.kill_daemon();
    node.launch().await;
    let before = calls(&node, "DEL");
    node.until("the janitor tries", async |node| calls(node, "DEL") > before).await;
    std::fs::write(node.path("flag"), "").unwrap();
    node.until("it succeeds", async |node| node.names("state/netns").is_empty()).await;
    node.remove_pod(&pod).await.unwrap();
    node.assert_clean();
}

#[tokio::test(flavor = "multi_thread")]
async fn del_runs_though_the_network_namespace_is_gone() {
    let Some(node) = Node::start().await else { return };
    let pod = node.pod("p").await;
    corten_sys::ns::unpin(&node.path("state/netns").join(&pod)).unwrap();
    node.stop_pod(&pod).await.unwrap();
    node.remove_pod(&pod).await.unwrap();
    node.assert_clean();
}

#[tokio::test(flavor = "multi_thread")]
async fn a_second_daemon_is_refused() {
    let Some(node) = Node::start().await else { return };
    let other = [node.path("other-root"), node.path("other-state")].map(|p| p.display().to_string());
    let socket = node.path("state/cri.sock").display().to_string();
    for (arguments, words) in [
        (vec![], "held by another corten-cri"),
        (
            vec!["--root", &other[0], "--state", &other[1], "--listen", &socket],
            "is served by another program",
        ),
    ] {
        let mut second = node.command(&arguments);
        assert!(!second.wait().unwrap().success());
        assert!(node.log().contains(words), "{words}\n{}", node.log());
    }
    node.pod("p").await;
}

#[tokio::test(flavor = "multi_thread")]
async fn cve_2020_15257_the_socket_is_a_path_only_root_can_reach() {
    use std::os::unix::fs::PermissionsExt;
    let Some(node) = Node::start().await else { return };
    let mode = |path| std::fs::metadata(node.path(path)).unwrap().permissions().mode() & 0o777;
    assert_eq!(
        (mode("state/cri.sock"), mode("state"), mode("root"), mode("state/pods")),
        (0o600, 0o700, 0o700, 0o700)
    );
}
