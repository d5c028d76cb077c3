//! Taking a container away: out of its monitor, off the disk. Safe to repeat.

use std::sync::Arc;

use corten_monitor::protocol::FailureKind;

use crate::daemon::{Daemon, blocking};
use crate::error::Error;
use crate::files;
use crate::store::Container;

/// Deletes it in its monitor (which kills what is left), then its snapshot, its bundle and its record.
pub async fn remove(daemon: &Daemon, container: &Arc<Container>) -> Result<(), Error> {
    container.update(|r| r.facts.removing = true)?;
    if let Some(monitor) = container.sandbox.monitor() {
        match monitor.delete_container(&container.id).await {
            // With its monitor every process of it is gone, or will be by the sweep of its pod.
            Err(error) if error.is_dead() || error.kind() == Some(FailureKind::NotFound) => {}
            other => other?,
        }
    }
    forget(daemon, container).await
}

/// The part that needs no monitor.
pub async fn forget(daemon: &Daemon, container: &Arc<Container>) -> Result<(), Error> {
    let (images, id) = (daemon.images.clone(), container.id.clone());
    blocking(move || images.remove_snapshot(&id)).await?;
    files::remove_tree(&container.sandbox.bundle(&container.id))?;
    files::remove_tree(&container.dir)?;
    daemon.store.remove_container(container);
    daemon.jobs.forget(&job_name(&container.record().name().0));
    Ok(())
}

/// The name of the work that makes a container.
pub fn job_name(name: &str) -> String {
    format!("container {name}")
}
