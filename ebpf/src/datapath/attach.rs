//! Attaching to interfaces: by tcx, whose links are pinned, or as a filter of the clsact qdisc.
//!
//! A clsact filter stays on its interface by itself; so that it can be found again, the program is pinned under the name
//! that the link would have.

use std::fs;
use std::io;
use std::path::Path;

use aya::programs::tc::{
    NlOptions, SchedClassifierLink, TcAttachOptions, TcAttachType, TcError, TcHandle, qdisc_add_clsact,
};
use corten_ebpf_layout::datapath::Hook;
use nix::errno::Errno;
use nix::net::if_::if_indextoname;

use super::pins::{Pins, failed, unlink};
use super::{Datapath, DatapathError, program_name};
use crate::link::{Link, is_bpffs, pin_fd};

/// How programs are attached.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum How {
    Tcx,
    Clsact,
}

/// A program on an interface.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Attached {
    pub hook: Hook,
    pub ifindex: u32,
    pub how: How,
}

impl Ord for Attached {
    fn cmp(&self, other: &Self) -> std::cmp::Ordering {
        (self.hook as u8, self.ifindex, self.how).cmp(&(other.hook as u8, other.ifindex, other.how))
    }
}

impl PartialOrd for Attached {
    fn partial_cmp(&self, other: &Self) -> Option<std::cmp::Ordering> {
        Some(self.cmp(other))
    }
}

/// Ours among the filters of an interface.
const PRIORITY: u16 = 0xc07e;
const HANDLE: TcHandle = TcHandle::new(0, 1);

impl Datapath {
    /// How [`Self::attach`] attaches.
    pub fn how(&self) -> How {
        self.how
    }

    /// Attaches to the ingress of an interface; what is there already stays as it is.
    ///
    /// # Errors
    /// [`DatapathError::NoInterface`]
    pub fn attach(&mut self, hook: Hook, ifindex: u32) -> Result<(), DatapathError> {
        let link = Attached { hook, ifindex, how: self.how };
        if self.attached()?.contains(&link) {
            return Ok(());
        }
        match self.how {
            How::Tcx => self.attach_tcx(link),
            How::Clsact => self.attach_clsact(link),
        }
    }

    /// Detaches from an interface; what is gone is no error.
    pub fn detach(&mut self, hook: Hook, ifindex: u32) -> Result<(), DatapathError> {
        for how in [How::Tcx, How::Clsact] {
            detach(&self.pins, Attached { hook, ifindex, how })?;
        }
        Ok(())
    }

    /// What is attached now. Forgets what was attached to interfaces that are gone.
    pub fn attached(&self) -> Result<Vec<Attached>, DatapathError> {
        let mut attached = Vec::new();
        for link in self.pins.links()? {
            if lives(&self.pins, link) {
                attached.push(link);
            } else {
                unlink(&self.pins.link(link))?;
            }
        }
        Ok(attached)
    }

    /// Puts these programs in the place of those of an earlier process.
    pub(super) fn take_over(&mut self) -> Result<(), DatapathError> {
        for link in self.attached()? {
            match link.how {
                _ if link.how != self.how => detach(&self.pins, link)?,
                How::Tcx => {
                    let pin = self.pins.link(link);
                    let error = tcx_error(link);
                    let program = self.program(link.hook)?.fd().map_err(load_error(link.hook))?;
                    let updated = Link::open(&pin).and_then(|old| old.update(program));
                    match updated {
                        Err(Errno::ENOLINK) => unlink(&pin)?,
                        other => other.map_err(error)?,
                    }
                }
                How::Clsact => self.attach_clsact(link)?,
            }
        }
        Ok(())
    }

    /// Pins the program, in place of an older one, for who looks with bpftool and for the next process.
    pub(super) fn pin_program(&mut self, hook: Hook) -> Result<(), DatapathError> {
        let pin = self.pins.program(hook);
        let program = self.program(hook)?.fd().map_err(load_error(hook))?;
        pin_fd(program, &pin).map_err(|errno| failed("pin", &pin)(errno.into()))
    }

    fn attach_tcx(&mut self, link: Attached) -> Result<(), DatapathError> {
        let pin = self.pins.link(link);
        let program = self.program(link.hook)?.fd().map_err(load_error(link.hook))?;
        let made = Link::tcx(program, link.ifindex).map_err(tcx_error(link))?;
        made.pin(&pin).map_err(|errno| failed("pin", &pin)(errno.into()))
    }

