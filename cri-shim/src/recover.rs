//! What a start finds of the life before: records, monitors, exit records, and things without an owner. First a pure
//! decision for each ([`for_sandbox`], [`for_container`]), then the deed. A daemon may be killed at any moment; its
//! containers do not care.

use std::collections::HashSet;
use std::sync::Arc;

use corten_monitor::layout::Layout;
use corten_monitor::protocol::PodState;
use corten_monitor::record::{self, ExitRecord};

use crate::container::record::ContainerRecord;
use crate::container::remove;
use crate::container::state::{Exit, State};
use crate::daemon::{Daemon, blocking, now_ns};
use crate::error::Error;
use crate::files::subdirectories;
use crate::id::is_id;
use crate::monitor::{Events, Monitor};
use crate::sandbox::record::SandboxRecord;
use crate::sandbox::state::{Event, Phase};
use crate::sandbox::{teardown, watch};
use crate::store::{Container, Sandbox};

/// What is to be done with a recorded sandbox.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum SandboxAction {
    /// It goes on as it is.
    Adopt,
    /// It was never finished: away with it and its record.
    Undo,
    /// It is listed as not ready, and its teardown is owed.
    TearDown(&'static str),
    /// Nothing is left of it but the record.
    Keep,
}

/// Pure.
pub fn for_sandbox(phase: Phase, same_boot: bool, monitor_alive: bool) -> SandboxAction {
    match (phase, same_boot, monitor_alive) {
        (Phase::Stopped, ..) => SandboxAction::Keep,
        (Phase::Creating, ..) => SandboxAction::Undo,
        (Phase::Stopping, ..) => SandboxAction::TearDown("its teardown was not finished"),
        (Phase::Ready, false, _) => SandboxAction::TearDown("the machine was rebooted"),
        (Phase::Ready, true, false) => SandboxAction::TearDown("its monitor died while the daemon was down"),
        (Phase::Ready, true, true) => SandboxAction::Adopt,
    }
}

/// What is to be done with a recorded container.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum ContainerAction {
    Keep,
    /// It was never finished, or its removal was not: away with it.
    Remove,
    /// It ended meanwhile.
    Ended(Exit),
}

/// Pure. `seen` is its exit record, if there is one; `watched`: its pod's monitor lives and will tell the rest.
pub fn for_container(state: State, watched: bool, seen: Option<Exit>, now_ns: i64) -> ContainerAction {
    match (state, seen) {
        (State::Creating | State::Removing, _) => ContainerAction::Remove,
        (State::Exited, _) => ContainerAction::Keep,
        (State::Created | State::Running, Some(exit)) => ContainerAction::Ended(exit),
        (State::Created | State::Running, None) if watched => ContainerAction::Keep,
        (State::Created, None) => {
            ContainerAction::Ended(Exit::not_started(137, now_ns, "its pod ended before it was started"))
        }
        (State::Running, None) => ContainerAction::Ended(Exit::unseen(
            now_ns,
            "its pod ended while the daemon was down; nobody saw how",
        )),
    }
}

/// Brings back everything that has a record and sweeps what has none. One pod that cannot be recovered does not keep
/// the others from it.
pub async fn recover(daemon: &Arc<Daemon>) -> Result<(), Error> {
    let mut known = HashSet::new();
    let ids = subdirectories(&daemon.config.pods_dir())?;
    for id in ids.into_iter().filter(|id| is_id(id)) {
        match SandboxRecord::read(&daemon.sandbox_dir(&id)) {
            Ok(Some(record)) => {
                known.insert(id.clone());
                if let Err(error) = sandbox(daemon, record).await {
                    tracing::error!(sandbox = id, %error, "recover");
                }
            }
            // Between the directory and the record, or destroyed: whatever there is of it goes.
            Ok(None) | Err(crate::files::FileError::Json { .. }) => {}
            Err(error) => {
                known.insert(id.clone());
                tracing::error!(sandbox = id, %error, "left alone: its record cannot be read");
            }
        }
    }
    sweep(daemon, &known).await
}

