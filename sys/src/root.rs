//! `Root`: a directory that hostile paths are resolved in.
//!
//! Every path in a container's file system goes through here: symbolic links and `..` are resolved by the kernel as
//! if the directory were `/` (openat2 with RESOLVE_IN_ROOT), so nothing in an image leads outside, and every result is
//! an open file, never a string to open again. Magic links are refused throughout.
//! Source: CVE-2021-30465, CVE-2024-45310, CVE-2026-41579; openat2(2), Linux 5.6.

use std::ffi::OsStr;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::path::{Component, Path, PathBuf};

use rustix::fs::{
    AtFlags, CWD, Dev, FileType, Mode, OFlags, ResolveFlags, Stat, fstat, linkat, mkdirat, mknodat, open,
    openat2, readlinkat, symlinkat, unlinkat,
};

use crate::{Errno, Result};

/// openat2 answers EAGAIN when a rename or mount raced with `..`; a hostile container may keep racing, so it is bounded.
const RACE_RETRIES: usize = 64;

#[derive(Debug)]
pub struct Root(OwnedFd);

impl AsFd for Root {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.0.as_fd()
    }
}

impl From<OwnedFd> for Root {
    /// The directory (or the mount's root) behind `fd`.
    fn from(fd: OwnedFd) -> Self {
        Self(fd)
    }
}

impl Root {
    /// Opens a trusted host path as a root.
    pub fn open_host(path: impl AsRef<Path>) -> Result<Self> {
        open(path.as_ref(), OFlags::PATH | OFlags::DIRECTORY | OFlags::CLOEXEC, Mode::empty()).map(Self)
    }

    pub fn into_fd(self) -> OwnedFd {
        self.0
    }

    /// Opens what `path` means inside this root. CLOEXEC is added; magic links are refused.
    pub fn open(&self, path: impl AsRef<Path>, flags: OFlags) -> Result<OwnedFd> {
        self.resolve(path.as_ref(), flags, Mode::empty(), ResolveFlags::empty())
    }

    /// A handle that cannot read or write: to mount on, to stat, to walk from.
    pub fn handle(&self, path: impl AsRef<Path>) -> Result<OwnedFd> {
        self.open(path, OFlags::PATH)
    }

    /// A handle of the last component itself, even when it is a symbolic link.
    pub fn handle_nofollow(&self, path: impl AsRef<Path>) -> Result<OwnedFd> {
        self.open(path, OFlags::PATH | OFlags::NOFOLLOW)
    }

    /// A handle that is refused (ELOOP) when any component of `path` is a symbolic link.
    pub fn handle_without_links(&self, path: impl AsRef<Path>) -> Result<OwnedFd> {
        self.resolve(path.as_ref(), OFlags::PATH, Mode::empty(), ResolveFlags::NO_SYMLINKS)
    }

    /// A directory inside this root, as a root of its own.
    pub fn subroot(&self, path: impl AsRef<Path>) -> Result<Self> {
        self.open(path, OFlags::PATH | OFlags::DIRECTORY).map(Self)
    }

    /// Creates a file (EEXIST when there) with `mode` in an existing directory and opens it for writing.
    pub fn create(&self, path: impl AsRef<Path>, mode: Mode) -> Result<OwnedFd> {
        let (parent, name) = self.parent(path.as_ref())?;
        beneath(&parent, name, OFlags::WRONLY | OFlags::CREATE | OFlags::EXCL | OFlags::NOFOLLOW, mode)
    }

    /// A handle of the file at `path`: the one that is there (whatever its type), else a new empty one.
    pub fn touch(&self, path: impl AsRef<Path>, mode: Mode) -> Result<OwnedFd> {
        let path = path.as_ref();
        match self.handle(path) {
            Err(Errno::NOENT) => {}
            other => return other,
        }
        match self.create(path, mode) {
            Ok(_) | Err(Errno::EXIST) => self.handle(path),
            Err(errno) => Err(errno),
        }
    }

