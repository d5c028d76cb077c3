//! The real program in real network namespaces. The "host" of each test is a namespace of its thread's own, so the
//! machine's network is never touched and everything is gone when the thread ends.

mod bridge;
mod chain;
mod differential;
mod fault;
mod firewall;
mod flannel;
mod host_local;
mod loopback;
mod portmap;
mod program;
mod tuning;
mod world;
