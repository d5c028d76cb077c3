//! What is done for the containers of a monitor that has died without them: they are killed and deleted, and each that
//! left no exit record gets one. Safe to repeat from any point.

use std::path::Path;

use corten_sys::Failure;
use corten_sys::errno::Code;

use crate::layout::Layout;
use crate::oci::Runtime;
use crate::process::open_recorded;
use crate::protocol::Exit;
use crate::record::{self, ContainerRecord, ExitRecord, MonitorRecord};
use crate::timestamp::now_unix_nanos;

#[derive(Debug, thiserror::Error)]
pub enum SweepError {
    #[error("the monitor of this directory lives (pid {0}); ask it instead")]
    Alive(i32),
    #[error(transparent)]
    Os(#[from] Failure),
    /// Everything that could not be removed, after all else was.
    #[error("{}", .0.join("; "))]
    Left(Vec<String>),
}

/// Sweeps `dir`. Without a monitor record there is nothing that a monitor could have made.
pub fn sweep(dir: &Path) -> Result<(), SweepError> {
    let layout = Layout::new(dir);
    let os = |tried: &str, error: std::io::Error| {
        Failure::new(format!("{tried} of {}", dir.display()), Code::from(error))
    };
    let monitor: MonitorRecord = match record::read(&layout.monitor_record()) {
        Err(error) if error.kind() == std::io::ErrorKind::NotFound => return Ok(()),
        monitor => monitor.map_err(|error| os("read the monitor record", error))?,
    };
    if open_recorded(&monitor).map_err(|error| os("find the monitor", error))?.is_some() {
        return Err(SweepError::Alive(monitor.pid));
    }
    let containers: Vec<ContainerRecord> =
        record::read_all(&layout.containers()).map_err(|error| os("read the container records", error))?;
    let left: Vec<String> =
        containers.iter().filter_map(|record| sweep_container(&layout, &monitor, record).err()).collect();
    if !left.is_empty() {
        return Err(SweepError::Left(left));
    }
    record::remove(&layout.monitor_record()).map_err(|error| os("remove the monitor record", error))?;
    let _ = record::remove(&layout.socket());
    Ok(())
}

fn sweep_container(
    layout: &Layout,
    monitor: &MonitorRecord,
    container: &ContainerRecord,
) -> Result<(), String> {
    let id = &container.id;
    let failed = |tried: &str, error: &dyn std::fmt::Display| format!("{tried} {id}: {error}");
    let exit_record = layout.exit_record(id);
    if !exit_record.exists() {
        // Nobody saw how it ended, or we end it: to Kubernetes both are a kill.
        let exit = Exit {
            code: 137,
            signal: Some(nix::libc::SIGKILL),
            oom_killed: false,
            finished_at_unix_nanos: now_unix_nanos(),
        };
        record::write(&exit_record, &ExitRecord { id: id.clone(), exit })
            .map_err(|error| failed("write the exit record of", &error))?;
    }
    let runtime = Runtime::of(&container.handler, &monitor.oci_root, layout.dir());
    runtime.delete(id).map_err(|error| failed("delete", &error))?;
    record::remove(&layout.container_record(id)).map_err(|error| failed("remove the record of", &error))
}
