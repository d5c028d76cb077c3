//! The cgroup programs that translate Services at connect, send and receive.
