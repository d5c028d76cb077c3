//! Containers: their life, their logs, their names.

use std::collections::HashMap;
use std::time::{Duration, Instant};

use corten_cri_api::v1;
use tonic::Code;

use crate::node::Node;

async fn stop(node: &Node, container: &str, timeout: i64) -> Result<(), tonic::Status> {
    let request = v1::StopContainerRequest { container_id: container.into(), timeout };
    node.runtime().await.stop_container(request).await.map(drop)
}

async fn remove(node: &Node, container: &str) -> Result<(), tonic::Status> {
    let request = v1::RemoveContainerRequest { container_id: container.into() };
    node.runtime().await.remove_container(request).await.map(drop)
}

#[tokio::test(flavor = "multi_thread")]
async fn a_container_tells_each_state_of_its_life() {
    let Some(node) = Node::start().await else { return };
    let pod = node.pod("p").await;
    let id = node.try_create(&pod, "c", "echo out; echo err >&2; exit 3", |_| {}).await.unwrap();
    let status = node.status(&id).await;
    assert_eq!((status.state(), status.started_at), (v1::ContainerState::ContainerCreated, 0));
    let start = v1::StartContainerRequest { container_id: id.clone() };
    node.runtime().await.start_container(start.clone()).await.unwrap();
    let status = node.exited(&id).await;
    assert_eq!((status.exit_code, status.reason.as_str()), (3, "Error"));
    assert!(
        status.created_at > 0
            && status.started_at >= status.created_at
            && status.finished_at >= status.started_at
    );
    assert_eq!(status.image.unwrap().image, crate::node::IMAGE);
    assert!(!status.image_ref.is_empty() && status.image_id.starts_with("sha256:"));
    let log = node.read_log("p", "c");
    let lines: Vec<String> = log.lines().map(|l| l.split_once(' ').unwrap().1.to_owned()).collect();
    assert!(
        lines.contains(&"stdout F out".to_owned()) && lines.contains(&"stderr F err".to_owned()),
        "{log}"
    );
    let again = node.runtime().await.start_container(start).await.unwrap_err();
    assert_eq!(again.code(), Code::FailedPrecondition);
    stop(&node, &id, 5).await.unwrap();
    remove(&node, &id).await.unwrap();
    remove(&node, &id).await.unwrap();
    stop(&node, &id, 5).await.unwrap();
    node.remove_pod(&pod).await.unwrap();
    node.assert_clean();
}

