//! The manifest directory: what it holds now, and every change, by inotify.
//!
//! A file counts when it is complete: it was written and closed, or renamed or linked into the directory. A half
//! written file is never read because of a write, only because of the close that follows. Names that start with a dot
//! and directories are not manifests. A file that turns bad keeps its last good Pod running and says what is wrong.
//! The directory is made when it is missing; when it is removed, its Pods are too, and it is made again.

use std::collections::BTreeMap;
use std::ffi::OsStr;
use std::io::{ErrorKind, Read};
use std::path::{Path, PathBuf};
use std::sync::Arc;

use inotify::{EventMask, Inotify, WatchMask};
use k8s_openapi::api::core::v1::Pod;
use tokio::io::unix::AsyncFd;

use super::{MAX_BYTES, ManifestError, read};
use crate::clock::now;
use crate::errno_name;
use crate::pod::full_name;
use crate::status_api::{Manifest, content_sha256};

#[derive(Debug, thiserror::Error)]
#[error("{what} {}: {errno}", dir.display(), errno = errno_name(source))]
pub struct SourceError {
    what: &'static str,
    dir: PathBuf,
    source: std::io::Error,
}

/// One file: the Pod that runs from it (of its last good content), and what is wrong with the present content.
#[derive(Debug, Default)]
struct Entry {
    pod: Option<Arc<Pod>>,
    error: Option<ManifestError>,
    content_sha256: String,
}

/// What the directory holds. Pure: told of each file's content, it says which Pods should run.
#[derive(Debug, Default)]
pub struct Files {
    entries: BTreeMap<PathBuf, Entry>,
}

impl Files {
    fn set(&mut self, file: PathBuf, content_sha256: String, content: Result<Arc<Pod>, ManifestError>) {
        let entry = self.entries.entry(file).or_default();
        entry.content_sha256 = content_sha256;
        match content {
            // The same content read again is the same Pod: `config.seen` must not change under it.
            Ok(pod) if entry.pod.as_ref().is_some_and(|old| same_pod(old, &pod)) => entry.error = None,
            Ok(pod) => (entry.pod, entry.error) = (Some(pod), None),
            Err(error) => entry.error = Some(error),
        }
    }

    /// Pods to run by `NAMESPACE/NAME`. Of several files with the same pod the first by name has it.
    pub fn pods(&self) -> BTreeMap<String, Arc<Pod>> {
        let mut pods = BTreeMap::new();
        for pod in self.entries.values().filter_map(|e| e.pod.as_ref()) {
            pods.entry(full_name(pod)).or_insert_with(|| pod.clone());
        }
        pods
    }

    /// Every file with its Pod and its problem.
    pub fn list(&self) -> Vec<Manifest> {
        let mut owners: BTreeMap<String, &Path> = BTreeMap::new();
        let mut list = Vec::new();
        for (file, entry) in &self.entries {
            let name = entry.pod.as_ref().map(|pod| full_name(pod));
            let owner = name.clone().map(|name| *owners.entry(name).or_insert(file));
            let taken = match (owner, &name) {
                (Some(by), Some(pod)) if by != file => {
                    Some(ManifestError::Taken { pod: pod.clone(), by: by.to_owned() }.to_string())
                }
                _ => None,
            };
            let error = entry.error.as_ref().map(ToString::to_string).or(taken.clone());
            let uid = entry.pod.as_ref().and_then(|pod| pod.metadata.uid.clone());
            let (pod, uid) = if taken.is_some() { (None, None) } else { (name, uid) };
            let content_sha256 = entry.content_sha256.clone();
            list.push(Manifest { file: file.display().to_string(), content_sha256, pod, uid, error });
        }
        list
    }
}

fn same_pod(a: &Pod, b: &Pod) -> bool {
    a.metadata.uid == b.metadata.uid && a.metadata.labels == b.metadata.labels && a.spec == b.spec
}

/// The watched directory.
pub struct Source {
    dir: PathBuf,
    node_name: String,
    inotify: AsyncFd<Inotify>,
    files: Files,
}

impl Source {
    /// Watches `dir` (made with mode 0755 when missing), then reads all of it: a change in between is seen twice, none
    /// is missed.
    pub fn open(dir: &Path, node_name: &str) -> Result<Self, SourceError> {
        let at = |what| move |source| SourceError { what, dir: dir.to_owned(), source };
        let inotify = watch(dir).map_err(at("watch manifests in"))?;
        let mut source =
            Self { dir: dir.to_owned(), node_name: node_name.to_owned(), inotify, files: Files::default() };
        source.read_all().map_err(at("read manifests in"))?;
        Ok(source)
    }

    pub fn files(&self) -> &Files {
        &self.files
    }

