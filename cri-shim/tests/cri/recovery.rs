//! kill -9 of the daemon and of monitors: nothing is lost, nothing is left.

use corten_cri_api::v1;
use tonic::Code;

use crate::node::{Node, kill};

#[tokio::test(flavor = "multi_thread")]
async fn a_killed_daemon_knows_everything_again() {
    let Some(mut node) = Node::start().await else { return };
    let pod = node.pod("p").await;
    let running = node.container(&pod, "running", "while :; do echo tick; busybox sleep 0.05; done").await;
    let created = node.try_create(&pod, "created", "true", |_| {}).await.unwrap();
    let exited = node.container(&pod, "exited", "exit 4").await;
    node.exited(&exited).await;
    let volume = node.path("volume");
    let meanwhile = node
        .container_with(&pod, "meanwhile", "while [ ! -e /v/go ]; do busybox sleep 0.02; done; exit 6", |c| {
            let host_path = volume.display().to_string();
            c.mounts = vec![v1::Mount { container_path: "/v".into(), host_path, ..Default::default() }];
        })
        .await;
    let before = node.pod_status(&pod).await;
    node.kill_daemon();
    std::fs::write(volume.join("go"), "").unwrap();
    let length = node.read_log("p", "running").len();
    node.until("logs go on", async |node| node.read_log("p", "running").len() > length).await;
    node.launch().await;
    assert_eq!(node.pod_status(&pod).await, before);
    assert_eq!(node.status(&running).await.state(), v1::ContainerState::ContainerRunning);
    assert_eq!(node.status(&created).await.state(), v1::ContainerState::ContainerCreated);
    assert_eq!(node.status(&exited).await.exit_code, 4);
    assert_eq!(node.exited(&meanwhile).await.exit_code, 6);
    assert_eq!(node.exec(&running, "echo again").await.0, "again\n");
    assert_eq!(node.try_pod("p", |_| {}).await.unwrap_err().code(), Code::AlreadyExists);
    node.remove_pod(&pod).await.unwrap();
    node.assert_clean();
}

#[tokio::test(flavor = "multi_thread")]
async fn the_pod_of_a_killed_monitor_is_reported_dead_and_swept() {
    let Some(node) = Node::start().await else { return };
    let pod = node.pod("p").await;
    let c = node.container(&pod, "c", "exec busybox sleep 1000").await;
    kill(node.monitor_pid(&pod));
    let status = node.exited(&c).await;
    assert_eq!(status.exit_code, 137);
    assert!(!status.reason.is_empty());
    node.until("it is swept", async |node| node.names("state/pods").is_empty()).await;
    assert_eq!(node.pod_status(&pod).await.state(), v1::PodSandboxState::SandboxNotready);
    node.until("its address is free", async |node| node.addresses().is_empty()).await;
    node.stop_pod(&pod).await.unwrap();
    node.remove_pod(&pod).await.unwrap();
    node.assert_clean();
}

#[tokio::test(flavor = "multi_thread")]
async fn a_monitor_killed_while_the_daemon_is_down_is_found_out() {
    let Some(mut node) = Node::start().await else { return };
    let pod = node.pod("p").await;
    let c = node.container(&pod, "c", "exec busybox sleep 1000").await;
    let monitor = node.monitor_pid(&pod);
    node.kill_daemon();
    kill(monitor);
    node.launch().await;
    assert_eq!(node.exited(&c).await.exit_code, 137);
    assert_eq!(node.pod_status(&pod).await.state(), v1::PodSandboxState::SandboxNotready);
    node.remove_pod(&pod).await.unwrap();
    node.assert_clean();
}

#[tokio::test(flavor = "multi_thread")]
async fn a_daemon_killed_while_it_makes_a_pod_undoes_it_at_the_next_start() {
    let Some(mut node) = Node::start().await else { return };
    node.network(r#"{"type":"test","ADD":"hang"}"#);
    let unfinished =
        tokio::time::timeout(std::time::Duration::from_millis(500), node.try_pod("p", |_| {})).await;
    assert!(unfinished.is_err());
    node.kill_daemon();
    assert!(!node.names("root/pods").is_empty());
    node.launch().await;
    node.assert_clean();
    node.network(r#"{"type":"test"}"#);
    node.pod("p").await;
}

#[tokio::test(flavor = "multi_thread")]
async fn another_boot_sweeps_everything_and_gives_the_addresses_back() {
    let Some(mut node) = Node::start().await else { return };
    let pod = node.pod("p").await;
    let c = node.container(&pod, "c", "exec busybox sleep 1000").await;
    node.kill_daemon();
    kill(node.monitor_pid(&pod));
    let path = node.path("root/pods").join(&pod).join("sandbox.json");
    let boot = std::fs::read_to_string("/proc/sys/kernel/random/boot_id").unwrap();
    let text = std::fs::read_to_string(&path).unwrap();
    assert!(text.contains(boot.trim()));
    std::fs::write(&path, text.replace(boot.trim(), "another-boot")).unwrap();
    node.launch().await;
    node.until("the address is free", async |node| node.addresses().is_empty()).await;
    assert_eq!(node.exited(&c).await.exit_code, 137);
    node.remove_pod(&pod).await.unwrap();
    node.assert_clean();
}

#[tokio::test(flavor = "multi_thread")]
async fn what_has_no_record_is_swept() {
    let Some(mut node) = Node::start().await else { return };
    let pod = node.pod("p").await;
    node.container(&pod, "c", "exec busybox sleep 1000").await;
    node.kill_daemon();
    std::fs::write(node.path("root/pods").join(&pod).join("sandbox.json"), "{").unwrap();
    node.launch().await;
    node.assert_clean();
}

#[tokio::test(flavor = "multi_thread")]
async fn sigterm_ends_the_daemon_and_not_the_pods() {
    let Some(mut node) = Node::start().await else { return };
    let pod = node.pod("p").await;
    let c = node.container(&pod, "c", "exec busybox sleep 1000").await;
    node.terminate().await;
    assert!(!node.path("state/cri.sock").exists());
    node.launch().await;
    assert_eq!(node.status(&c).await.state(), v1::ContainerState::ContainerRunning);
    assert_eq!(node.pod_status(&pod).await.state(), v1::PodSandboxState::SandboxReady);
}