    /// `mkdir -p`: every missing directory of `path`, walked by descriptor. Returns a handle of the last one.
    ///
    /// # Errors
    /// EEXIST for a dangling symbolic link in the way, EINVAL for `..` below a missing directory.
    pub fn mkdir_all(&self, path: impl AsRef<Path>, mode: Mode) -> Result<OwnedFd> {
        let path = path.as_ref();
        match self.open(path, OFlags::PATH | OFlags::DIRECTORY) {
            Err(Errno::NOENT) => {}
            other => return other,
        }
        // The part that exists is resolved by the kernel as a whole, links included; most often only the end is missing.
        let is_name =
            |component: &Component<'_>| !matches!(component, Component::RootDir | Component::CurDir);
        let components: Vec<Component<'_>> = path.components().filter(is_name).collect();
        let mut there = components.len().saturating_sub(1);
        let mut current = loop {
            let prefix: PathBuf = components[..there].iter().collect();
            match self.open(&prefix, OFlags::PATH | OFlags::DIRECTORY) {
                Err(Errno::NOENT) if there > 0 => there -= 1,
                other => break other?,
            }
        };
        for component in components.into_iter().skip(there) {
            let Component::Normal(name) = component else { return Err(Errno::INVAL) };
            match mkdirat(&current, name, mode) {
                Ok(()) | Err(Errno::EXIST) => {}
                Err(errno) => return Err(errno),
            }
            current = match beneath(&current, name, OFlags::PATH | OFlags::DIRECTORY, Mode::empty()) {
                // What is there is no directory: a dangling link, or something that raced into the place.
                Err(Errno::LOOP) => return Err(Errno::EXIST),
                other => other?,
            };
        }
        Ok(current)
    }

    /// The directory of `path` as a handle, and the last component. The parent must exist.
    pub fn parent<'a>(&self, path: &'a Path) -> Result<(OwnedFd, &'a OsStr)> {
        let name = path.file_name().ok_or(Errno::INVAL)?;
        let parent = path.parent().unwrap_or(Path::new("/"));
        Ok((self.open(parent, OFlags::PATH | OFlags::DIRECTORY)?, name))
    }

    pub fn mkdir(&self, path: impl AsRef<Path>, mode: Mode) -> Result<()> {
        let (parent, name) = self.parent(path.as_ref())?;
        mkdirat(parent, name, mode)
    }

    pub fn symlink(&self, target: impl AsRef<Path>, path: impl AsRef<Path>) -> Result<()> {
        let (parent, name) = self.parent(path.as_ref())?;
        symlinkat(target.as_ref(), parent, name)
    }

    /// A hard link at `path` to the file `existing`, both inside this root; a symbolic link is linked itself.
    pub fn hardlink(&self, existing: impl AsRef<Path>, path: impl AsRef<Path>) -> Result<()> {
        let (old_parent, old_name) = self.parent(existing.as_ref())?;
        let (parent, name) = self.parent(path.as_ref())?;
        linkat(old_parent, old_name, parent, name, AtFlags::empty())
    }

    pub fn mknod(&self, path: impl AsRef<Path>, kind: FileType, mode: Mode, device: Dev) -> Result<()> {
        let (parent, name) = self.parent(path.as_ref())?;
        mknodat(parent, name, kind, mode, device)
    }

    pub fn readlink(&self, path: impl AsRef<Path>) -> Result<PathBuf> {
        use std::os::unix::ffi::OsStringExt;
        let (parent, name) = self.parent(path.as_ref())?;
        let target = readlinkat(parent, name, Vec::new())?;
        Ok(std::ffi::OsString::from_vec(target.into_bytes()).into())
    }

    /// Follows a final symbolic link, inside the root.
    pub fn stat(&self, path: impl AsRef<Path>) -> Result<Stat> {
        fstat(self.handle(path)?)
    }

    /// Of the last component itself.
    pub fn lstat(&self, path: impl AsRef<Path>) -> Result<Stat> {
        fstat(self.handle_nofollow(path)?)
    }

    pub fn unlink(&self, path: impl AsRef<Path>) -> Result<()> {
        let (parent, name) = self.parent(path.as_ref())?;
        unlinkat(parent, name, AtFlags::empty())
    }

    pub fn rmdir(&self, path: impl AsRef<Path>) -> Result<()> {
        let (parent, name) = self.parent(path.as_ref())?;
        unlinkat(parent, name, AtFlags::REMOVEDIR)
    }

    fn resolve(&self, path: &Path, flags: OFlags, mode: Mode, how: ResolveFlags) -> Result<OwnedFd> {
        let path = if path.as_os_str().is_empty() { Path::new("/") } else { path };
        let how = how | ResolveFlags::IN_ROOT | ResolveFlags::NO_MAGICLINKS;
        retry_races(|| openat2(&self.0, path, flags | OFlags::CLOEXEC, mode, how))
    }
}

