//! The daemon's client against the real monitor, without containers (those are the monitor's own tests).

use std::fs;
use std::os::unix::fs::DirBuilderExt;
use std::path::PathBuf;
use std::time::Duration;

use corten_cri::monitor::{Monitor, MonitorError, MonitorSpec, sweep_dead};
use corten_monitor::protocol::FailureKind;
use tokio::time::timeout;

const PATIENCE: Duration = Duration::from_secs(20);

/// Beside this test's own program, where cargo puts every program of the workspace.
fn program() -> Option<PathBuf> {
    let own = std::env::current_exe().ok()?;
    let program = own.parent()?.parent()?.join("corten-monitor");
    if program.exists() {
        return Some(program);
    }
    println!("SKIP: {} is not built", program.display());
    None
}

struct Place {
    root: tempfile::TempDir,
    program: PathBuf,
}

impl Place {
    fn new() -> Option<Self> {
        let root = tempfile::tempdir().unwrap();
        fs::DirBuilder::new().mode(0o700).create(root.path().join("pod")).unwrap();
        Some(Self { root, program: program()? })
    }

    fn dir(&self) -> PathBuf {
        self.root.path().join("pod")
    }

    fn spawn(&self) -> (Monitor, corten_cri::monitor::Events) {
        let spec = MonitorSpec {
            program: &self.program,
            dir: &self.dir(),
            sandbox: "s",
            oci_root: &self.root.path().join("oci"),
            netns_dir: self.root.path().join("netns"),
        };
        Monitor::spawn(&spec).unwrap()
    }
}

fn kill(pid: i32) {
    let pid = rustix::process::Pid::from_raw(pid).unwrap();
    rustix::process::kill_process(pid, rustix::process::Signal::KILL).unwrap();
}

#[tokio::test]
async fn many_requests_are_under_way_at_once_and_refusals_have_a_kind() {
    let Some(place) = Place::new() else { return };
    let (monitor, _events) = place.spawn();
    let asked: Vec<_> = (0..200)
        .map(|n| {
            let monitor = monitor.clone();
            tokio::spawn(async move { monitor.start_container(&format!("c{n}")).await })
        })
        .collect();
    for call in asked {
        assert_eq!(call.await.unwrap().unwrap_err().kind(), Some(FailureKind::NotFound));
    }
    assert!(monitor.list().await.unwrap().containers.is_empty());
    timeout(PATIENCE, monitor.shutdown()).await.unwrap().unwrap();
    assert!(monitor.list().await.unwrap_err().is_dead());
}

#[tokio::test]
async fn a_restarted_daemon_finds_the_monitor_and_learns_of_its_death() {
    let Some(place) = Place::new() else { return };
    let (first, _events) = place.spawn();
    first.list().await.unwrap();
    let (second, mut events) = Monitor::connect(&place.dir()).unwrap();
    drop(first);
    assert_eq!(second.list().await.unwrap().sandbox, None);
    let waiting = tokio::spawn({
        let second = second.clone();
        async move { second.ended().await }
    });
    kill(second.pid());
    assert!(timeout(PATIENCE, events.next()).await.unwrap().is_none());
    assert!(timeout(PATIENCE, waiting).await.unwrap().unwrap().is_dead());
    assert!(second.delete_container("c").await.unwrap_err().is_dead());
    assert!(matches!(Monitor::connect(&place.dir()), Err(MonitorError::Dead { .. })));
    sweep_dead(&place.program, &place.dir()).await.unwrap();
    sweep_dead(&place.program, &place.dir()).await.unwrap();
}

#[tokio::test]
async fn a_sweep_of_a_living_monitor_is_refused() {
    let Some(place) = Place::new() else { return };
    let (monitor, _events) = place.spawn();
    monitor.list().await.unwrap();
    let error = sweep_dead(&place.program, &place.dir()).await.unwrap_err();
    assert!(error.to_string().contains("lives"), "{error}");
    assert!(monitor.list().await.is_ok());
}

#[tokio::test]
async fn a_monitor_that_cannot_come_up_says_why() {
    let Some(place) = Place::new() else { return };
    fs::create_dir(place.dir().join("monitor.sock")).unwrap();
    let (monitor, _events) = place.spawn();
    let error = timeout(PATIENCE, monitor.list()).await.unwrap().unwrap_err();
    assert!(error.is_dead() && error.to_string().contains("listen on"), "{error}");
    assert!(matches!(Monitor::connect(&place.dir()), Err(MonitorError::Dead { .. })));
}
