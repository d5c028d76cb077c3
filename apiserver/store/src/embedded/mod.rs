//! The store in this process: one engine for all that it does, records kept by an [`Engine`].
//!
//! One thread writes ([`writer`]). Reads ask the index ([`index`]), under a lock that is held for no I/O, and take
//! values from memory or from the engine. Watches ([`watcher`]) get what is new from the hub ([`hub`]) and what is old
//! from the window of late changes ([`window`]) or the engine.

mod hub;
mod inbox;
mod index;
mod leases;
mod load;
mod reader;
#[cfg(test)]
mod tests;
mod watcher;
mod window;
mod writer;

use std::path::Path;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError, RwLock, RwLockReadGuard, RwLockWriteGuard};
use std::time::Duration;

use bytes::Bytes;
use tokio::sync::oneshot;

use crate::api::{
    Answer, Change, Keys, Lease, LeaseId, List, Page, Put, Read, Revision, Store, Swap, Watcher, check_key,
    check_put,
};
use crate::engine::memory::Memory;
use crate::engine::redb::{Redb, RedbOptions};
use crate::engine::{Engine, Lost};
use crate::{Image, StoreError};
use hub::Hub;
use inbox::Inbox;
use index::Index;
use window::Window;
use writer::{Reply, Request};

/// How an embedded store behaves.
#[derive(Debug, Clone)]
pub struct Config {
    /// Keys with these prefixes are answered before they are durable; a crash loses what was written within
    /// `volatile_delay`. Meant for events and node leases, which would otherwise be most of an idle cluster's syncs.
    pub volatile: Vec<Bytes>,
    pub volatile_delay: Duration,
    /// Values that are kept in memory; others are read from the engine.
    pub cache_bytes: usize,
}

impl Default for Config {
    /// Nothing is volatile; 5 s; 64 MiB.
    fn default() -> Self {
        Self { volatile: Vec::new(), volatile_delay: Duration::from_secs(5), cache_bytes: 64 << 20 }
    }
}

impl Config {
    fn is_volatile(&self, key: &[u8]) -> bool {
        self.volatile.iter().any(|prefix| key.starts_with(prefix))
    }
}

/// The store in this process. Clones share it; it ends with the last one, or when it is closed.
#[derive(Clone)]
pub struct Embedded {
    handle: Arc<Handle>,
}

/// Closes the store when the last user has gone; watches are none.
struct Handle {
    shared: Arc<Shared>,
}

impl Drop for Handle {
    fn drop(&mut self) {
        self.shared.inbox.close();
    }
}

struct Shared {
    state: RwLock<State>,
    hub: Mutex<Hub>,
    engine: Arc<dyn Engine>,
    inbox: Inbox<Request>,
    counters: Counters,
}

/// All that is seen.
struct State {
    index: Index,
    window: Window,
    revision: Revision,
    compacted: Revision,
    lost: Vec<Lost>,
}

#[derive(Default)]
struct Counters {
    commits: AtomicU64,
    writes: AtomicU64,
}

/// For metrics.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Statistics {
    pub revision: Revision,
    pub compacted: Revision,
    pub keys: usize,
    /// Of keys and values in all records, history too.
    pub live_bytes: u64,
    pub cached_bytes: usize,
    /// Watches that have heard all.
    pub watches: usize,
    /// Since the start.
    pub writes: u64,
    /// Durable steps; `writes / commits` is how many share one.
    pub commits: u64,
}

impl Counters {
    fn commit(&self) {
        self.commits.fetch_add(1, Ordering::Relaxed);
    }

    fn wrote(&self, count: usize) {
        self.writes.fetch_add(count as u64, Ordering::Relaxed);
    }
}

impl Embedded {
    /// A store that is gone with the process.
    pub fn memory(config: Config) -> Result<Self, StoreError> {
        Self::start(Arc::new(Memory::default()), config)
    }

    /// The store in this file, which is made when it is not there.
    ///
    /// # Errors
    /// [`StoreError::InUse`], [`StoreError::Foreign`], [`StoreError::Corrupted`], [`StoreError::NoSpace`].
    pub fn open(file: &Path, options: RedbOptions, config: Config) -> Result<Self, StoreError> {
        Self::start(Arc::new(Redb::open(file, options)?), config).map_err(|error| error.found_in(file))
    }

    /// A new memory store with what is in a snapshot.
    pub fn memory_from(image: &Image, config: Config) -> Result<Self, StoreError> {
        let engine = Arc::new(Memory::default());
        load::fill(&*engine, image)?;
        Self::start(engine, config)
    }

    /// Makes a new file with what is in a snapshot; revisions stay what they were. Either the whole file is there
    /// afterwards or none.
    ///
    /// # Errors
    /// [`StoreError::NotEmpty`] when there is a file.
    pub fn restore(file: &Path, image: &Image) -> Result<(), StoreError> {
        Redb::make(file, |engine| load::fill(engine, image))
    }

