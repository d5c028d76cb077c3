//! The cgroup programs that translate Services at connect, send and receive.
//!
//! [`plan`] decides what to change, the tables change it, links attach the programs to a cgroup, [`stale`] ends sockets
//! that a change leaves without a peer. Programs, maps and links are pinned: they work on while nobody runs, and the next
//! start takes over without a gap. Nothing here knows what a Service is beyond [`Entry`].
//!
//! ```no_run
//! # fn f() -> Result<(), corten_ebpf::socket::SocketError> {
//! # use corten_ebpf::socket::{Desired, Options, SocketServices};
//! let mut services = SocketServices::open(Options {
//!     pin_directory: "/sys/fs/bpf/corten/v1/socket".into(),
//!     cgroup: "/sys/fs/cgroup".into(),
//! })?;
//! services.apply(&Desired::default())?; // fill first,
//! services.set_enabled(true);
//! services.attach()?; // then attach; again at every pass
//! services.destroy_stale(&corten_ebpf::socket::networks().unwrap_or_default())?;
//! # Ok(()) }
//! ```

mod error;
mod plan;
mod stale;
mod tables;

use std::collections::BTreeMap;
use std::fs::File;
use std::os::fd::{AsFd, OwnedFd};
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};

use aya::programs::{CgroupSock, CgroupSockAddr, Program, ProgramFd};
use aya::util::KernelVersion;
use aya::{Ebpf, EbpfLoader};
use corten_ebpf_layout::service::{Affinity, Client, Counter};
use nix::errno::Errno;
use nix::sys::statfs::{CGROUP2_SUPER_MAGIC, fstatfs};

pub use error::SocketError;
pub use plan::{Actual, At, Change, Desired, Entry, Full, Plan, Protocol, Refused, Why, plan};
pub use stale::{netns_cookie, networks};
use tables::{SHAPES, Tables};

use crate::link::{Link, is_bpffs, unlink};

/// Programs and `enum bpf_attach_type`. Those that translate back first: nothing is translated before its answers are.
const HOOKS: [(&str, u32); 9] = [
    ("recvmsg4", 19),
    ("recvmsg6", 20),
    ("getpeername4", 29),
    ("getpeername6", 30),
    ("sock_release", 34),
    ("sendmsg4", 14),
    ("sendmsg6", 15),
    ("connect4", 10),
    ("connect6", 11),
];

#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Options {
    /// On a BPF file system; made if it is not there. Nobody else's files may be in it.
    pub pin_directory: PathBuf,
    /// A cgroup v2 directory. Sockets made in it and below are served.
    pub cgroup: PathBuf,
}

/// What a pass did.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Applied {
    pub changes: usize,
    pub refused: Vec<Refused>,
}

/// What ending stale sockets did.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Destroyed {
    pub destroyed: usize,
    /// In none of the namespaces: closed meanwhile, or out of reach.
    pub missing: usize,
}

/// The programs, loaded, and their maps.
pub struct SocketServices {
    options: Options,
    programs: Vec<Loaded>,
    tables: Tables,
    next_set: u32,
}

struct Loaded {
    name: &'static str,
    attach_type: u32,
    id: u32,
    fd: ProgramFd,
}

impl SocketServices {
    /// Loads the programs and opens their maps, or makes them. Attaches nothing. Node ports by loopback are for sockets of
    /// the calling thread's network namespace.
    pub fn open(options: Options) -> Result<Self, SocketError> {
        let directory = &options.pin_directory;
        std::fs::create_dir_all(directory).map_err(path_error("make the directory", directory))?;
        if !is_bpffs(directory) {
            return Err(SocketError::NotBpffs { path: directory.clone() });
        }
        open_cgroup(&options.cgroup)?;
        tables::remove_foreign(directory)?;
        let mut ebpf = load(directory)?;
        // Before the maps are taken: loading needs all their descriptors.
        let programs = HOOKS
            .into_iter()
            .map(|(name, attach_type)| load_program(&mut ebpf, name, attach_type))
            .collect::<Result<_, _>>()?;
        let tables = Tables::take(&mut ebpf)?;
        tables.set_node_netns(netns_cookie()?.unwrap_or(0));
        let last = tables.read()?.sets.last_key_value().map_or(0, |(set, _)| *set);
        Ok(Self { options, programs, tables, next_set: last.wrapping_add(1) })
    }

