//! The tc programs `from_pod` and `from_nic`: loading, attaching by tcx or clsact, and their maps as tables.
//!
//! Programs, maps and attachments are pinned below one directory (say `/sys/fs/bpf/corten/v1/tc`): packets flow on while
//! nobody runs. [`Datapath::load_or_open`] takes over what an earlier process left: it opens the maps with all they hold
//! and replaces the programs in place, without a gap. Nothing here decides what belongs into the tables.
//!
//! ```no_run
//! # fn f() -> Result<(), corten_ebpf::datapath::DatapathError> {
//! use corten_ebpf::datapath::{Config, Datapath, Hook, state};
//!
//! let mut datapath = Datapath::load_or_open("/sys/fs/bpf/corten/v1/tc".as_ref())?;
//! datapath.set_config(&Config { state: state::OBSERVE, ..datapath.config()? })?; // fill the tables, then
//! datapath.attach(Hook::FromPod, 17)?; // a pod's host veth, again at every pass,
//! datapath.attach(Hook::FromNic, 2)?; // the uplink,
//! datapath.set_state(state::ON)?; // and switch on.
//! # Ok(()) }
//! ```
//!
//! Interfaces are of the calling thread's network namespace. An entry of a table names an interface that must exist
//! ([`Datapath::insert_endpoint`] refuses others), and is out of use once the kernel has removed the interface, even if
//! nobody removes the entry.
//!
//! # Switching on
//! In [`state::OBSERVE`] the programs only record which flows of pods may have been translated by conntrack, whose
//! replies must not take the fast path. Flows that were there before are known to conntrack alone: put those whose
//! original destination was translated into [`Datapath::insert_slow`] between OBSERVE and ON.

mod attach;
mod convert;
mod error;
mod events;
mod pins;
mod probe;
mod tables;

use std::path::Path;

use aya::maps::{Map, RingBuf};
use aya::programs::SchedClassifier;
use aya::{Btf, Ebpf, EbpfLoader};

pub use attach::{Attached, How};
pub use convert::{Prefix, address, ip, range};
pub use corten_ebpf_layout::datapath::{
    Address, Config, Endpoint, Hook, Node, Range, Reason, TOLD, mode, state,
};
pub use error::DatapathError;
pub use events::{Event, Events};
pub use probe::{Probe, probe};
pub use tables::SlowEnd;

use corten_ebpf_layout::datapath::{map, program};
use pins::Pins;
use tables::{SHAPES, Tables};

use crate::link;

/// The programs, loaded, and their maps.
pub struct Datapath {
    pins: Pins,
    how: How,
    programs: Ebpf,
    tables: Tables,
    events: Option<Events>,
}

impl Datapath {
    /// Loads the programs, makes or opens the maps, and puts the programs in the place of those that an earlier process
    /// attached. `directory` is made if it is not there; its file system must be bpffs. tcx if the kernel has it.
    ///
    /// Maps of another version's shape cannot be taken over: then everything there is detached and removed first, and
    /// packets go the kernel's way until the tables are filled anew.
    ///
    /// # Errors
    /// [`DatapathError::NotBpffs`]
    pub fn load_or_open(directory: &Path) -> Result<Self, DatapathError> {
        let tcx = link::has_tcx().map_err(|errno| DatapathError::Query { errno })?;
        let how = if tcx { How::Tcx } else { How::Clsact };
        Self::load_with(directory, how)
    }

    /// As [`Self::load_or_open`], attaching in this way (clsact is what kernels before 6.6 have).
    pub fn load_with(directory: &Path, how: How) -> Result<Self, DatapathError> {
        let mut pins = Pins::open(directory)?;
        if tables::are_foreign(&pins)? {
            Self::remove(directory)?;
            pins = Pins::open(directory)?;
        }
        let mut programs = load(&pins)?;
        let tables = Tables::take(&mut programs)?;
        let events = match programs.take_map(map::EVENTS) {
            Some(Map::RingBuf(data)) => {
                let ring = RingBuf::try_from(Map::RingBuf(data));
                Some(Events::new(ring.map_err(|source| DatapathError::Map { map: map::EVENTS, source })?))
            }
            _ => None,
        };
        let mut datapath = Self { pins, how, programs, tables, events };
        for hook in [Hook::FromPod, Hook::FromNic] {
            let name = program_name(hook);
            datapath.program(hook)?.load().map_err(|source| DatapathError::Load { program: name, source })?;
            datapath.pin_program(hook)?;
        }
        datapath.take_over()?;
        Ok(datapath)
    }

    /// Detaches everything and removes every pin below `directory`; what is gone is no error, and so is a directory that
    /// is not on bpffs: nothing of ours can be in it. Needs no loading.
    pub fn remove(directory: &Path) -> Result<(), DatapathError> {
        attach::remove(directory)
    }

    /// The reader of events; once, since readers of one ring buffer take each other's events away.
    pub fn take_events(&mut self) -> Option<Events> {
        self.events.take()
    }

    /// The loaded program, for test runs.
    pub fn program(&mut self, hook: Hook) -> Result<&mut SchedClassifier, DatapathError> {
        let name = program_name(hook);
        let program = self.programs.program_mut(name).ok_or(DatapathError::NoProgram { program: name })?;
        program.try_into().map_err(|source| DatapathError::Load { program: name, source })
    }
}

/// The program of a hook; also the name of its pin.
fn program_name(hook: Hook) -> &'static str {
    match hook {
        Hook::FromPod => program::FROM_POD,
        Hook::FromNic => program::FROM_NIC,
    }
}

/// The maps that only the programs here use.
pub(crate) fn map_names() -> impl Iterator<Item = &'static str> {
    SHAPES.iter().map(|shape| shape.name)
}

/// Parses the object and makes or opens our maps. Programs are loaded one by one later, so those of others are not.
fn load(pins: &Pins) -> Result<Ebpf, DatapathError> {
    let btf = Btf::from_sys_fs().ok();
    let mut loader = EbpfLoader::new();
    loader.btf(btf.as_ref());
    for shape in &SHAPES {
        loader.map_pin_path(shape.name, pins.map(shape.name));
    }
    // The object makes the socket programs' maps too, for nobody: as small as they can be.
    for name in crate::socket::map_names() {
        loader.map_max_entries(name, crate::SMALLEST);
    }
    loader.load(crate::OBJECT).map_err(|source| DatapathError::Object { source })
}
