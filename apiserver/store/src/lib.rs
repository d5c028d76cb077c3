//! Where the API server keeps its objects: one trait with etcd's semantics, and what implements it.
//!
//! [`Store`] is the contract: one revision for all keys, single-key compare-and-swap, reads of the past, watches that
//! miss nothing, leases, compaction. [`Embedded`] is the store in this process; behind it an [`Engine`] keeps the
//! records: [`memory`](Embedded::memory) or a [redb file](Embedded::open). [`EtcdStore`] is a real etcd.
//!
//! Keys and values are bytes; what they mean is the caller's. Nothing here knows Kubernetes.
#![forbid(unsafe_code)]

mod api;
mod compactor;
mod embedded;
mod engine;
mod error;
mod etcd;
mod snapshot;

pub use api::{
    Answer, Change, KeyValue, Keys, Lease, LeaseId, List, MAX_KEY_BYTES, MAX_VALUE_BYTES, Page, Put, Read,
    Revision, Store, Swap, Told, Watcher,
};
pub use compactor::keep_compacted;
pub use embedded::{Config, Embedded, Statistics};
pub use engine::{Engine, redb::RedbOptions};
pub use error::StoreError;
pub use etcd::EtcdStore;
pub use snapshot::{Image, save};