    /// Attaches every program, in place of an older one of ours. What is right already stays as it is.
    pub fn attach(&self) -> Result<(), SocketError> {
        let cgroup = open_cgroup(&self.options.cgroup)?;
        let id = cgroup.metadata().map_err(path_error("stat", &self.options.cgroup))?.ino();
        for program in &self.programs {
            let pin = link_pin(&self.options.pin_directory, program.name);
            attach_one(program, &cgroup, id, &pin)
                .map_err(|errno| SocketError::Link { name: program.name, errno })?;
        }
        Ok(())
    }

    /// Whether every program is attached to the cgroup: links die with their cgroup, whoever holds them.
    pub fn is_attached(&self) -> bool {
        let Ok(id) = std::fs::metadata(&self.options.cgroup).map(|m| m.ino()) else { return false };
        self.programs.iter().all(|program| {
            Link::open(&link_pin(&self.options.pin_directory, program.name))
                .and_then(|link| link.cgroup_info())
                .is_ok_and(|info| info.cgroup_id == id && info.program_id == program.id)
        })
    }

    /// Makes the maps answer as desired.
    pub fn apply(&mut self, desired: &Desired) -> Result<Applied, SocketError> {
        let plan = plan(desired, &self.tables.read()?, &mut self.next_set)?;
        for change in &plan.changes {
            self.tables.apply(change)?;
        }
        Ok(Applied { changes: plan.changes.len(), refused: plan.refused })
    }

    pub fn actual(&self) -> Result<Actual, SocketError> {
        self.tables.read()
    }

    /// The on/off switch: one store. Off: what was translated goes on being translated back.
    pub fn set_enabled(&self, enabled: bool) {
        self.tables.set_enabled(enabled);
    }

    pub fn is_enabled(&self) -> bool {
        self.tables.is_enabled()
    }

    /// Ends connected UDP sockets whose backend has left their service. To be called after a pass that changed something,
    /// and now and then (a socket may have been about to connect during the pass).
    pub fn destroy_stale(&mut self, networks: &[OwnedFd]) -> Result<Destroyed, SocketError> {
        let stale = self.tables.stale()?;
        if stale.is_empty() {
            return Ok(Destroyed::default());
        }
        let mut destroyed = 0;
        for network in networks {
            destroyed += stale::destroy_in(network, &stale)?;
        }
        for (reverse, _) in &stale {
            self.tables.forget(*reverse)?;
        }
        Ok(Destroyed { destroyed, missing: stale.len().saturating_sub(destroyed) })
    }

    /// Whether [`Self::destroy_stale`] has anything to do; finding namespaces costs more than this.
    pub fn has_stale(&self) -> Result<bool, SocketError> {
        Ok(!self.tables.stale()?.is_empty())
    }

    pub fn counters(&self) -> Result<BTreeMap<Counter, u64>, SocketError> {
        self.tables.counters()
    }

    pub fn affinities(&self) -> Result<BTreeMap<Client, Affinity>, SocketError> {
        self.tables.affinities()
    }

    /// Sets what a client had last, and when.
    pub fn set_affinity(&mut self, client: Client, affinity: Affinity) -> Result<(), SocketError> {
        self.tables.set_affinity(client, affinity)
    }
}

/// The maps that only the programs here use.
pub(crate) fn map_names() -> impl Iterator<Item = &'static str> {
    SHAPES.into_iter().map(|(name, ..)| name)
}

/// Detaches everything and removes the pins: connections are no longer translated, those that are go on.
/// What is not there is no error, nor is a directory that is not on bpffs: nothing of ours can be in it.
pub fn remove(pin_directory: &Path) -> Result<(), SocketError> {
    // A wrong path of an option must cost nobody files.
    if !is_bpffs(pin_directory) {
        return Ok(());
    }
    // In the order that nothing is translated after its answers no longer are.
    for (name, _) in HOOKS.iter().rev() {
        let pin = link_pin(pin_directory, name);
        match Link::open(&pin).and_then(|link| link.detach()) {
            Ok(()) | Err(Errno::ENOENT) => {}
            Err(errno) => return Err(SocketError::Path { what: "detach", path: pin, errno }),
        }
        unlink(&pin).map_err(|errno| SocketError::Path { what: "unpin", path: pin, errno })?;
    }
    clear(pin_directory)
}

