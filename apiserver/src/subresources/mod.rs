//! What is written below an object's name: one file each. Those that are the object itself, of which they may change a
//! part (`status`, `ephemeralcontainers`, `resize`, `finalize`), are written by the verbs; what that part is, the kind
//! says.

pub mod approval;
pub mod binding;
pub mod eviction;
pub mod scale;
pub mod token;
