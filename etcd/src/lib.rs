//! A client of etcd's v3 API: ranges, transactions, leases, watches. Used by corten-netd and corten-apiserver.
//!
//! [`Client`] speaks to one of several endpoints and goes to the next when that one fails. A read is asked again there;
//! a write is not, once it may have been received: its caller alone knows whether doing it twice is harmless. Every
//! answer has the store's revision, and [`EtcdError::Compacted`] says when a revision asked for is history no longer:
//! list anew, and go on from there.
#![forbid(unsafe_code)]

mod client;
mod config;
mod error;
mod key;
mod kv;
mod lease;
mod watch;

/// Messages as etcd has them.
pub mod proto {
    #![allow(clippy::all, clippy::pedantic, missing_docs)]
    tonic::include_proto!("etcdserverpb");
}

pub use client::Client;
pub use config::{Config, Tls};
pub use error::EtcdError;
pub use key::KeyRange;
pub use kv::{Compare, Deleted, KeyValue, Op, OpAnswer, Page, Put, Range, Txn, TxnAnswer};
pub use lease::{Lease, LeaseId};
pub use watch::{Change, Changes, Watch, Watcher};

/// A revision of the whole store: grows by one with every write transaction.
pub type Revision = i64;
