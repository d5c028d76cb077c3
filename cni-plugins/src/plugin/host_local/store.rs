//! Reservations on disk, in upstream's format.
//!
//! `<dataDir>/<network>/`: `lock` (flock), a file per address named by it with `<container id>\r\n<ifname>` (0600; an
//! old form has the id alone), `last_reserved_ip.<range set>`. Ours beside it, ignored by the Go plugin: `released`,
//! a line per address whose interface was left to the kernel, `<unix ms> <address> <host interface or ->`, kept for
//! [`RELEASE_AGE`].

use std::collections::HashMap;
use std::fs::{self, File, OpenOptions};
use std::io::{ErrorKind, Write};
use std::net::IpAddr;
use std::os::unix::fs::OpenOptionsExt;
use std::path::{Path, PathBuf};
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use corten_sys::Context;
use rustix::fs::{FlockOperation, RenameFlags, flock, renameat_with};

use crate::Result;

/// Much longer than the kernel needs to remove an interface (30 ms alone, a second when hundreds go at once).
pub const RELEASE_AGE: Duration = Duration::from_secs(10);
/// A reservation is written here and renamed to its address, so a kill in between never leaves an empty file, which
/// nobody would own. Only the holder of the lock touches it.
const NEW: &str = ".new";
const RELEASED: &str = "released";

/// The directory of one network, locked as long as this lives.
#[derive(Debug)]
pub struct Store {
    dir: PathBuf,
    _lock: File,
}

/// Who holds an address: the content of its file.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Owner(String);

/// The interface that had the addresses which are released.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Link {
    Gone,
    /// The kernel is yet to remove it; the name of the host's end, where known.
    Leaving(Option<String>),
}

#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Release {
    pub at: SystemTime,
    pub ip: IpAddr,
    /// The host's end of the interface that had it.
    pub link: Option<String>,
}

impl Owner {
    pub fn new(container_id: &str, ifname: &str) -> Self {
        Self(format!("{container_id}\r\n{ifname}"))
    }

    pub fn container_id(&self) -> &str {
        self.0.split("\r\n").next().unwrap_or_default()
    }

    /// The same, or of the old form: only the container's id.
    pub fn covers(&self, other: &Self) -> bool {
        self.0 == other.0 || self.0 == other.container_id()
    }
}

impl Store {
    /// Waits for the lock; makes the directory.
    pub fn create(data_dir: &Path, network: &str) -> Result<Self> {
        let dir = data_dir.join(network);
        fs::create_dir_all(&dir).tried(|| format!("create data directory {}", dir.display()))?;
        Self::locked(dir)
    }

    /// `None`: there is no directory, so nothing was ever reserved.
    pub fn open(data_dir: &Path, network: &str) -> Result<Option<Self>> {
        let dir = data_dir.join(network);
        if dir.is_dir() { Self::locked(dir).map(Some) } else { Ok(None) }
    }

    fn locked(dir: PathBuf) -> Result<Self> {
        let path = dir.join("lock");
        let lock = OpenOptions::new()
            .create(true)
            .truncate(false)
            .read(true)
            .write(true)
            .mode(0o600)
            .open(&path)
            .tried(|| format!("open {}", path.display()))?;
        flock(&lock, FlockOperation::LockExclusive).tried(|| format!("lock {}", path.display()))?;
        match fs::remove_file(dir.join(NEW)) {
            Err(e) if e.kind() != ErrorKind::NotFound => {
                Err(e).tried(|| format!("remove {}", dir.join(NEW).display())).map_err(Into::into)
            }
            _ => Ok(Self { dir, _lock: lock }),
        }
    }

    /// Every address with a file, and what the file says.
    pub fn reservations(&self) -> Result<HashMap<IpAddr, Owner>> {
        let mut all = HashMap::new();
        let entries = fs::read_dir(&self.dir).tried(|| format!("list {}", self.dir.display()))?;
        for entry in entries {
            let entry = entry.tried(|| format!("list {}", self.dir.display()))?;
            let Some(ip) = entry.file_name().to_str().and_then(|name| name.parse().ok()) else { continue };
            match fs::read_to_string(entry.path()) {
                Ok(text) => all.insert(ip, Owner(text.trim().to_owned())),
                Err(e) if e.kind() == ErrorKind::NotFound => None,
                Err(e) => {
                    return Err(e).tried(|| format!("read {}", entry.path().display())).map_err(Into::into);
                }
            };
        }
        Ok(all)
    }

