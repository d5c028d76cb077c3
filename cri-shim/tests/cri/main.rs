//! The real daemon, monitor and CNI plugins, each test on a node of its own: temporary directories, a network namespace
//! for the host's side, an image made in place. Spoken to by gRPC.

mod containers;
mod exec;
mod faults;
mod images;
mod namespaces;
mod node;
mod pods;
mod recovery;
mod security;
