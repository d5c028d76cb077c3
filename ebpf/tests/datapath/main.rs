//! The tc programs by BPF_PROG_TEST_RUN and by real traffic, their pins, their tables. Needs root.
//!
//! Every test has a network and a mount namespace of its own, on its own thread, and a BPF file system in them; all goes
//! when the thread ends.

mod frame;
mod from_nic;
mod from_pod;
mod netns;
mod nodes;
mod pins;
mod slow;
mod traffic;
mod world;