async fn sandbox(daemon: &Arc<Daemon>, record: SandboxRecord) -> Result<(), Error> {
    let same_boot = record.boot_id == daemon.boot_id;
    let (id, phase) = (record.id.clone(), record.phase);
    let monitor = if same_boot && phase != Phase::Stopped { connect(daemon, &id) } else { None };
    let action = for_sandbox(phase, same_boot, monitor.is_some());
    tracing::info!(sandbox = id, ?action, "recover");
    let sandbox = Arc::new(Sandbox::new(record, daemon.sandbox_dir(&id), daemon.state_dir(&id)));
    daemon.store.add_sandbox(Arc::clone(&sandbox));
    let watched = action == SandboxAction::Adopt;
    let pod = if let Some((monitor, events)) = monitor {
        let pod = monitor.list().await?;
        sandbox.set_monitor(Some(monitor.clone()));
        if watched {
            watch::start(daemon, &sandbox, monitor, events);
        }
        Some(pod)
    } else {
        None
    };
    containers(daemon, &sandbox, watched).await?;
    match (action, pod) {
        (SandboxAction::Keep, _) => Ok(()),
        (SandboxAction::Adopt, Some(pod)) => adopt(daemon, &sandbox, &pod),
        (SandboxAction::Undo, _) => undo(daemon, &sandbox).await,
        (SandboxAction::TearDown(why), _) => {
            sandbox.happened(Event::Died, Some(why.to_owned()))?;
            daemon.teardown_owed.notify_one();
            Ok(())
        }
        (SandboxAction::Adopt, None) => unreachable!("only a pod whose monitor lives is adopted"),
    }
}

fn connect(daemon: &Daemon, id: &str) -> Option<(Monitor, Events)> {
    match Monitor::connect(&daemon.state_dir(id)) {
        Ok(found) => Some(found),
        Err(error) => {
            tracing::warn!(sandbox = id, %error, "no monitor");
            None
        }
    }
}

/// A pause process that ended while nobody listened makes the pod unready.
fn adopt(daemon: &Daemon, sandbox: &Sandbox, pod: &PodState) -> Result<(), Error> {
    watch::reconcile(daemon, sandbox, pod)?;
    if pod.sandbox.as_ref().is_none_or(|pause| pause.exit.is_some()) {
        sandbox.happened(Event::Died, Some("its pause process ended while the daemon was down".into()))?;
        daemon.teardown_owed.notify_one();
    }
    Ok(())
}

async fn undo(daemon: &Daemon, sandbox: &Arc<Sandbox>) -> Result<(), Error> {
    sandbox.happened(Event::Fail, Some("the daemon was killed while it made it".into()))?;
    if let Err(error) = teardown::sandbox(daemon, sandbox).await {
        // Listed as not ready; the janitor goes on.
        tracing::warn!(sandbox = sandbox.id, %error, "undo what was begun");
        return Ok(());
    }
    sandbox.dir.remove()?;
    daemon.store.remove_sandbox(sandbox);
    Ok(())
}

async fn containers(daemon: &Arc<Daemon>, sandbox: &Arc<Sandbox>, watched: bool) -> Result<(), Error> {
    for id in subdirectories(&sandbox.dir.containers())?.into_iter().filter(|id| is_id(id)) {
        let dir = sandbox.dir.container(&id);
        let record = match ContainerRecord::read(&dir) {
            Ok(Some(record)) => record,
            Ok(None) | Err(crate::files::FileError::Json { .. }) => {
                tracing::warn!(container = id, "removed: it has no readable record");
                without_record(sandbox, &id).await?;
                continue;
            }
            Err(error) => return Err(error.into()),
        };
        let container = Arc::new(Container::new(record, Arc::clone(sandbox)));
        daemon.store.add_container(Arc::clone(&container));
        match for_container(container.state(), watched, seen(sandbox, &id), now_ns()) {
            ContainerAction::Keep => {}
            ContainerAction::Ended(exit) => container.ended(exit)?,
            ContainerAction::Remove => remove::remove(daemon, &container).await?,
        }
    }
    Ok(())
}

