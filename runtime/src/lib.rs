//! OCI runtime as a library: everything that `corten-oci` and the pod monitor do to run a container.
#![forbid(unsafe_code)]

pub mod cgroup;
pub mod seccomp;