    /// Starts a store on what an engine has.
    pub fn start(engine: Arc<dyn Engine>, config: Config) -> Result<Self, StoreError> {
        let writer = load::load(engine, config)?;
        let shared = writer.shared.clone();
        std::thread::Builder::new().name("store".into()).spawn(move || writer.run()).map_err(|error| {
            StoreError::Refused(format!("cannot start the store's thread: {error} (a limit on tasks?)"))
        })?;
        Ok(Self { handle: Arc::new(Handle { shared }) })
    }

    /// Ends the store in order; what comes later gets [`StoreError::Closed`]. Watches end.
    pub async fn close(&self) -> Result<(), StoreError> {
        self.ask(Request::Close).await
    }

    pub fn statistics(&self) -> Statistics {
        let shared = &self.handle.shared;
        let watches = locked(&shared.hub).watches();
        let state = read(&shared.state);
        Statistics {
            revision: state.revision,
            compacted: state.compacted,
            keys: state.index.count(b""),
            live_bytes: state.index.live_bytes(),
            cached_bytes: state.index.cached_bytes(),
            watches,
            writes: shared.counters.writes.load(Ordering::Relaxed),
            commits: shared.counters.commits.load(Ordering::Relaxed),
        }
    }

    async fn ask<T>(&self, request: impl FnOnce(Reply<T>) -> Request) -> Result<T, StoreError> {
        let (reply, answer) = oneshot::channel();
        self.handle.shared.inbox.send(request(reply)).await?;
        answer.await.map_err(|_| StoreError::Closed)?
    }
}

impl Store for Embedded {
    fn get(&self, key: &[u8], at: Option<Revision>) -> Answer<'_, Read> {
        let key = Bytes::copy_from_slice(key);
        Box::pin(async move { self.handle.shared.get(&key, at) })
    }

    fn list(&self, list: List) -> Answer<'_, Page> {
        Box::pin(self.handle.shared.list(list))
    }

    fn count(&self, prefix: &[u8]) -> Answer<'_, usize> {
        let count = read(&self.handle.shared.state).index.count(prefix);
        Box::pin(std::future::ready(Ok(count)))
    }

    fn put(&self, put: Put) -> Answer<'_, Swap> {
        Box::pin(async move {
            check_put(&put)?;
            self.ask(|reply| Request::Put(put, reply)).await
        })
    }

    fn delete(&self, key: &[u8], expected: Revision) -> Answer<'_, Swap> {
        let key = Bytes::copy_from_slice(key);
        Box::pin(async move {
            check_key(&key)?;
            self.ask(|reply| Request::Delete(key, expected, reply)).await
        })
    }

    fn watch(&self, keys: Keys, from: Option<Revision>) -> Answer<'_, Box<dyn Watcher>> {
        let watch = watcher::Watch::open(&self.handle.shared, keys, from);
        Box::pin(std::future::ready(watch.map(|watch| Box::new(watch) as Box<dyn Watcher>)))
    }

    fn compact(&self, revision: Revision) -> Answer<'_, ()> {
        Box::pin(self.ask(move |reply| Request::Compact(revision, reply)))
    }

    fn grant(&self, ttl: Duration) -> Answer<'_, Lease> {
        Box::pin(self.ask(move |reply| Request::Grant(ttl, reply)))
    }

    fn keep_alive(&self, lease: LeaseId) -> Answer<'_, Lease> {
        Box::pin(self.ask(move |reply| Request::KeepAlive(lease, reply)))
    }

    fn lease(&self, lease: LeaseId) -> Answer<'_, Lease> {
        Box::pin(self.ask(move |reply| Request::Lease(lease, reply)))
    }

    fn revoke(&self, lease: LeaseId) -> Answer<'_, ()> {
        Box::pin(self.ask(move |reply| Request::Revoke(lease, reply)))
    }

    fn revision(&self) -> Answer<'_, Revision> {
        let revision = read(&self.handle.shared.state).revision;
        Box::pin(std::future::ready(Ok(revision)))
    }

    fn tells_progress(&self) -> bool {
        true
    }
}

impl Shared {
    fn publish<'a>(&self, changes: impl Iterator<Item = &'a Arc<Change>>, revision: Revision) {
        let mut hub = locked(&self.hub);
        for change in changes {
            hub.publish(change);
        }
        hub.published = revision;
    }
}

// A thread that panicked ends the program (panic = "abort"); in tests what it left is still whole, since nothing
// between two fields that belong together can panic.
fn locked<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

fn read<T>(lock: &RwLock<T>) -> RwLockReadGuard<'_, T> {
    lock.read().unwrap_or_else(PoisonError::into_inner)
}

fn write<T>(lock: &RwLock<T>) -> RwLockWriteGuard<'_, T> {
    lock.write().unwrap_or_else(PoisonError::into_inner)
}
