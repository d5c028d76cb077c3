//! Services at the socket, by real sockets: each test has a node of its own (network namespace, mount namespace with a
//! BPF file system, cgroup) and no rule in the kernel, so that whatever reaches a backend was turned to it by a hook.

mod world;

mod affinity;
mod change;
mod connect;
mod datagram;
mod node_port;
mod pinned;
mod stale;
