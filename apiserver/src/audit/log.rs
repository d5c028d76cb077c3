//! The file: lines at its end, a new one when it is full, old ones for a while. Names of old files are upstream's
//! (`audit-2026-01-02T15-04-05.000.log`).

use std::fs::{self, File, OpenOptions};
use std::io::{self, Write};
use std::os::unix::fs::OpenOptionsExt;
use std::path::{Path, PathBuf};
use std::sync::{Mutex, PoisonError};
use std::time::SystemTime;

use anyhow::{Context, Result};
use k8s_openapi::jiff::Timestamp;

use crate::options::run::Audit as Options;

pub struct Log {
    options: Options,
    open: Mutex<Option<Open>>,
}

struct Open {
    file: File,
    bytes: u64,
}

impl Log {
    pub fn open(options: &Options) -> Result<Self> {
        let open = match &options.path {
            None => None,
            Some(path) => {
                Some(append(path).with_context(|| format!("open --audit-log-path {}", path.display()))?)
            }
        };
        Ok(Self { options: options.clone(), open: Mutex::new(open) })
    }

    /// Writes a line. A disk that is full does not keep the server from answering: the log says so.
    pub fn write(&self, line: &[u8]) {
        let mut open = self.open.lock().unwrap_or_else(PoisonError::into_inner);
        let result = match (&self.options.path, &mut *open) {
            (Some(path), Some(open)) => self.write_to(path, open, line),
            _ => io::stdout().lock().write_all(line),
        };
        if let Err(error) = result {
            tracing::error!("the audit log lacks a line: {error}");
        }
    }

    fn write_to(&self, path: &Path, open: &mut Open, line: &[u8]) -> io::Result<()> {
        if self.options.max_bytes.is_some_and(|max| open.bytes > 0 && open.bytes + line.len() as u64 > max) {
            fs::rename(path, old_name(path))?;
            *open = append(path)?;
            self.tidy(path);
        }
        open.file.write_all(line)?;
        open.bytes += line.len() as u64;
        Ok(())
    }

    /// Removes files that are too old or too many.
    fn tidy(&self, path: &Path) {
        let mut old = old_files(path);
        // Their names sort by time; the newest first.
        old.sort_unstable_by(|a, b| b.cmp(a));
        for (at, file) in old.iter().enumerate() {
            let too_many = self.options.max_backups.is_some_and(|max| at >= max);
            let too_old = self.options.max_age.is_some_and(|max| age(file).is_some_and(|age| age > max));
            if (too_many || too_old)
                && let Err(error) = fs::remove_file(file)
            {
                tracing::warn!("remove {}: {error}", file.display());
            }
        }
    }
}

fn append(path: &Path) -> io::Result<Open> {
    if let Some(parent) = path.parent() {
        fs::create_dir_all(parent)?;
    }
    let file = OpenOptions::new().create(true).append(true).mode(0o600).open(path)?;
    let bytes = file.metadata()?.len();
    Ok(Open { file, bytes })
}

fn parts(path: &Path) -> (String, String) {
    let text = |part: Option<&std::ffi::OsStr>| part.unwrap_or_default().to_string_lossy().into_owned();
    let extension = path.extension().map(|_| format!(".{}", text(path.extension()))).unwrap_or_default();
    (format!("{}-", text(path.file_stem())), extension)
}

fn old_name(path: &Path) -> PathBuf {
    let (stem, extension) = parts(path);
    let now = Timestamp::now().strftime("%Y-%m-%dT%H-%M-%S.%3f").to_string();
    path.with_file_name(format!("{stem}{now}{extension}"))
}

fn old_files(path: &Path) -> Vec<PathBuf> {
    let (stem, extension) = parts(path);
    let is = |file: &PathBuf| {
        let name = file.file_name().unwrap_or_default().to_string_lossy().into_owned();
        file != path && name.starts_with(&stem) && name.ends_with(&extension)
    };
    let listed = fs::read_dir(path.parent().unwrap_or(Path::new("."))).into_iter().flatten().flatten();
    listed.map(|entry| entry.path()).filter(is).collect()
}

fn age(file: &Path) -> Option<std::time::Duration> {
    SystemTime::now().duration_since(fs::metadata(file).ok()?.modified().ok()?).ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_full_file_is_put_aside_and_old_ones_go() {
        let directory = tempfile::tempdir().expect("a directory");
        let path = directory.path().join("logs/audit.log");
        let options = Options {
            path: Some(path.clone()),
            policy: None,
            max_age: None,
            max_backups: Some(2),
            max_bytes: Some(20),
        };
        let log = Log::open(&options).expect("it opens");
        for _ in 0..9 {
            log.write(b"0123456789\n");
            std::thread::sleep(std::time::Duration::from_millis(2));
        }
        assert_eq!(old_files(&path).len(), 2);
        assert_eq!(fs::read(&path).expect("it is there"), b"0123456789\n");
        drop(log);
        let log = Log::open(&options).expect("it opens again");
        log.write(b"a\n");
        assert_eq!(fs::read(&path).expect("it is there"), b"0123456789\na\n");
    }
}