    /// Also replaces the filter of an earlier process.
    fn attach_clsact(&mut self, link: Attached) -> Result<(), DatapathError> {
        let Attached { hook, ifindex, .. } = link;
        let name = interface_name(ifindex)?;
        match qdisc_add_clsact(&name) {
            Ok(()) => {}
            Err(TcError::NetlinkError(error)) if error.raw_os_error() == Some(Errno::EEXIST as i32) => {}
            Err(source) => return Err(DatapathError::Qdisc { ifindex, source }),
        }
        let pin = self.pins.link(link);
        let program = self.program(hook)?;
        let error = |source| DatapathError::Clsact { program: program_name(hook), ifindex, source };
        let there = filter(&name).map_err(|source| error(TcError::from(source).into()))?;
        let options =
            TcAttachOptions::Netlink(NlOptions { priority: PRIORITY, handle: HANDLE, classid: None });
        let id = match program.attach_to_link(there) {
            Ok(id) => id,
            Err(_) => program.attach_with_options(&name, TcAttachType::Ingress, options).map_err(error)?,
        };
        // Dropped, it would detach.
        std::mem::forget(program.take_link(id).map_err(error)?);
        let program = program.fd().map_err(load_error(hook))?;
        pin_fd(program, &pin).map_err(|errno| failed("pin", &pin)(errno.into()))
    }
}

/// Detaches and removes every pin below `directory`.
pub fn remove(directory: &Path) -> Result<(), DatapathError> {
    // A wrong path of an option must cost nobody files.
    if !is_bpffs(directory) {
        return Ok(());
    }
    let pins = Pins::at(directory);
    for link in pins.links()? {
        detach(&pins, link)?;
    }
    match fs::remove_dir_all(directory) {
        Err(error) if error.kind() != io::ErrorKind::NotFound => Err(failed("remove", directory)(error)),
        _ => Ok(()),
    }
}

fn detach(pins: &Pins, link: Attached) -> Result<(), DatapathError> {
    let pin = pins.link(link);
    if !pin.exists() {
        return Ok(());
    }
    match link.how {
        How::Tcx => {
            Link::open(&pin).and_then(|open| open.detach()).map_err(tcx_error(link))?;
        }
        How::Clsact => {
            // Without the interface the filter is gone too.
            if let Ok(name) = interface_name(link.ifindex)
                && let Ok(there) = filter(&name)
            {
                detach_filter(there, link)?;
            }
        }
    }
    unlink(&pin)
}

fn detach_filter(filter: SchedClassifierLink, link: Attached) -> Result<(), DatapathError> {
    use aya::programs::links::Link as _;
    let gone = [Errno::ENOENT as i32, Errno::EINVAL as i32];
    match filter.detach() {
        Err(aya::programs::ProgramError::NetlinkError(error))
            if error.raw_os_error().is_some_and(|errno| gone.contains(&errno)) =>
        {
            Ok(())
        }
        other => other.map_err(|source| DatapathError::Clsact {
            program: program_name(link.hook),
            ifindex: link.ifindex,
            source,
        }),
    }
}

/// Our filter on an interface, whether it is there or not.
fn filter(name: &str) -> io::Result<SchedClassifierLink> {
    SchedClassifierLink::attached(name, TcAttachType::Ingress, PRIORITY, HANDLE, None)
}

fn lives(pins: &Pins, link: Attached) -> bool {
    match link.how {
        How::Tcx => Link::open(&pins.link(link))
            .and_then(|open| open.ifindex())
            .is_ok_and(|ifindex| ifindex == Some(link.ifindex)),
        How::Clsact => interface_name(link.ifindex).is_ok(),
    }
}

fn interface_name(ifindex: u32) -> Result<String, DatapathError> {
    let name = if_indextoname(ifindex).map_err(|_| DatapathError::NoInterface { ifindex })?;
    name.into_string().map_err(|_| DatapathError::NoInterface { ifindex })
}

fn tcx_error(link: Attached) -> impl FnOnce(Errno) -> DatapathError {
    move |errno| match errno {
        Errno::ENODEV => DatapathError::NoInterface { ifindex: link.ifindex },
        _ => DatapathError::Tcx { program: program_name(link.hook), ifindex: link.ifindex, errno },
    }
}

fn load_error(hook: Hook) -> impl FnOnce(aya::programs::ProgramError) -> DatapathError {
    move |source| DatapathError::Load { program: program_name(hook), source }
}
