//! Records and private directories on disk. Records are renamed into place without fsync: they must survive the
//! death of any process, not a power cut, after which no container runs (design D1).

use std::fs::{self, DirBuilder, File, OpenOptions, Permissions};
use std::io::{self, Read, Write};
use std::os::unix::fs::{DirBuilderExt, OpenOptionsExt, PermissionsExt};
use std::path::{Path, PathBuf};

use serde::Serialize;
use serde::de::DeserializeOwned;

/// A record may not be larger than this; anything bigger is not ours.
const RECORD_LIMIT_BYTES: u64 = 16 << 20;

#[derive(Debug, thiserror::Error)]
pub enum FileError {
    #[error("{action} {path}: {}", crate::error::io_text(source))]
    Io { action: &'static str, path: PathBuf, source: io::Error },
    #[error("record {path}: {source}")]
    Json { path: PathBuf, source: serde_json::Error },
    #[error("record {path} has version {found}, this program knows {known}; a newer release wrote it")]
    Version { path: PathBuf, found: u32, known: u32 },
}

impl FileError {
    pub fn io(action: &'static str, path: &Path) -> impl FnOnce(io::Error) -> Self {
        let path = path.to_path_buf();
        move |source| Self::Io { action, path, source }
    }
}

/// Creates `path` and its parents, itself with mode 0700 from creation (CVE-2024-25621). An existing one is kept.
pub fn private_dir(path: &Path) -> Result<(), FileError> {
    let made = DirBuilder::new().recursive(true).mode(0o700).create(path);
    made.map_err(FileError::io("create directory", path))
}

/// Writes `value` as the record at `path`: whole or not at all.
pub fn write_record<T: Serialize>(path: &Path, value: &T) -> Result<(), FileError> {
    let bytes = serde_json::to_vec(value).map_err(|source| FileError::Json { path: path.into(), source })?;
    write_atomic(path, &bytes, 0o600)
}

/// Writes `bytes` to a temporary name beside `path` and renames it into place.
pub fn write_atomic(path: &Path, bytes: &[u8], mode: u32) -> Result<(), FileError> {
    let mut temporary = path.as_os_str().to_owned();
    temporary.push(".tmp");
    let temporary = PathBuf::from(temporary);
    let mut file = OpenOptions::new()
        .write(true)
        .create(true)
        .truncate(true)
        .mode(mode)
        .open(&temporary)
        .map_err(FileError::io("create", &temporary))?;
    file.write_all(bytes).map_err(FileError::io("write", &temporary))?;
    // The umask must not decide whether a container can read its resolv.conf.
    file.set_permissions(Permissions::from_mode(mode)).map_err(FileError::io("chmod", &temporary))?;
    fs::rename(&temporary, path).map_err(FileError::io("rename into place", path))
}

/// Reads the record at `path`; `None` when there is none.
pub fn read_record<T: DeserializeOwned>(path: &Path) -> Result<Option<T>, FileError> {
    let file = match File::open(path) {
        Ok(file) => file,
        Err(e) if e.kind() == io::ErrorKind::NotFound => return Ok(None),
        Err(source) => return Err(FileError::Io { action: "open", path: path.into(), source }),
    };
    let mut bytes = Vec::new();
    file.take(RECORD_LIMIT_BYTES).read_to_end(&mut bytes).map_err(FileError::io("read", path))?;
    serde_json::from_slice(&bytes).map(Some).map_err(|source| FileError::Json { path: path.into(), source })
}

/// Removes a file; that it is gone already is no error.
pub fn remove_file(path: &Path) -> Result<(), FileError> {
    gone_is_fine(fs::remove_file(path)).map_err(FileError::io("remove", path))
}

/// Removes a directory with all it holds; that it is gone already is no error.
pub fn remove_tree(path: &Path) -> Result<(), FileError> {
    gone_is_fine(fs::remove_dir_all(path)).map_err(FileError::io("remove directory", path))
}

fn gone_is_fine(result: io::Result<()>) -> io::Result<()> {
    match result {
        Err(e) if e.kind() == io::ErrorKind::NotFound => Ok(()),
        other => other,
    }
}

/// Names of the directories directly below `path`, sorted; an absent `path` has none.
pub fn subdirectories(path: &Path) -> Result<Vec<String>, FileError> {
    let entries = match fs::read_dir(path) {
        Ok(entries) => entries,
        Err(e) if e.kind() == io::ErrorKind::NotFound => return Ok(Vec::new()),
        Err(source) => return Err(FileError::Io { action: "list", path: path.into(), source }),
    };
    let mut names = Vec::new();
    for entry in entries {
        let entry = entry.map_err(FileError::io("list", path))?;
        let is_dir = entry.file_type().map_err(FileError::io("stat", path))?.is_dir();
        if let (true, Ok(name)) = (is_dir, entry.file_name().into_string()) {
            names.push(name);
        }
    }
    names.sort();
    Ok(names)
}

/// The kernel's name of this boot; another one means that every process and namespace of before is gone.
pub fn boot_id() -> Result<String, FileError> {
    let path = Path::new("/proc/sys/kernel/random/boot_id");
    Ok(fs::read_to_string(path).map_err(FileError::io("read", path))?.trim().to_owned())
}

/// Holds a directory for one daemon for as long as it lives.
#[derive(Debug)]
pub struct DirLock {
    _file: File,
}

/// Why a directory could not be held.
#[derive(Debug, thiserror::Error)]
pub enum LockError {
    #[error(
        "{path} is held by another corten-cri (pid {pid}); give this one another --root and --state, or stop that one"
    )]
    Held { path: PathBuf, pid: String },
    #[error(transparent)]
    File(#[from] FileError),
}