async fn without_record(sandbox: &Sandbox, id: &str) -> Result<(), Error> {
    if let Some(monitor) = sandbox.monitor() {
        monitor.delete_container(id).await?;
    }
    // Its snapshot goes with the sweep.
    Ok(crate::files::remove_tree(&sandbox.dir.container(id))?)
}

fn seen(sandbox: &Sandbox, id: &str) -> Option<Exit> {
    let path = Layout::new(&sandbox.state_dir).exit_record(id);
    let exit = record::read::<ExitRecord>(&path).ok()?.exit;
    Some(Exit::of(exit.code, exit.oom_killed, exit.finished_at_unix_nanos))
}

/// Everything of ours that no record owns (requirement L2): pods, namespaces, snapshots.
async fn sweep(daemon: &Arc<Daemon>, known: &HashSet<String>) -> Result<(), Error> {
    let mut strangers: HashSet<String> = HashSet::new();
    strangers.extend(subdirectories(&daemon.config.pods_dir())?);
    strangers.extend(subdirectories(&daemon.config.state.join("pods"))?);
    if let Ok(entries) = std::fs::read_dir(daemon.config.netns_dir()) {
        strangers.extend(entries.filter_map(|e| e.ok()?.file_name().into_string().ok()));
    }
    for id in strangers.into_iter().filter(|id| is_id(id) && !known.contains(id)) {
        tracing::warn!(sandbox = id, "swept: it has no record");
        match teardown::orphan(daemon, &id).await {
            Ok(()) => daemon.sandbox_dir(&id).remove()?,
            Err(error) => tracing::error!(sandbox = id, %error, "sweep; the next start tries again"),
        }
    }
    let images = daemon.images.clone();
    let owned: HashSet<String> = daemon.store.containers().iter().map(|c| c.id.clone()).collect();
    blocking(move || {
        for snapshot in images.snapshots().into_iter().filter(|s| !owned.contains(&s.key)) {
            tracing::warn!(snapshot = snapshot.key, "swept: it has no container");
            images.remove_snapshot(&snapshot.key)?;
        }
        Ok(())
    })
    .await
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn sandboxes_found_at_a_start() {
        use Phase::{Creating, Ready, Stopped, Stopping};
        for (phase, same_boot, alive, adopted, undone, torn) in [
            (Ready, true, true, true, false, false),
            (Ready, true, false, false, false, true),
            (Ready, false, false, false, false, true),
            (Ready, false, true, false, false, true),
            (Creating, true, true, false, true, false),
            (Creating, false, false, false, true, false),
            (Stopping, true, true, false, false, true),
            (Stopped, true, false, false, false, false),
            (Stopped, false, false, false, false, false),
        ] {
            let action = for_sandbox(phase, same_boot, alive);
            assert_eq!(action == SandboxAction::Adopt, adopted, "{phase:?} {same_boot} {alive}");
            assert_eq!(action == SandboxAction::Undo, undone, "{phase:?} {same_boot} {alive}");
            assert_eq!(matches!(action, SandboxAction::TearDown(_)), torn, "{phase:?} {same_boot} {alive}");
        }
    }

    #[test]
    fn containers_found_at_a_start() {
        let exit = Exit::of(3, false, 7);
        let find = |state, watched, seen: Option<&Exit>| for_container(state, watched, seen.cloned(), 9);
        assert_eq!(find(State::Running, true, Some(&exit)), ContainerAction::Ended(exit.clone()));
        assert_eq!(find(State::Running, false, Some(&exit)), ContainerAction::Ended(exit.clone()));
        assert_eq!(find(State::Running, true, None), ContainerAction::Keep);
        assert_eq!(find(State::Created, true, None), ContainerAction::Keep);
        assert_eq!(find(State::Exited, false, Some(&exit)), ContainerAction::Keep);
        assert_eq!(find(State::Creating, true, None), ContainerAction::Remove);
        assert_eq!(find(State::Removing, false, None), ContainerAction::Remove);
        for state in [State::Running, State::Created] {
            assert!(matches!(find(state, false, None), ContainerAction::Ended(Exit { code: 137, .. })));
        }
    }
}
