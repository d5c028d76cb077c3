//! Support for end-to-end lanes: a private node per test, a real registry, stock clients, and a picture of the machine
//! to compare before and after. The lanes are in `tests/`, one file each; `cargo xtask test` runs them.
//!
//! A lane uses the release programs as a user would. Every node has its own network and mount namespace, directories,
//! cgroup and sockets, so that lanes run side by side and leave the machine alone.
#![forbid(unsafe_code)]

pub mod api_measure;
pub mod artifacts;
pub mod cluster;
pub mod components;
pub mod containerd;
pub mod control_plane;
pub mod cri;
pub mod crictl;
pub mod http;
pub mod kubectl;
pub mod lane;
pub mod machine;
pub mod measure;
pub mod node;
pub mod probe;
pub mod registry;
pub mod wait;

/// Ends a test that cannot run here, saying why; `cargo xtask test` counts and lists these.
#[macro_export]
macro_rules! skip {
    ($($why:tt)*) => {{
        println!("SKIP: {}", format!($($why)*));
        return;
    }};
}

/// The value, or the end of the test with the reason why it cannot run here.
#[macro_export]
macro_rules! need {
    ($found:expr) => {
        match $found {
            Ok(value) => value,
            Err(missing) => $crate::skip!("{missing}"),
        }
    };
}