impl DirLock {
    /// Takes the lock of `dir`; the kernel gives it back when this process ends, however it ends.
    pub fn take(dir: &Path) -> Result<Self, LockError> {
        let path = dir.join("corten-cri.lock");
        let mut options = OpenOptions::new();
        options.read(true).write(true).create(true).truncate(false).mode(0o600);
        let mut file = options.open(&path).map_err(FileError::io("open", &path))?;
        if file.try_lock().is_err() {
            let mut pid = String::new();
            let _ = (&file).take(16).read_to_string(&mut pid);
            return Err(LockError::Held { path: dir.into(), pid: pid.trim().into() });
        }
        file.set_len(0).map_err(FileError::io("truncate", &path))?;
        write!(file, "{}", std::process::id()).map_err(FileError::io("write", &path))?;
        Ok(Self { _file: file })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_record_survives_a_half_written_successor() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("r.json");
        write_record(&path, &vec![1, 2]).unwrap();
        fs::write(dir.path().join("r.json.tmp"), b"[1,").unwrap();
        assert_eq!(read_record::<Vec<i32>>(&path).unwrap(), Some(vec![1, 2]));
        assert_eq!(fs::metadata(&path).unwrap().permissions().mode() & 0o777, 0o600);
    }

    #[test]
    fn an_absent_record_is_none_and_a_broken_one_names_its_path() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("r.json");
        assert_eq!(read_record::<Vec<i32>>(&path).unwrap(), None);
        fs::write(&path, b"[1,").unwrap();
        let error = read_record::<Vec<i32>>(&path).unwrap_err().to_string();
        assert!(error.contains("r.json"), "{error}");
    }

    #[test]
    fn the_second_holder_of_a_directory_is_told_who_the_first_is() {
        let dir = tempfile::tempdir().unwrap();
        let first = DirLock::take(dir.path()).unwrap();
        let error = DirLock::take(dir.path()).unwrap_err().to_string();
        assert!(error.contains(&std::process::id().to_string()), "{error}");
        drop(first);
        DirLock::take(dir.path()).unwrap();
    }

    #[test]
    fn cve_2024_25621_state_directories_are_private_from_creation() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("a/b");
        private_dir(&path).unwrap();
        private_dir(&path).unwrap();
        assert_eq!(fs::metadata(&path).unwrap().permissions().mode() & 0o777, 0o700);
    }
}
