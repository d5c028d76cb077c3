//! ExecSync: output, bounds, deadlines.

use std::time::{Duration, Instant};

use tonic::Code;

use crate::node::Node;

async fn node_with_container() -> Option<(Node, String)> {
    let node = Node::start().await?;
    let pod = node.pod("p").await;
    let id = node.container_with(&pod, "c", "exec busybox sleep 1000", |c| {
        c.envs = vec![corten_cri_api::v1::KeyValue { key: "GREETING".into(), value: "hello".into() }];
    });
    let id = id.await;
    Some((node, id))
}

#[tokio::test(flavor = "multi_thread")]
async fn both_streams_and_the_code_come_back() {
    let Some((node, c)) = node_with_container().await else { return };
    let answer = node.try_exec(&c, "echo $GREETING; echo err >&2; exit 5", 10).await.unwrap();
    assert_eq!(
        (&answer.stdout[..], &answer.stderr[..], answer.exit_code),
        (&b"hello\n"[..], &b"err\n"[..], 5)
    );
}

#[tokio::test(flavor = "multi_thread")]
async fn cve_2022_1708_output_is_bounded_at_16_mib_a_stream() {
    let Some((node, c)) = node_with_container().await else { return };
    let answer = node
        .try_exec(&c, "busybox dd if=/dev/zero bs=1M count=20 2>/dev/null; echo end >&2", 60)
        .await
        .unwrap();
    assert_eq!(answer.stdout.len(), 16 << 20);
    assert_eq!((&answer.stderr[..], answer.exit_code), (&b"end\n"[..], 0));
}

#[tokio::test(flavor = "multi_thread")]
async fn a_command_over_its_time_is_killed_with_its_children() {
    let Some((node, c)) = node_with_container().await else { return };
    let error = node.try_exec(&c, "busybox sleep 4321 & busybox sleep 4321", 1).await.unwrap_err();
    assert_eq!(error.code(), Code::DeadlineExceeded);
    node.until("the children are gone", async |node| {
        !node.exec(&c, "busybox ps").await.0.contains("sleep 4321")
    })
    .await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_child_that_keeps_the_pipe_open_is_not_waited_for() {
    let Some((node, c)) = node_with_container().await else { return };
    let before = Instant::now();
    let answer = node.try_exec(&c, "busybox sleep 1000 & echo out", 0).await.unwrap();
    assert_eq!((&answer.stdout[..], answer.exit_code), (&b"out\n"[..], 0));
    assert!(before.elapsed() < Duration::from_secs(20));
}

#[tokio::test(flavor = "multi_thread")]
async fn a_missing_command_and_a_container_that_ended_are_errors() {
    let Some((node, c)) = node_with_container().await else { return };
    let request =
        corten_cri_api::v1::ExecSyncRequest { container_id: c, cmd: vec!["/no/such".into()], timeout: 5 };
    let answer = node.runtime().await.exec_sync(request).await;
    match answer {
        Err(error) => assert!(error.message().contains("/no/such"), "{error}"),
        Ok(answer) => assert_eq!(answer.into_inner().exit_code, 127),
    }
    let pod = node.pod("q").await;
    let ended = node.container(&pod, "e", "true").await;
    node.exited(&ended).await;
    assert_eq!(node.try_exec(&ended, "true", 5).await.unwrap_err().code(), Code::FailedPrecondition);
}
