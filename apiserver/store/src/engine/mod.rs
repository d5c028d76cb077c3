//! What an embedded store is kept in: records by revision, nothing more. Six functions.
//!
//! An engine knows neither keys nor watches. It keeps, for each revision that is still needed, the record of what
//! happened; which key has which revisions is the index's to know ([`crate::Embedded`]), which it rebuilds from the
//! records when it starts.

pub mod memory;
mod record;
pub mod redb;

use std::sync::Arc;
use std::time::Duration;

pub use record::Record;

use crate::StoreError;
use crate::api::{LeaseId, Revision};

/// Keeps records. All calls may block; [`Engine::commit`] is called by one thread alone.
pub trait Engine: Send + Sync + 'static {
    /// Everything there is: meta, leases, then each record in order of revision.
    fn load(&self, each: &mut dyn FnMut(Loaded) -> Result<(), StoreError>) -> Result<(), StoreError>;

    /// All of `batch` or, with an error, nothing; durable when it returns. After an error it may be called again.
    fn commit(&self, batch: &Batch) -> Result<(), StoreError>;

    /// The records of these revisions, in their order; `None`: removed.
    fn read(&self, revisions: &[Revision]) -> Result<Vec<Option<Arc<Record>>>, StoreError>;

    /// The first `limit` records from a revision on.
    fn scan(&self, from: Revision, limit: usize) -> Result<Vec<(Revision, Arc<Record>)>, StoreError>;

    /// Gives room back that has become free, if worth it; `live_bytes`: about what the records have.
    fn shrink(&self, live_bytes: u64) -> Result<(), StoreError>;

    /// Lets go of everything; later calls fail with [`StoreError::Closed`].
    fn close(&self) -> Result<(), StoreError>;
}

pub enum Loaded {
    Meta(Meta),
    Lease(LeaseId, Duration),
    Record(Revision, Arc<Record>),
}

/// One atomic step.
#[derive(Debug, Default, Clone)]
pub struct Batch {
    pub meta: Meta,
    pub records: Vec<(Revision, Arc<Record>)>,
    pub removed: Vec<Revision>,
    /// Granted with this time; `None`: gone.
    pub leases: Vec<(LeaseId, Option<Duration>)>,
}

#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Meta {
    /// The last one that is durable.
    pub revision: Revision,
    /// Higher ones than this were never told to anybody. Above `revision` unless the store was closed in order.
    pub ceiling: Revision,
    pub compacted: Revision,
    /// Revisions that were told but are lost (volatile writes before a crash).
    pub lost: Vec<Lost>,
}

impl Default for Meta {
    fn default() -> Self {
        Self { revision: 1, ceiling: 1, compacted: 0, lost: Vec::new() }
    }
}

/// `first..=last` may have been told; nobody knows any more what they were.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Lost {
    pub first: Revision,
    pub last: Revision,
}
