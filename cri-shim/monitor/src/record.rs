//! What a monitor leaves on disk for a daemon (or a sweep) that comes after it. Each file is written to a temporary
//! name and renamed, without fsync: it outlives any process, and after a reboot no container runs anyway.

use std::fs::{self, File, OpenOptions};
use std::io::{self, Write};
use std::os::unix::fs::OpenOptionsExt;
use std::path::{Path, PathBuf};

use serde::de::DeserializeOwned;
use serde::{Deserialize, Serialize};

use crate::protocol::{Exit, Handler};

/// `monitor.json`: which process serves this directory. Pid, start time and boot id together name one process for ever.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct MonitorRecord {
    /// [`crate::protocol::PROTOCOL_VERSION`].
    pub protocol: u32,
    pub sandbox: String,
    pub pid: i32,
    /// Field 22 of /proc/PID/stat, in clock ticks since boot.
    pub start_time_ticks: u64,
    pub boot_id: String,
    /// Root of the built-in runtime's state.
    pub oci_root: PathBuf,
}

/// `containers/<id>.json`: written before the container is created, removed after it is deleted.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct ContainerRecord {
    pub id: String,
    pub bundle: PathBuf,
    pub handler: Handler,
}

/// `exits/<id>.json`: written before anybody is told.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct ExitRecord {
    pub id: String,
    pub exit: Exit,
}

/// Writes a record, 0600, whole or not at all.
pub fn write(path: &Path, record: &impl Serialize) -> io::Result<()> {
    let temporary = path.with_extension("tmp");
    let mut file = OpenOptions::new().write(true).create(true).truncate(true).mode(0o600).open(&temporary)?;
    file.write_all(&serde_json::to_vec(record)?)?;
    fs::rename(&temporary, path)
}

/// Reads a record; [`io::ErrorKind::NotFound`] when there is none.
pub fn read<T: DeserializeOwned>(path: &Path) -> io::Result<T> {
    Ok(serde_json::from_reader(io::BufReader::new(File::open(path)?))?)
}

/// Removes a record; one that is gone is no error.
pub fn remove(path: &Path) -> io::Result<()> {
    match fs::remove_file(path) {
        Err(error) if error.kind() != io::ErrorKind::NotFound => Err(error),
        _ => Ok(()),
    }
}

/// Every record of a directory; a half-written temporary file is passed over, a missing directory is empty.
pub fn read_all<T: DeserializeOwned>(dir: &Path) -> io::Result<Vec<T>> {
    let entries = match fs::read_dir(dir) {
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(Vec::new()),
        entries => entries?,
    };
    let paths = entries.map(|entry| Ok(entry?.path())).collect::<io::Result<Vec<_>>>()?;
    paths.iter().filter(|path| path.extension().is_some_and(|e| e == "json")).map(|path| read(path)).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn records_of_version_1_stay_readable() {
        let json = r#"{"id":"c","bundle":"/b","handler":"BuiltIn"}"#;
        let record: ContainerRecord = serde_json::from_str(json).unwrap();
        assert_eq!(
            record,
            ContainerRecord { id: "c".into(), bundle: "/b".into(), handler: Handler::BuiltIn }
        );
        let json =
            r#"{"protocol":1,"sandbox":"s","pid":7,"start_time_ticks":9,"boot_id":"x","oci_root":"/o"}"#;
        assert_eq!(serde_json::from_str::<MonitorRecord>(json).unwrap().pid, 7);
        let json =
            r#"{"id":"c","exit":{"code":0,"signal":null,"oom_killed":false,"finished_at_unix_nanos":1}}"#;
        assert_eq!(serde_json::from_str::<ExitRecord>(json).unwrap().exit.code, 0);
    }

    #[test]
    fn a_half_written_record_is_never_read() {
        let dir = tempfile::tempdir().unwrap();
        let record = ContainerRecord { id: "c".into(), bundle: "/b".into(), handler: Handler::BuiltIn };
        write(&dir.path().join("c.json"), &record).unwrap();
        fs::write(dir.path().join("d.tmp"), "{\"id\":").unwrap();
        assert_eq!(read_all::<ContainerRecord>(dir.path()).unwrap(), [record]);
        remove(&dir.path().join("c.json")).unwrap();
        remove(&dir.path().join("c.json")).unwrap();
        assert!(read_all::<ContainerRecord>(&dir.path().join("none")).unwrap().is_empty());
    }
}
