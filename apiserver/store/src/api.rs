//! The contract. Source: etcd `client/v3/kubernetes/interface.go` and its API guarantees.

use std::fmt;
use std::num::NonZeroI64;
use std::pin::Pin;
use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;

use crate::StoreError;

/// A revision of the whole store. Grows with every change, never repeats, may leave numbers out. An empty store is at 1.
pub type Revision = i64;

/// Longest key; upstream's are below 600 bytes.
pub const MAX_KEY_BYTES: usize = 4096;
/// Largest value: above the 3 MiB that an API request may have. etcd takes 1.5 MiB unless told otherwise.
pub const MAX_VALUE_BYTES: usize = 4 << 20;

pub type Answer<'a, T> = Pin<Box<dyn Future<Output = Result<T, StoreError>> + Send + 'a>>;

/// A store of keys with etcd's semantics.
///
/// What is answered is linearizable: a read sees every write that was answered before it was asked. A write that was
/// answered survives the end of the process and of power, unless its key is volatile (see [`crate::Config`]).
/// A write whose future is dropped, or that failed with [`StoreError::Unavailable`], may or may not have happened.
pub trait Store: Send + Sync + 'static {
    /// One key, now or as it was at a revision.
    ///
    /// # Errors
    /// [`StoreError::Compacted`], [`StoreError::Future`] of `at`.
    fn get(&self, key: &[u8], at: Option<Revision>) -> Answer<'_, Read>;

    /// The keys of a prefix in byte order, all of one revision.
    ///
    /// # Errors
    /// [`StoreError::Compacted`], [`StoreError::Future`] of [`List::at`].
    fn list(&self, list: List) -> Answer<'_, Page>;

    /// How many keys have this prefix.
    fn count(&self, prefix: &[u8]) -> Answer<'_, usize>;

    /// Writes a key if it was last changed at [`Put::expected`].
    ///
    /// # Errors
    /// [`StoreError::NoLease`]; [`StoreError::Key`] and [`StoreError::TooLarge`]; [`StoreError::NoSpace`]: nothing
    /// has changed.
    fn put(&self, put: Put) -> Answer<'_, Swap>;

    /// Deletes a key if it was last changed at `expected`.
    fn delete(&self, key: &[u8], expected: Revision) -> Answer<'_, Swap>;

    /// Every change of these keys from revision `from` on (now, unless given), once and in order.
    ///
    /// # Errors
    /// [`StoreError::Compacted`], here or from the watcher: changes from `from` on are history no longer; list anew.
    fn watch(&self, keys: Keys, from: Option<Revision>) -> Answer<'_, Box<dyn Watcher>>;

    /// Forgets what was replaced or deleted before `revision`.
    ///
    /// # Errors
    /// [`StoreError::Compacted`] when it already is, [`StoreError::Future`].
    fn compact(&self, revision: Revision) -> Answer<'_, ()>;

    /// A new lease. Its time may be longer than asked for, never shorter.
    fn grant(&self, ttl: Duration) -> Answer<'_, Lease>;

    /// Starts a lease's time anew.
    ///
    /// # Errors
    /// [`StoreError::NoLease`] when it has run out.
    fn keep_alive(&self, lease: LeaseId) -> Answer<'_, Lease>;

    /// What is left of a lease. Errors as [`Store::keep_alive`].
    fn lease(&self, lease: LeaseId) -> Answer<'_, Lease>;

    /// Ends a lease and deletes its keys, all at one revision. Running out does the same.
    fn revoke(&self, lease: LeaseId) -> Answer<'_, ()>;

    /// The present revision.
    fn revision(&self) -> Answer<'_, Revision>;

    /// Can [`Watcher::ask_progress`] be asked? Not of an etcd before 3.4.31 and 3.5.13, which may tell a revision
    /// before its changes (etcd issue 15220).
    fn tells_progress(&self) -> bool;
}

/// The receiving end of a watch; dropping it ends the watch.
pub trait Watcher: Send {
    /// What comes next. Cancel safe. After an error the watch is over.
    ///
    /// # Errors
    /// [`StoreError::Compacted`]: the reader was so slow that what it has not read is gone.
    fn next(&mut self) -> Answer<'_, Told>;

    /// Asks for a [`Told::Progress`] once all changes up to now are told. Asking twice may be answered once.
    ///
    /// # Errors
    /// [`StoreError::NoProgress`] where [`Store::tells_progress`] says so.
    fn ask_progress(&mut self) -> Answer<'_, ()>;
}

#[derive(Debug, Clone, PartialEq, Eq)]
pub struct KeyValue {
    pub key: Bytes,
    pub value: Bytes,
    pub create_revision: Revision,
    pub mod_revision: Revision,
    /// Writes since the key was made; 1 for a new one.
    pub version: i64,
    pub lease: Option<LeaseId>,
}

