//! Taking a sandbox apart: everything it may have, whatever it has. Safe to repeat; a step that fails does not keep the
//! others from being done.

use std::io;
use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

use corten_monitor::layout::Layout;
use corten_monitor::protocol::FailureKind;
use corten_monitor::record::{self, ExitRecord};

use super::state::Event;
use crate::cni;
use crate::container::state::{Exit, State};
use crate::daemon::{Daemon, blocking, now_ns};
use crate::error::Error;
use crate::files::{self, FileError};
use crate::monitor::{Monitor, MonitorError, sweep_dead};
use crate::store::Sandbox;

const SIGKILL: i32 = 9;
/// A killed process that is still there after this long hangs in the kernel.
const KILL_LIMIT: Duration = Duration::from_secs(30);

/// Takes `sandbox` (in phase Stopping) apart, and notes that nothing is left of it.
pub async fn sandbox(daemon: &Daemon, sandbox: &Arc<Sandbox>) -> Result<(), Error> {
    let known = sandbox.monitor();
    let ids = daemon.store.containers_of(&sandbox.id);
    let end_containers = async {
        for container in &ids {
            if container.state() == State::Created {
                container.ended(Exit::not_started(
                    137,
                    now_ns(),
                    "the pod was stopped before it was started",
                ))?;
            }
        }
        let result = processes(daemon, &sandbox.state_dir, known).await;
        // Ends that were written and not heard of, or that nobody saw.
        for container in &ids {
            if matches!(container.state(), State::Running) && result.is_ok() {
                container.ended(seen_end(&sandbox.state_dir, &container.id))?;
            }
        }
        result
    };
    let (network, processes) = tokio::join!(network(daemon, &sandbox.id), end_containers);
    sandbox.set_monitor(None);
    processes?;
    network?;
    remove_state_dir(&sandbox.state_dir).await?;
    sandbox.happened(Event::TornDown, None)?;
    Ok(())
}

/// The same for what has no record any more.
pub async fn orphan(daemon: &Daemon, id: &str) -> Result<(), Error> {
    let state_dir = daemon.state_dir(id);
    let (network, processes) = tokio::join!(network(daemon, id), processes(daemon, &state_dir, None));
    processes?;
    network?;
    remove_state_dir(&state_dir).await
}

/// CNI DEL by the record of ADD, then the namespace. It stays while DEL fails: DEL may need it.
async fn network(daemon: &Daemon, id: &str) -> Result<(), Error> {
    cni::delete(&daemon.cni, &daemon.sandbox_dir(id).cni()).await?;
    let path = daemon.netns(id);
    let shown = path.display().to_string();
    blocking(move || corten_sys::ns::unpin(&path))
        .await
        .map_err(|errno| Error::system(format!("remove network namespace {shown}"), errno))
}

/// Kills every process of the pod, by its monitor while that lives, else in its stead.
async fn processes(daemon: &Daemon, state_dir: &Path, known: Option<Monitor>) -> Result<(), Error> {
    if !state_dir.exists() {
        return Ok(());
    }
    let monitor = match known {
        Some(monitor) => Ok(monitor),
        None => Monitor::connect(state_dir).map(|(monitor, _events)| monitor),
    };
    let ended = match monitor {
        Ok(monitor) => tokio::time::timeout(KILL_LIMIT, end(&monitor)).await.map_err(|_| Error::Timeout {
            what: format!("ending the processes of {}", state_dir.display()),
            limit_s: KILL_LIMIT.as_secs(),
        })?,
        Err(error) => Err(error),
    };
    match ended {
        Err(error) if error.is_dead() => Ok(sweep_dead(&daemon.monitor_program, state_dir).await?),
        other => Ok(other?),
    }
}

/// Ends all containers at once, then the pause container, then the monitor.
async fn end(monitor: &Monitor) -> Result<(), MonitorError> {
    let pod = monitor.list().await?;
    let mut running = tokio::task::JoinSet::new();
    for container in pod.containers {
        let monitor = monitor.clone();
        running.spawn(async move { delete(&monitor, &container.id, container.exit.is_some()).await });
    }
    while let Some(result) = running.join_next().await {
        result.expect("panics abort")?;
    }
    if let Some(pause) = pod.sandbox {
        delete(monitor, &pause.id, pause.exit.is_some()).await?;
    }
    match monitor.shutdown().await {
        Err(MonitorError::Dead { .. }) => Ok(()),
        other => other,
    }
}

/// Kills, so that the end is written with its true exit code, then deletes.
async fn delete(monitor: &Monitor, id: &str, exited: bool) -> Result<(), MonitorError> {
    if !exited {
        match monitor.signal(id, SIGKILL, true).await {
            Err(error) if matches!(error.kind(), Some(FailureKind::NotRunning | FailureKind::NotFound)) => {}
            other => other?,
        }
    }
    monitor.delete_container(id).await
}

fn seen_end(state_dir: &Path, id: &str) -> Exit {
    let path = Layout::new(state_dir).exit_record(id);
    match record::read::<ExitRecord>(&path) {
        Ok(record) => Exit::of(record.exit.code, record.exit.oom_killed, record.exit.finished_at_unix_nanos),
        Err(_) => Exit::unseen(now_ns(), "killed with its pod; nobody saw it end"),
    }
}

/// Mounts of a monitor go with its mount namespace, so whatever is below is plain files.
async fn remove_state_dir(state_dir: &Path) -> Result<(), Error> {
    let path = state_dir.to_path_buf();
    let removed = blocking(move || files::remove_tree(&path)).await;
    match removed {
        // A monitor that is dying may still let go of a mount.
        Err(FileError::Io { source, .. }) if source.kind() == io::ErrorKind::ResourceBusy => {
            tokio::time::sleep(Duration::from_millis(50)).await;
            let path = state_dir.to_path_buf();
            Ok(blocking(move || files::remove_tree(&path)).await?)
        }
        other => Ok(other?),
    }
}