fn path_error(what: &'static str, path: &Path) -> impl FnOnce(std::io::Error) -> SocketError {
    move |e| SocketError::Path {
        what,
        path: path.into(),
        errno: Errno::from_raw(e.raw_os_error().unwrap_or_default()),
    }
}

fn link_pin(directory: &Path, program: &str) -> PathBuf {
    directory.join(format!("link_{program}"))
}

fn open_cgroup(path: &Path) -> Result<File, SocketError> {
    let cgroup = File::open(path).map_err(path_error("open the cgroup", path))?;
    match fstatfs(&cgroup) {
        Ok(stat) if stat.filesystem_type() == CGROUP2_SUPER_MAGIC => Ok(cgroup),
        _ => Err(SocketError::NotCgroup { path: path.into() }),
    }
}

fn load(directory: &Path) -> Result<Ebpf, SocketError> {
    // Older kernels refuse connections with EPERM.
    let have_set_retval = KernelVersion::current().is_ok_and(|v| v >= KernelVersion::new(5, 18, 0));
    let have_set_retval = u8::from(have_set_retval);
    let mut loader = EbpfLoader::new();
    loader.override_global("HAVE_SET_RETVAL", &have_set_retval, true);
    for (name, ..) in SHAPES {
        loader.map_pin_path(name, directory.join(name));
    }
    // The object makes the tc programs' maps too, for nobody: as small as they can be.
    for name in crate::datapath::map_names() {
        loader.map_max_entries(name, crate::SMALLEST);
    }
    loader.load(crate::OBJECT).map_err(|e| SocketError::Object(Box::new(e)))
}

/// Removes a directory of pins; what is gone is no error.
fn clear(directory: &Path) -> Result<(), SocketError> {
    let pins = match std::fs::read_dir(directory) {
        Ok(pins) => pins,
        Err(e) if e.kind() == std::io::ErrorKind::NotFound => return Ok(()),
        Err(e) => return Err(path_error("list", directory)(e)),
    };
    for pin in pins.flatten() {
        unlink(&pin.path()).map_err(|errno| SocketError::Path { what: "unpin", path: pin.path(), errno })?;
    }
    std::fs::remove_dir(directory).map_err(path_error("remove the directory", directory))
}

fn load_program(ebpf: &mut Ebpf, name: &'static str, attach_type: u32) -> Result<Loaded, SocketError> {
    let failed = |source| SocketError::Program { name, source: Box::new(source) };
    let program = ebpf.program_mut(name).ok_or(SocketError::Missing { what: "program", name })?;
    let (fd, info) = match program {
        Program::CgroupSockAddr(program) => {
            CgroupSockAddr::load(program).map_err(failed)?;
            (program.fd().and_then(|fd| Ok(fd.try_clone()?)).map_err(failed)?, program.info())
        }
        Program::CgroupSock(program) => {
            CgroupSock::load(program).map_err(failed)?;
            (program.fd().and_then(|fd| Ok(fd.try_clone()?)).map_err(failed)?, program.info())
        }
        _ => return Err(SocketError::Missing { what: "cgroup program", name }),
    };
    Ok(Loaded { name, attach_type, id: info.map_err(failed)?.id(), fd })
}

fn attach_one(program: &Loaded, cgroup: &File, cgroup_id: u64, pin: &Path) -> Result<(), Errno> {
    let old = match Link::open(pin) {
        Ok(link) => {
            let info = link.cgroup_info()?;
            if info.cgroup_id == cgroup_id && info.program_id == program.id {
                return Ok(());
            }
            if info.cgroup_id == cgroup_id && link.update(program.fd.as_fd()).is_ok() {
                return Ok(());
            }
            Some(link)
        }
        Err(Errno::ENOENT) => None,
        Err(errno) => return Err(errno),
    };
    // None yet, or one to another cgroup, or to one that is gone (its link stays and does nothing).
    Link::cgroup(program.fd.as_fd(), cgroup, program.attach_type)?.pin(pin)?;
    old.map_or(Ok(()), |old| old.detach())
}