#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Read {
    pub kv: Option<Arc<KeyValue>>,
    /// The store's when this was read.
    pub revision: Revision,
}

/// Which page of which keys.
#[derive(Debug, Clone, Default)]
pub struct List {
    pub prefix: Bytes,
    /// The store as it was then; now unless given.
    pub at: Option<Revision>,
    /// At most so many; all unless given.
    pub limit: Option<usize>,
    /// Only keys behind this one: the last of the page before.
    pub after: Option<Bytes>,
}

impl List {
    pub fn new(prefix: impl Into<Bytes>) -> Self {
        Self { prefix: prefix.into(), ..Self::default() }
    }
}

#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Page {
    pub kvs: Vec<Arc<KeyValue>>,
    /// Keys from the beginning of this page on, of which `kvs` is the first part.
    pub count: usize,
    /// What `kvs` is a part of: [`List::at`], or the store's present one.
    pub revision: Revision,
}

impl Page {
    /// There are keys behind this page.
    pub fn more(&self) -> bool {
        self.count > self.kvs.len()
    }
}

#[derive(Debug, Clone)]
pub struct Put {
    pub key: Bytes,
    pub value: Bytes,
    /// The revision that the key was last changed at; 0: there is no such key.
    pub expected: Revision,
    pub lease: Option<LeaseId>,
}

impl Put {
    /// A key that is not there yet.
    pub fn create(key: impl Into<Bytes>, value: impl Into<Bytes>) -> Self {
        Self::update(key, value, 0)
    }

    pub fn update(key: impl Into<Bytes>, value: impl Into<Bytes>, expected: Revision) -> Self {
        Self { key: key.into(), value: value.into(), expected, lease: None }
    }

    #[must_use]
    pub fn lease(self, lease: Option<LeaseId>) -> Self {
        Self { lease, ..self }
    }
}

/// How a compare-and-swap went.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Swap {
    /// Done, at this revision.
    Done(Revision),
    /// Nothing was done: the key is as `current` says, at `revision` of the store.
    Changed { current: Option<Arc<KeyValue>>, revision: Revision },
}

impl Swap {
    /// The revision that it was done at.
    pub fn done(&self) -> Option<Revision> {
        match self {
            Self::Done(revision) => Some(*revision),
            Self::Changed { .. } => None,
        }
    }
}

/// Which keys a watch is about.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Keys {
    One(Bytes),
    /// All that begin so; the empty prefix is all keys.
    Prefix(Bytes),
}

impl Keys {
    pub fn contain(&self, key: &[u8]) -> bool {
        match self {
            Self::One(one) => one == key,
            Self::Prefix(prefix) => key.starts_with(prefix),
        }
    }
}

/// One change of one key.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Change {
    Put {
        kv: Arc<KeyValue>,
        /// `None`: the key is new (`version` is 1), or what was there before is compacted.
        previous: Option<Arc<KeyValue>>,
    },
    Delete {
        key: Bytes,
        revision: Revision,
        previous: Option<Arc<KeyValue>>,
    },
}

impl Change {
    pub fn key(&self) -> &Bytes {
        match self {
            Self::Put { kv, .. } => &kv.key,
            Self::Delete { key, .. } => key,
        }
    }

    pub fn revision(&self) -> Revision {
        match self {
            Self::Put { kv, .. } => kv.mod_revision,
            Self::Delete { revision, .. } => *revision,
        }
    }

    pub fn previous(&self) -> Option<&Arc<KeyValue>> {
        match self {
            Self::Put { previous, .. } | Self::Delete { previous, .. } => previous.as_ref(),
        }
    }
}

#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Told {
    /// At least one change, in order of their revisions. The changes of one revision are never apart.
    Changes(Vec<Arc<Change>>),
    /// All changes up to and with this revision are told.
    Progress(Revision),
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct LeaseId(NonZeroI64);

impl LeaseId {
    /// `None` for 0, which is no lease.
    pub fn of(number: i64) -> Option<Self> {
        NonZeroI64::new(number).map(Self)
    }

    pub fn number(self) -> i64 {
        self.0.get()
    }
}

impl fmt::Display for LeaseId {
    /// As etcdctl writes it.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{:x}", self.0)
    }
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Lease {
    pub id: LeaseId,
    /// Its whole time.
    pub granted: Duration,
    /// What is left of it.
    pub left: Duration,
}

pub(crate) fn check_key(key: &[u8]) -> Result<(), StoreError> {
    if key.is_empty() || key.len() > MAX_KEY_BYTES {
        return Err(StoreError::Key { bytes: key.len() });
    }
    Ok(())
}

pub(crate) fn check_put(put: &Put) -> Result<(), StoreError> {
    check_key(&put.key)?;
    if put.value.len() > MAX_VALUE_BYTES {
        return Err(StoreError::TooLarge { bytes: put.value.len() });
    }
    Ok(())
}
