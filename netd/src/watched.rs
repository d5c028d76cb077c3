//! A directory that is looked at again when something in it changes, by inotify.
//!
//! Level-triggered: it tells that something happened, never what. Events that come together wake once. What inotify
//! cannot see (the directory itself replaced, a file system without events) a slow poll finds.

use std::io::ErrorKind;
use std::path::{Path, PathBuf};
use std::time::Duration;

use inotify::{Inotify, WatchMask};
use tokio::io::unix::AsyncFd;
use tokio::time::{sleep, timeout};

/// An editor writes, closes and renames within this.
const DEBOUNCE: Duration = Duration::from_millis(20);
const POLL: Duration = Duration::from_secs(10);

pub struct Watched {
    dir: PathBuf,
    /// `None` while the directory is missing.
    inotify: Option<AsyncFd<Inotify>>,
}

impl Watched {
    /// Watches the directory that `file` lies in: files are replaced by rename, and those of a ConfigMap by a symlink
    /// beside them.
    pub fn around(file: &Path) -> Self {
        let dir = match file.parent() {
            Some(dir) if dir != Path::new("") => dir,
            _ => Path::new("."),
        };
        Self::directory(dir)
    }

    pub fn directory(dir: &Path) -> Self {
        Self { dir: dir.to_owned(), inotify: watch(dir).ok() }
    }

    /// Waits until something may have changed. Cancel safe: a change that was not told is told by the next call.
    pub async fn changed(&mut self) {
        let Some(inotify) = &mut self.inotify else {
            sleep(POLL.min(Duration::from_secs(1))).await;
            self.inotify = watch(&self.dir).ok();
            return;
        };
        let drained = match timeout(POLL, inotify.readable_mut()).await {
            Ok(Ok(mut ready)) => {
                sleep(DEBOUNCE).await;
                let drained = drain(ready.get_inner_mut());
                ready.clear_ready();
                drained
            }
            Ok(Err(_)) => false,
            Err(_elapsed) => drain(inotify.get_mut()),
        };
        // Draining and watching anew cannot be parted: a directory that was replaced tells nothing any more.
        if !drained || !self.dir.exists() {
            self.inotify = watch(&self.dir).ok();
        }
    }
}

/// Reads away what is queued. False when the watch is gone or lost events.
fn drain(inotify: &mut Inotify) -> bool {
    use inotify::EventMask;
    let gone = EventMask::DELETE_SELF | EventMask::MOVE_SELF | EventMask::IGNORED | EventMask::UNMOUNT;
    let mut buffer = [0; 4096];
    loop {
        match inotify.read_events(&mut buffer) {
            Ok(events) => {
                let mut any = false;
                for event in events {
                    any = true;
                    if event.mask.intersects(gone) {
                        return false;
                    }
                }
                if !any {
                    return true;
                }
            }
            Err(error) if error.kind() == ErrorKind::WouldBlock => {
                return true;
            }
            Err(_) => return false,
        }
    }
}

#[expect(
    deprecated,
    reason = "its successor is unsafe; Inotify keeps one descriptor for its whole life, which is all it asks"
)]
fn watch(dir: &Path) -> std::io::Result<AsyncFd<Inotify>> {
    let inotify = Inotify::init()?;
    let mask = WatchMask::CLOSE_WRITE
        | WatchMask::CREATE
        | WatchMask::MOVED_TO
        | WatchMask::MOVED_FROM
        | WatchMask::DELETE
        | WatchMask::DELETE_SELF
        | WatchMask::MOVE_SELF
        | WatchMask::ONLYDIR;
    inotify.watches().add(dir, mask)?;
    AsyncFd::new(inotify)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn one_change_is_told_once() {
        let dir = tempfile::tempdir().expect("a directory");
        let mut watched = Watched::directory(dir.path());
        std::fs::write(dir.path().join("a"), "1").expect("written");
        soon(&mut watched).await;
        let again = timeout(Duration::from_millis(300), watched.changed()).await;
        assert!(again.is_err(), "nothing changed since");
        std::fs::write(dir.path().join("a"), "2").expect("written");
        soon(&mut watched).await;
    }

    async fn soon(watched: &mut Watched) {
        timeout(Duration::from_secs(5), watched.changed()).await.expect("a change is told");
    }

    #[tokio::test]
    async fn writes_renames_and_removals_wake() {
        let dir = tempfile::tempdir().expect("tempdir");
        let file = dir.path().join("nodes.yaml");
        let mut watched = Watched::around(&file);
        std::fs::write(&file, "a").expect("write");
        soon(&mut watched).await;
        std::fs::write(dir.path().join("new"), "b").expect("write");
        soon(&mut watched).await;
        std::fs::rename(dir.path().join("new"), &file).expect("rename");
        soon(&mut watched).await;
        std::fs::remove_file(&file).expect("remove");
        soon(&mut watched).await;
    }

    #[tokio::test]
    async fn a_directory_that_is_replaced_is_watched_again() {
        let dir = tempfile::tempdir().expect("tempdir");
        let inner = dir.path().join("d");
        let mut watched = Watched::directory(&inner);
        std::fs::create_dir(&inner).expect("mkdir");
        soon(&mut watched).await;
        for _ in 0..2 {
            std::fs::remove_dir_all(&inner).expect("rmdir");
            std::fs::create_dir(&inner).expect("mkdir");
            soon(&mut watched).await;
        }
        std::fs::write(inner.join("f"), "x").expect("write");
        soon(&mut watched).await;
    }
}
