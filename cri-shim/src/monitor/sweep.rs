//! What a dead monitor left: processes, cgroups, runtime state. Its mounts went with its mount namespace.

use std::path::Path;
use std::process::Stdio;

use tokio::process::Command;

use super::MonitorError;

/// Kills and deletes every container of the dead monitor of `dir`; each that had left no exit record gets one.
/// Safe to repeat; refused while the monitor lives. The monitor's own program does it, since a daemon touches no
/// container.
pub async fn sweep_dead(program: &Path, dir: &Path) -> Result<(), MonitorError> {
    let failed = |text: String| MonitorError::Sweep { dir: dir.to_owned(), text };
    let output = Command::new(program)
        .arg("sweep")
        .arg("--dir")
        .arg(dir)
        .env_clear()
        .stdin(Stdio::null())
        .output()
        .await
        .map_err(|error| failed(format!("start {}: {error}", program.display())))?;
    if output.status.success() {
        return Ok(());
    }
    Err(failed(format!("{}: {}", output.status, String::from_utf8_lossy(&output.stderr).trim())))
}