    /// Waits until the directory changed and was read. Cancel safe.
    pub async fn changed(&mut self) -> Result<(), SourceError> {
        let dir = self.dir.clone();
        let at = |what| move |source| SourceError { what, dir, source };
        let mut buffer = vec![0; 16 * 1024];
        loop {
            let mut guard = self.inotify.readable_mut().await.map_err(at.clone()("watch manifests in"))?;
            let events: Vec<_> = match guard.get_inner_mut().read_events(&mut buffer) {
                Ok(events) => events.map(|e| (e.mask, e.name.map(OsStr::to_owned))).collect(),
                Err(e) if e.kind() == ErrorKind::WouldBlock => {
                    guard.clear_ready();
                    continue;
                }
                Err(e) => return Err(at("watch manifests in")(e)),
            };
            if events.iter().any(|(mask, _)| mask.intersects(LOST)) {
                self.inotify = watch(&self.dir).map_err(at.clone()("watch manifests again in"))?;
                self.read_all().map_err(at("read manifests in"))?;
                return Ok(());
            }
            let complete = |mask: EventMask, file: &Path| {
                !mask.contains(EventMask::ISDIR) && (!mask.contains(EventMask::CREATE) || is_link(file))
            };
            let files = events.iter().filter_map(|(mask, name)| Some((*mask, self.dir.join(name.as_ref()?))));
            let changed: Vec<_> =
                files.filter(|(mask, file)| complete(*mask, file)).map(|(_, file)| file).collect();
            for file in &changed {
                self.read_one(file);
            }
            if !changed.is_empty() {
                return Ok(());
            }
        }
    }

    fn read_all(&mut self) -> std::io::Result<()> {
        let mut present = Vec::new();
        for entry in std::fs::read_dir(&self.dir)? {
            let entry = entry?;
            if !entry.path().is_dir() {
                present.push(entry.path());
            }
        }
        self.files.entries.retain(|file, _| present.contains(file));
        for file in &present {
            self.read_one(file);
        }
        Ok(())
    }

    fn read_one(&mut self, file: &Path) {
        if file.file_name().is_some_and(|name| name.as_encoded_bytes().starts_with(b".")) {
            return;
        }
        match bytes(file) {
            Err(ManifestError::Read { source, .. }) if source.kind() == ErrorKind::NotFound => {
                self.files.entries.remove(file);
            }
            Err(error) => self.files.set(file.to_owned(), String::new(), Err(error)),
            Ok(bytes) => {
                let pod = read(&bytes, file, &self.node_name, now());
                self.files.set(file.to_owned(), content_sha256(&bytes), pod);
            }
        }
    }
}

/// The directory is no longer the one watched, or events were dropped: everything must be read again.
const LOST: EventMask = EventMask::DELETE_SELF
    .union(EventMask::MOVE_SELF)
    .union(EventMask::IGNORED)
    .union(EventMask::Q_OVERFLOW)
    .union(EventMask::UNMOUNT);

