//! Services at the socket: a destination is replaced where a program names it, so that no packet needs translating.
//!
//! One file per hook. [`maps`] are the tables, [`address`] reads and writes what the hook is about, [`translate`] decides.
//! A socket whose destination is no service of ours is left as it is.

mod address;
mod connect;
mod getpeername;
mod maps;
mod recvmsg;
mod sendmsg;
mod sock_release;
mod translate;

/// The operation goes on, with the address as it then is.
const PROCEED: i32 = 1;
/// The operation fails: with the errno set by bpf_set_retval, else EPERM.
const REJECT: i32 = 0;