    /// False: the address has a file already.
    pub fn reserve(&self, ip: IpAddr, owner: &Owner, range_set: usize) -> Result<bool> {
        let new = self.write(NEW, owner.0.as_bytes())?;
        let path = self.dir.join(ip.to_string());
        match renameat_with(rustix::fs::CWD, &new, rustix::fs::CWD, &path, RenameFlags::NOREPLACE) {
            Ok(()) => {}
            Err(rustix::io::Errno::EXIST) => return Ok(false),
            Err(errno) => {
                return Err(errno).tried(|| format!("create {}", path.display())).map_err(Into::into);
            }
        }
        self.overwrite(&format!("last_reserved_ip.{range_set}"), ip.to_string().as_bytes())?;
        Ok(true)
    }

    pub fn last_reserved(&self, range_set: usize) -> Option<IpAddr> {
        let text = fs::read_to_string(self.dir.join(format!("last_reserved_ip.{range_set}"))).ok()?;
        text.trim().parse().ok()
    }

    /// Removes what `owner` holds; files of the old form only when there is none of the new one.
    pub fn release(&mut self, owner: &Owner, link: &Link) -> Result<()> {
        let all = self.reservations()?;
        let mine = |exact: bool| -> Vec<IpAddr> {
            all.iter()
                .filter(|(_, who)| if exact { *who == owner } else { who.covers(owner) })
                .map(|(ip, _)| *ip)
                .collect()
        };
        let exact = mine(true);
        let ips = if exact.is_empty() { mine(false) } else { exact };
        if let Link::Leaving(link) = link
            && !ips.is_empty()
        {
            let now = SystemTime::now();
            let mut releases = self.releases(now)?;
            releases.retain(|release| !ips.contains(&release.ip));
            releases.extend(ips.iter().map(|ip| Release { at: now, ip: *ip, link: link.clone() }));
            self.write_releases(&releases)?;
        }
        ips.iter().try_for_each(|ip| self.remove(*ip))
    }

    /// Removes every reservation whose owner is not to be kept.
    pub fn retain(&mut self, keep: impl Fn(&Owner) -> bool) -> Result<()> {
        let all = self.reservations()?;
        all.iter().filter(|(_, who)| !keep(who)).try_for_each(|(ip, _)| self.remove(*ip))
    }

    /// No file is no error.
    pub fn remove(&self, ip: IpAddr) -> Result<()> {
        let path = self.dir.join(ip.to_string());
        match fs::remove_file(&path) {
            Err(e) if e.kind() != ErrorKind::NotFound => {
                Err(e).tried(|| format!("remove {}", path.display())).map_err(Into::into)
            }
            _ => Ok(()),
        }
    }

    /// Not older than [`RELEASE_AGE`] at `now`, oldest first.
    pub fn releases(&self, now: SystemTime) -> Result<Vec<Release>> {
        let path = self.dir.join(RELEASED);
        let text = match fs::read_to_string(&path) {
            Ok(text) => text,
            Err(e) if e.kind() == ErrorKind::NotFound => return Ok(Vec::new()),
            Err(e) => return Err(e).tried(|| format!("read {}", path.display())).map_err(Into::into),
        };
        let recent = |release: &Release| match now.duration_since(release.at) {
            Ok(age) => age < RELEASE_AGE,
            // The clock was set back: believe the entry, but not for longer than it could be true.
            Err(ahead) => ahead.duration() < RELEASE_AGE,
        };
        let mut releases: Vec<Release> = text.lines().filter_map(parse_release).filter(recent).collect();
        releases.sort_by_key(|release| release.at);
        Ok(releases)
    }

    fn write_releases(&self, releases: &[Release]) -> Result<()> {
        let line = |release: &Release| {
            let ms = release.at.duration_since(UNIX_EPOCH).unwrap_or_default().as_millis();
            format!("{ms} {} {}\n", release.ip, release.link.as_deref().unwrap_or("-"))
        };
        let text: String = releases.iter().map(line).collect();
        let new = self.write(NEW, text.as_bytes())?;
        let path = self.dir.join(RELEASED);
        Ok(fs::rename(&new, &path).tried(|| format!("replace {}", path.display()))?)
    }

    /// In place: truncating a file that has content makes ext4 write to the disk (2 to 4 ms). Killed in between, the
    /// hint where round robin stands is wrong, no more.
    fn overwrite(&self, name: &str, content: &[u8]) -> Result<()> {
        let path = self.dir.join(name);
        let mut options = OpenOptions::new();
        let written =
            options.create(true).truncate(false).write(true).mode(0o600).open(&path).and_then(|mut file| {
                file.write_all(content)?;
                if file.metadata()?.len() > content.len() as u64 {
                    file.set_len(content.len() as u64)
                } else {
                    Ok(())
                }
            });
        Ok(written.tried(|| format!("write {}", path.display()))?)
    }