#[tokio::test(flavor = "multi_thread")]
async fn stopping_sends_the_signal_and_then_kills() {
    let Some(node) = Node::start().await else { return };
    let pod = node.pod("p").await;
    let polite = "trap 'exit 7' TERM; while :; do busybox sleep 0.05; done";
    let polite = node.container(&pod, "polite", polite).await;
    let deaf = node.container(&pod, "deaf", "trap '' TERM; while :; do busybox sleep 0.05; done").await;
    let special = "trap 'exit 9' USR1; while :; do busybox sleep 0.05; done";
    let special =
        node.container_with(&pod, "special", special, |c| c.stop_signal = v1::Signal::Sigusr1.into()).await;
    // The shells must have set their traps.
    tokio::time::sleep(Duration::from_millis(300)).await;
    stop(&node, &polite, 30).await.unwrap();
    assert_eq!(node.status(&polite).await.exit_code, 7);
    let before = Instant::now();
    stop(&node, &deaf, 1).await.unwrap();
    assert!(before.elapsed() >= Duration::from_secs(1));
    assert_eq!(node.status(&deaf).await.exit_code, 137);
    stop(&node, &special, 30).await.unwrap();
    assert_eq!(node.status(&special).await.exit_code, 9);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_stop_whose_client_left_does_not_keep_a_later_one_waiting() {
    let Some(node) = Node::start().await else { return };
    let pod = node.pod("p").await;
    let c = node.container(&pod, "c", "trap '' TERM; while :; do busybox sleep 0.05; done").await;
    let left = tokio::time::timeout(Duration::from_millis(200), stop(&node, &c, 1000)).await;
    assert!(left.is_err());
    stop(&node, &c, 0).await.unwrap();
    assert_eq!(node.status(&c).await.exit_code, 137);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_second_container_of_a_name_is_refused_with_the_firsts_id() {
    let Some(node) = Node::start().await else { return };
    let pod = node.pod("p").await;
    let first = node.container(&pod, "c", "exec busybox sleep 1000").await;
    let error = node.try_create(&pod, "c", "true", |_| {}).await.unwrap_err();
    assert!(error.code() == Code::AlreadyExists && error.message().contains(&first), "{error}");
    remove(&node, &first).await.unwrap();
    node.container(&pod, "c", "true").await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_missing_program_has_the_runtimes_words_and_leaves_nothing() {
    let Some(node) = Node::start().await else { return };
    let pod = node.pod("p").await;
    let created = node.try_create(&pod, "c", "", |c| c.command = vec!["/no/such/program".into()]).await;
    let error = match created {
        Err(error) => error,
        Ok(id) => {
            let request = v1::StartContainerRequest { container_id: id.clone() };
            let error = node.runtime().await.start_container(request).await.unwrap_err();
            assert_eq!(node.status(&id).await.exit_code, 127);
            error
        }
    };
    assert!(error.message().contains("/no/such/program"), "{error}");
    node.remove_pod(&pod).await.unwrap();
    node.assert_clean();
}

#[tokio::test(flavor = "multi_thread")]
async fn a_missing_image_is_not_found_and_leaves_nothing() {
    let Some(node) = Node::start().await else { return };
    let pod = node.pod("p").await;
    let error = node
        .try_create(&pod, "c", "true", |c| c.image.as_mut().unwrap().image = "corten.test/absent:1".into())
        .await
        .unwrap_err();
    assert!(error.code() == Code::NotFound && error.message().contains("absent"), "{error}");
    assert_eq!(node.names(&format!("root/pods/{pod}/containers")), [""; 0]);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_log_is_reopened_after_its_rename() {
    let Some(node) = Node::start().await else { return };
    let pod = node.pod("p").await;
    let c = node.container(&pod, "c", "while :; do echo tick; busybox sleep 0.05; done").await;
    let path = node.path("logs/p/c.log");
    node.until("a line", async |node| node.read_log("p", "c").contains("tick")).await;
    std::fs::rename(&path, path.with_extension("old")).unwrap();
    let request = v1::ReopenContainerLogRequest { container_id: c };
    node.runtime().await.reopen_container_log(request).await.unwrap();
    node.until("a line in the new log", async |node| node.read_log("p", "c").contains("tick")).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_container_killed_for_memory_says_so() {
    let Some(node) = Node::start().await else { return };
    let pod = node.pod("p").await;
    let eat = "x=a; while :; do x=$x$x; done";
    let c = node
        .container_with(&pod, "c", eat, |c| {
            let resources =
                v1::LinuxContainerResources { memory_limit_in_bytes: 16 << 20, ..Default::default() };
            c.linux.as_mut().unwrap().resources = Some(resources);
        })
        .await;
    let status = node.exited(&c).await;
    assert_eq!((status.exit_code, status.reason.as_str()), (137, "OOMKilled"));
    assert_eq!(status.resources.unwrap().linux.unwrap().memory_limit_in_bytes, 16 << 20);
}

#[tokio::test(flavor = "multi_thread")]
async fn volumes_are_mounted_as_asked() {
    let Some(node) = Node::start().await else { return };
    let pod = node.pod("p").await;
    let mount = |name: &str, readonly| v1::Mount {
        container_path: format!("/{name}"),
        host_path: node.path("volumes").join(name).display().to_string(),
        readonly,
        ..Default::default()
    };
    let mounts = vec![mount("rw", false), mount("ro", true)];
    let c = node.container_with(&pod, "c", "exec busybox sleep 1000", |c| c.mounts = mounts.clone()).await;
    assert_eq!(node.exec(&c, "echo x > /rw/f && echo done").await.0, "done\n");
    assert_eq!(std::fs::read_to_string(node.path("volumes/rw/f")).unwrap(), "x\n");
    assert_ne!(node.exec(&c, "echo x > /ro/f").await.1, 0);
    assert_eq!(node.status(&c).await.mounts, mounts);
}

/// A tmpfs on the host, gone with the value.
struct Tmpfs(std::path::PathBuf);

impl Tmpfs {
    fn mount(path: std::path::PathBuf) -> Self {
        std::fs::create_dir_all(&path).unwrap();
        rustix::mount::mount("tmpfs", &path, "tmpfs", rustix::mount::MountFlags::empty(), None).unwrap();
        Self(path)
    }
}

impl Drop for Tmpfs {
    fn drop(&mut self) {
        let _ = rustix::mount::unmount(&self.0, rustix::mount::UnmountFlags::DETACH);
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_volume_mounted_after_the_pod_is_the_real_one_or_refused() {
    let Some(node) = Node::start().await else { return };
    let late = node.pod("late").await;
    let volume = Tmpfs::mount(node.path("volumes/late"));
    std::fs::write(volume.0.join("f"), "real\n").unwrap();
    let mounts = vec![v1::Mount {
        container_path: "/v".into(),
        host_path: volume.0.display().to_string(),
        ..Default::default()
    }];
    let script = "exec busybox sleep 1000";
    match node.try_create(&late, "c", script, |c| c.mounts = mounts.clone()).await {
        // Where the host's mounts are shared, they arrive.
        Ok(id) => {
            let request = v1::StartContainerRequest { container_id: id.clone() };
            node.runtime().await.start_container(request).await.unwrap();
            assert_eq!(node.exec(&id, "cat /v/f").await.0, "real\n");
        }
        Err(refused) => {
            assert!(refused.message().contains("make-rshared"), "{refused}");
            assert!(refused.message().contains("volumes/late"), "{refused}");
        }
    }
    let pod = node.pod("again").await;
    let c = node.container_with(&pod, "c", script, |c| c.mounts = mounts.clone()).await;
    assert_eq!(node.exec(&c, "cat /v/f").await.0, "real\n");
}

#[tokio::test(flavor = "multi_thread")]
async fn containers_are_filtered_by_pod_state_and_label() {
    let Some(node) = Node::start().await else { return };
    let pod = node.pod("p").await;
    let label = HashMap::from([("a".to_owned(), "1".to_owned())]);
    let running =
        node.container_with(&pod, "r", "exec busybox sleep 1000", |c| c.labels = label.clone()).await;
    let ended = node.container(&pod, "e", "true").await;
    node.exited(&ended).await;
    let mut runtime = node.runtime().await;
    let mut list = async |filter: v1::ContainerFilter| -> Vec<String> {
        let request = v1::ListContainersRequest { filter: Some(filter) };
        let found = runtime.list_containers(request).await.unwrap().into_inner().containers;
        found.into_iter().map(|c| c.id).collect()
    };
    let state = v1::ContainerStateValue { state: v1::ContainerState::ContainerExited.into() };
    let by = v1::ContainerFilter::default();
    assert_eq!(list(v1::ContainerFilter { state: Some(state), ..by.clone() }).await, [ended]);
    assert_eq!(list(v1::ContainerFilter { label_selector: label.clone(), ..by.clone() }).await, [running]);
    assert_eq!(list(v1::ContainerFilter { pod_sandbox_id: pod, ..by.clone() }).await.len(), 2);
    assert!(list(v1::ContainerFilter { pod_sandbox_id: "no".into(), ..by }).await.is_empty());
}