/// Opens one component below `directory`, following nothing.
pub fn beneath(directory: impl AsFd, name: &OsStr, flags: OFlags, mode: Mode) -> Result<OwnedFd> {
    let how = ResolveFlags::BENEATH | ResolveFlags::NO_SYMLINKS | ResolveFlags::NO_MAGICLINKS;
    retry_races(|| openat2(directory.as_fd(), name, flags | OFlags::CLOEXEC, mode, how))
}

/// Opens a trusted host path (config.json, a volume's source) as a handle.
pub fn host_handle(path: impl AsRef<Path>) -> Result<OwnedFd> {
    rustix::fs::openat(CWD, path.as_ref(), OFlags::PATH | OFlags::CLOEXEC, Mode::empty())
}

fn retry_races(mut open: impl FnMut() -> Result<OwnedFd>) -> Result<OwnedFd> {
    for _ in 0..RACE_RETRIES {
        match open() {
            Err(Errno::AGAIN | Errno::INTR) => {}
            other => return other,
        }
    }
    Err(Errno::AGAIN)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn fixture() -> (tempfile::TempDir, Root) {
        let directory = tempfile::tempdir().unwrap();
        let inside = directory.path().join("rootfs");
        std::fs::create_dir_all(inside.join("etc")).unwrap();
        std::fs::write(directory.path().join("secret"), "host").unwrap();
        let root = Root::open_host(&inside).unwrap();
        (directory, root)
    }

    #[test]
    fn links_and_dots_stay_inside() {
        let (directory, root) = fixture();
        root.symlink("../../secret", "etc/escape").unwrap();
        assert_eq!(root.handle("etc/escape").unwrap_err(), Errno::NOENT);
        assert_eq!(root.handle("../../../secret").unwrap_err(), Errno::NOENT);
        std::fs::write(directory.path().join("rootfs/secret"), "container").unwrap();
        assert_eq!(root.stat("etc/escape").unwrap().st_size, 9);
    }

    #[test]
    fn cve_2024_45310_mkdir_all_creates_nothing_outside() {
        let (directory, root) = fixture();
        root.symlink("/outside", "link").unwrap();
        assert_eq!(root.mkdir_all("link/a/b", Mode::from(0o755)).unwrap_err(), Errno::EXIST);
        root.symlink("..", "up").unwrap();
        root.mkdir_all("up/up/made/deep", Mode::from(0o755)).unwrap();
        assert!(directory.path().join("rootfs/made/deep").is_dir());
        assert!(!directory.path().join("made").exists());
    }

    #[test]
    fn mkdir_all_makes_what_is_missing_and_keeps_what_is_there() {
        let (directory, root) = fixture();
        root.mkdir_all("/etc/a/b/c", Mode::from(0o700)).unwrap();
        root.mkdir_all("/etc/a/b/c", Mode::from(0o755)).unwrap();
        assert!(directory.path().join("rootfs/etc/a/b/c").is_dir());
        assert_eq!(root.mkdir_all("missing/../../x", Mode::from(0o755)).unwrap_err(), Errno::INVAL);
    }

    #[test]
    fn touch_keeps_what_is_there() {
        let (directory, root) = fixture();
        std::fs::write(directory.path().join("rootfs/etc/hosts"), "1").unwrap();
        root.touch("etc/hosts", Mode::from(0o644)).unwrap();
        root.touch("etc/resolv.conf", Mode::from(0o644)).unwrap();
        assert_eq!(root.stat("etc/hosts").unwrap().st_size, 1);
        assert_eq!(root.stat("etc/resolv.conf").unwrap().st_size, 0);
    }

    #[test]
    fn handles_without_links_refuse_links() {
        let (_directory, root) = fixture();
        root.symlink("etc", "link").unwrap();
        assert_eq!(root.handle_without_links("link").unwrap_err(), Errno::LOOP);
        root.handle_without_links("etc").unwrap();
    }
}