    fn write(&self, name: &str, content: &[u8]) -> Result<PathBuf> {
        let path = self.dir.join(name);
        let written = OpenOptions::new()
            .create(true)
            .truncate(true)
            .write(true)
            .mode(0o600)
            .open(&path)
            .and_then(|mut file| file.write_all(content));
        written.tried(|| format!("write {}", path.display()))?;
        Ok(path)
    }
}

fn parse_release(line: &str) -> Option<Release> {
    let mut words = line.split(' ');
    let at = UNIX_EPOCH.checked_add(Duration::from_millis(words.next()?.parse().ok()?))?;
    let ip = words.next()?.parse().ok()?;
    let link = words.next().filter(|link| *link != "-").map(str::to_owned);
    Some(Release { at, ip, link })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn ip(text: &str) -> IpAddr {
        text.parse().expect("an address")
    }

    #[test]
    fn files_are_upstreams_byte_for_byte() {
        let dir = tempfile::tempdir().expect("a directory");
        let store = Store::create(dir.path(), "net").expect("a store");
        let owner = Owner::new("pod-1", "eth0");
        assert!(store.reserve(ip("10.0.0.2"), &owner, 0).expect("reserved"));
        assert!(!store.reserve(ip("10.0.0.2"), &owner, 0).expect("asked"), "taken");
        assert!(store.reserve(ip("fd00::2"), &owner, 1).expect("reserved"));
        let net = dir.path().join("net");
        assert_eq!(fs::read(net.join("10.0.0.2")).expect("a file"), b"pod-1\r\neth0");
        assert_eq!(fs::read(net.join("last_reserved_ip.0")).expect("a file"), b"10.0.0.2");
        assert_eq!(fs::read(net.join("last_reserved_ip.1")).expect("a file"), b"fd00::2");
        assert!(net.join("lock").exists());
        assert_eq!(store.last_reserved(0), Some(ip("10.0.0.2")));
    }

    #[test]
    fn the_old_form_is_released_only_when_there_is_no_new_one() {
        let dir = tempfile::tempdir().expect("a directory");
        let mut store = Store::create(dir.path(), "net").expect("a store");
        let owner = Owner::new("pod-1", "eth0");
        fs::write(dir.path().join("net/10.0.0.9"), "pod-1").expect("an old file");
        store.reserve(ip("10.0.0.2"), &owner, 0).expect("reserved");
        store.release(&owner, &Link::Gone).expect("released");
        assert_eq!(store.reservations().expect("listed").into_keys().collect::<Vec<_>>(), [ip("10.0.0.9")]);
        store.release(&owner, &Link::Gone).expect("released");
        assert!(store.reservations().expect("listed").is_empty());
        assert!(store.releases(SystemTime::now()).expect("read").is_empty());
    }

    #[test]
    fn a_half_written_reservation_of_a_killed_process_is_swept() {
        let dir = tempfile::tempdir().expect("a directory");
        fs::create_dir_all(dir.path().join("net")).expect("made");
        fs::write(dir.path().join("net/.new"), "po").expect("half a file");
        let store = Store::open(dir.path(), "net").expect("opened").expect("there is one");
        assert!(!dir.path().join("net/.new").exists());
        assert!(store.reservations().expect("listed").is_empty());
        assert!(Store::open(dir.path(), "other").expect("asked").is_none());
    }

    #[test]
    fn releases_are_remembered_for_a_while_oldest_first() {
        let dir = tempfile::tempdir().expect("a directory");
        let mut store = Store::create(dir.path(), "net").expect("a store");
        for (name, address, link) in [("a", "10.0.0.2", Some("veth1")), ("b", "10.0.0.3", None)] {
            let owner = Owner::new(name, "eth0");
            store.reserve(ip(address), &owner, 0).expect("reserved");
            store.release(&owner, &Link::Leaving(link.map(str::to_owned))).expect("released");
        }
        let now = SystemTime::now();
        let releases = store.releases(now).expect("read");
        let listed: Vec<_> = releases.iter().map(|r| (r.ip, r.link.as_deref())).collect();
        assert_eq!(listed, [(ip("10.0.0.2"), Some("veth1")), (ip("10.0.0.3"), None)]);
        assert!(store.releases(now + RELEASE_AGE).expect("read").is_empty());
        assert_eq!(parse_release("junk"), None);
        assert_eq!(parse_release("99999999999999999999 10.0.0.1 -"), None);
    }
}
