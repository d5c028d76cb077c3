//! Listens to a pod's monitor: ends of containers, and its own.

use std::sync::Arc;
use std::time::Duration;

use corten_monitor::protocol;

use super::state::{Event, Phase};
use crate::container::state::{Exit, State};
use crate::daemon::Daemon;
use crate::error::Error;
use crate::monitor::{Events, Monitor};
use crate::store::Sandbox;

/// Listens until the monitor is dead, on a task of its own.
pub fn start(daemon: &Arc<Daemon>, sandbox: &Arc<Sandbox>, monitor: Monitor, events: Events) {
    sandbox.set_monitor(Some(monitor.clone()));
    let (daemon, sandbox) = (Arc::clone(daemon), Arc::clone(sandbox));
    tokio::spawn(async move { listen(&daemon, &sandbox, monitor, events).await });
}

async fn listen(daemon: &Daemon, sandbox: &Arc<Sandbox>, mut monitor: Monitor, mut events: Events) {
    loop {
        while let Some(event) = events.next().await {
            if let Err(error) = heard(daemon, sandbox, event) {
                tracing::error!(sandbox = sandbox.id, %error, "record what the monitor reported");
            }
        }
        let end = monitor.ended().await;
        if !end.is_dead()
            && let Ok(next) = reconnect(daemon, sandbox).await
        {
            (monitor, events) = next;
            continue;
        }
        lost(daemon, sandbox, &end.to_string());
        return;
    }
}

fn heard(daemon: &Daemon, sandbox: &Sandbox, event: protocol::Event) -> Result<(), Error> {
    match event {
        protocol::Event::ContainerExited { id, exit } if id == sandbox.id => {
            lost(daemon, sandbox, &format!("the pause process ended with code {}", exit.code));
        }
        protocol::Event::ContainerExited { id, exit } => {
            if let Ok(container) = daemon.store.container(&id) {
                container.ended(Exit::of(exit.code, exit.oom_killed, exit.finished_at_unix_nanos))?;
                tracing::info!(container = id, code = exit.code, oom = exit.oom_killed, "container exited");
            }
        }
        protocol::Event::OomKilled { id } => {
            tracing::warn!(container = id, "a process was killed for memory");
        }
        protocol::Event::ExecExited { .. } => {}
    }
    Ok(())
}

/// A sandbox that is being stopped loses its monitor on purpose.
fn lost(daemon: &Daemon, sandbox: &Sandbox, why: &str) {
    if sandbox.phase() != Phase::Ready {
        return;
    }
    tracing::error!(sandbox = sandbox.id, why, "sandbox is not ready any more");
    if let Err(error) = sandbox.happened(Event::Died, Some(why.to_owned())) {
        tracing::error!(sandbox = sandbox.id, %error, "record the loss of the sandbox");
    }
    daemon.teardown_owed.notify_one();
}

async fn reconnect(daemon: &Daemon, sandbox: &Arc<Sandbox>) -> Result<(Monitor, Events), Error> {
    tokio::time::sleep(Duration::from_millis(100)).await;
    let (monitor, events) = Monitor::connect(&sandbox.state_dir)?;
    sandbox.set_monitor(Some(monitor.clone()));
    let pod = monitor.list().await?;
    reconcile(daemon, sandbox, &pod)?;
    Ok((monitor, events))
}

/// Takes over what the monitor knows of containers: ends that were not heard of.
pub fn reconcile(daemon: &Daemon, sandbox: &Sandbox, pod: &protocol::PodState) -> Result<(), Error> {
    for container in daemon.store.containers_of(&sandbox.id) {
        if !matches!(container.state(), State::Created | State::Running) {
            continue;
        }
        let Some(known) = pod.containers.iter().find(|c| c.id == container.id) else {
            container.ended(Exit::unseen(crate::daemon::now_ns(), "its monitor does not know it"))?;
            continue;
        };
        if let Some(started) = known.started_at_unix_nanos
            && container.state() == State::Created
        {
            container.update(|r| r.facts.started_at_ns = Some(started))?;
        }
        if let Some(exit) = &known.exit {
            container.ended(Exit::of(exit.code, exit.oom_killed, exit.finished_at_unix_nanos))?;
        }
    }
    Ok(())
}
