//! Making the first process of a container, or a further one in it.
//!
//! [`parent`] is what the caller does, [`child`] what the new process does until it is the container's program; they
//! speak the typed phases of [`protocol`]. The child is a plain copy of a single-threaded process: it is linear, and
//! reads as the order of the specification.

mod cgroups;
pub mod child;
mod console;
mod devices;
mod identity;
mod masks;
mod mounts;
pub mod parent;
mod program;
pub mod protocol;
mod rootfs;