#[expect(
    deprecated,
    reason = "its successor is unsafe; Inotify keeps one descriptor for its whole life, which is all it asks"
)]
fn watch(dir: &Path) -> std::io::Result<AsyncFd<Inotify>> {
    std::fs::create_dir_all(dir)?;
    let inotify = Inotify::init()?;
    // CREATE is for links and symlinks, which no close follows; see `is_link`.
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

/// A name created by link(2) or symlink(2): complete at once.
fn is_link(file: &Path) -> bool {
    use std::os::unix::fs::MetadataExt;
    std::fs::symlink_metadata(file).is_ok_and(|meta| meta.is_symlink() || meta.nlink() > 1)
}

fn bytes(file: &Path) -> Result<Vec<u8>, ManifestError> {
    let at = |source| ManifestError::Read { file: file.to_owned(), source };
    // A fifo in the directory must not block the kubelet: the kind is looked at before opening.
    if !std::fs::metadata(file).map_err(at)?.is_file() {
        return Err(ManifestError::NotAFile(file.to_owned()));
    }
    let mut bytes = Vec::new();
    let opened = std::fs::File::open(file).map_err(at)?;
    opened.take(MAX_BYTES + 1).read_to_end(&mut bytes).map_err(at)?;
    if bytes.len() as u64 > MAX_BYTES {
        return Err(ManifestError::TooLarge {
            bytes: std::fs::metadata(file).map_or(bytes.len() as u64, |m| m.len()),
        });
    }
    Ok(bytes)
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::time::Duration;

    const POD: &str =
        "apiVersion: v1\nkind: Pod\nmetadata: {name: NAME}\nspec: {containers: [{name: c, image: 'i:1'}]}\n";

    fn pod(name: &str) -> String {
        POD.replace("NAME", name)
    }

    fn names(source: &Source) -> Vec<String> {
        source.files().pods().into_keys().collect()
    }

    async fn until(source: &mut Source, wanted: &[&str]) {
        let all = async {
            while names(source) != wanted {
                source.changed().await.expect("watch");
            }
        };
        let in_time = tokio::time::timeout(Duration::from_secs(5), all).await.is_ok();
        assert!(in_time, "wanted {wanted:?}, have {:?} {:?}", names(source), source.files().list());
    }

    #[tokio::test]
    async fn files_written_moved_edited_and_deleted_are_followed() {
        let base = tempfile::tempdir().expect("dir");
        let dir = base.path().join("manifests");
        let mut source = Source::open(&dir, "n").expect("open");
        until(&mut source, &[]).await;
        std::fs::write(dir.join("a.yaml"), pod("a")).expect("write");
        until(&mut source, &["default/a-n"]).await;
        std::fs::write(base.path().join("b"), pod("b")).expect("write");
        std::fs::rename(base.path().join("b"), dir.join("b.yaml")).expect("rename");
        until(&mut source, &["default/a-n", "default/b-n"]).await;
        std::fs::write(dir.join("a.yaml"), pod("a2")).expect("edit");
        until(&mut source, &["default/a2-n", "default/b-n"]).await;
        std::fs::rename(dir.join("b.yaml"), base.path().join("b")).expect("move out");
        std::fs::remove_file(dir.join("a.yaml")).expect("remove");
        until(&mut source, &[]).await;
        std::fs::write(dir.join(".hidden.yaml"), pod("h")).expect("write");
        std::fs::write(dir.join("c.yaml"), pod("c")).expect("write");
        until(&mut source, &["default/c-n"]).await;
    }

    #[tokio::test]
    async fn a_file_being_written_is_read_when_it_is_closed() {
        use std::io::Write;
        let dir = tempfile::tempdir().expect("dir");
        let mut source = Source::open(dir.path(), "n").expect("open");
        let mut file = std::fs::File::create(dir.path().join("a.yaml")).expect("create");
        file.write_all(&pod("a").as_bytes()[..20]).expect("half");
        let early = tokio::time::timeout(Duration::from_millis(100), source.changed()).await;
        assert!(early.is_err(), "nothing to see yet");
        file.write_all(&pod("a").as_bytes()[20..]).expect("rest");
        drop(file);
        until(&mut source, &["default/a-n"]).await;
        assert_eq!(source.files().list()[0].error, None);
    }

    #[tokio::test]
    async fn a_bad_edit_keeps_the_last_good_pod_and_is_named() {
        let dir = tempfile::tempdir().expect("dir");
        std::fs::write(dir.path().join("a.yaml"), pod("a")).expect("write");
        let mut source = Source::open(dir.path(), "n").expect("open");
        let uid = source.files().pods()["default/a-n"].metadata.uid.clone();
        std::fs::write(dir.path().join("a.yaml"), pod("a").replace("image", "imag")).expect("edit");
        source.changed().await.expect("change");
        assert_eq!(source.files().pods()["default/a-n"].metadata.uid, uid);
        let listed = source.files().list().remove(0);
        assert_eq!((&listed.uid, listed.error.is_some()), (&uid, true));
        let content = std::fs::read(dir.path().join("a.yaml")).expect("read");
        assert_eq!(listed.content_sha256, content_sha256(&content), "of the bad edit, not of the good pod");
        let list = source.files().list();
        assert!(
            list[0].error.as_deref().is_some_and(|e| e.contains("spec.containers[0].imag: unknown field")),
            "{list:?}"
        );
        assert_eq!(list[0].pod.as_deref(), Some("default/a-n"));
    }

    #[tokio::test]
    async fn the_second_file_with_the_same_pod_is_refused_by_name() {
        let dir = tempfile::tempdir().expect("dir");
        std::fs::write(dir.path().join("a.yaml"), pod("x")).expect("write");
        std::fs::write(dir.path().join("b.yaml"), pod("x")).expect("write");
        let source = Source::open(dir.path(), "n").expect("open");
        assert_eq!(source.files().pods().len(), 1);
        let list = source.files().list();
        assert_eq!(list[0].error, None);
        assert!(
            list[1]
                .error
                .as_deref()
                .is_some_and(|e| e.contains("already defined by") && e.ends_with("a.yaml"))
        );
    }

    #[tokio::test]
    async fn a_removed_directory_removes_its_pods_and_is_made_again() {
        let base = tempfile::tempdir().expect("dir");
        let dir = base.path().join("m");
        let mut source = Source::open(&dir, "n").expect("open");
        std::fs::write(dir.join("a.yaml"), pod("a")).expect("write");
        until(&mut source, &["default/a-n"]).await;
        std::fs::remove_dir_all(&dir).expect("remove");
        until(&mut source, &[]).await;
        while !dir.exists() {
            source.changed().await.expect("watch");
        }
        std::fs::write(dir.join("b.yaml"), pod("b")).expect("write");
        until(&mut source, &["default/b-n"]).await;
    }

    #[test]
    fn what_is_no_file_and_what_is_too_large_is_named() {
        let dir = tempfile::tempdir().expect("dir");
        let fifo = dir.path().join("fifo");
        rustix::fs::mknodat(rustix::fs::CWD, &fifo, rustix::fs::FileType::Fifo, rustix::fs::Mode::RWXU, 0)
            .expect("fifo");
        assert!(bytes(&fifo).expect_err("fifo").to_string().ends_with("is not a regular file"));
        let large = dir.path().join("large");
        std::fs::File::create(&large).expect("file").set_len(MAX_BYTES + 1).expect("grow");
        assert!(matches!(bytes(&large), Err(ManifestError::TooLarge { .. })));
    }
}
