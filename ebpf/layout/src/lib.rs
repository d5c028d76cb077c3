//! What kernel programs and user code both read: map keys and values, drop reasons, counters.
//!
//! Everything here is `repr(C)`, has no padding that is not named, and is plain bytes; addresses and ports are in
//! network byte order. One file per hook's maps: [`datapath`] for tc, [`service`] for the cgroup hooks.
#![no_std]
#![forbid(unsafe_code)]

pub mod datapath;
pub mod service;
