//! The one thread that changes the store. Requests that wait together become durable together (one sync), and are seen
//! and answered only then.
//!
//! Volatile changes (see [`super::Config`]) are seen and answered at once and wait in `tail` for the next batch that
//! is made durable, or for the delay. Their revisions lie below a ceiling that is durable already, so that a crash
//! cannot bring a revision back with another meaning.

use std::collections::HashMap;
use std::sync::Arc;
use std::time::{Duration, Instant};

use bytes::Bytes;
use tokio::sync::oneshot;

use super::leases::Leases;
use super::window::Committed;
use super::{Config, Shared, locked, read, write};
use crate::StoreError;
use crate::api::{Change, KeyValue, Lease, LeaseId, Put, Revision, Swap};
use crate::engine::{Batch, Meta, Record};

pub type Reply<T> = oneshot::Sender<Result<T, StoreError>>;

pub enum Request {
    Put(Put, Reply<Swap>),
    Delete(Bytes, Revision, Reply<Swap>),
    Compact(Revision, Reply<()>),
    Grant(Duration, Reply<Lease>),
    KeepAlive(LeaseId, Reply<Lease>),
    Lease(LeaseId, Reply<Lease>),
    Revoke(LeaseId, Reply<()>),
    Close(Reply<()>),
}

/// Requests that become durable together.
const MAX_BATCH: usize = 512;
/// Their values together.
const MAX_BATCH_BYTES: usize = 16 << 20;
/// Volatile changes that are not durable yet.
const MAX_TAIL: usize = 4096;
const MAX_TAIL_BYTES: usize = 4 << 20;
/// Revisions that may be told before they are durable.
const RESERVE: Revision = 10_000;
/// Records that go with one batch after a compaction; more would make its writers wait.
const MAX_REMOVED: usize = 2000;

pub struct Writer {
    pub shared: Arc<Shared>,
    pub config: Config,
    pub leases: Leases,
    /// As it is on disk.
    pub meta: Meta,
    /// The last revision that is seen.
    pub revision: Revision,
    pub tail: Tail,
    /// Records that a compaction made superfluous.
    pub removable: Vec<Revision>,
}

/// Seen, but not durable.
#[derive(Default)]
pub struct Tail {
    records: Vec<(Revision, Arc<Record>)>,
    leases: Vec<(LeaseId, Option<Duration>)>,
    bytes: usize,
    /// When it is to be made durable.
    due: Option<Instant>,
}

/// Decided, but neither durable nor seen.
#[derive(Default)]
struct Pending {
    steps: Vec<(Arc<Record>, Vec<Arc<Change>>)>,
    /// What the keys in it become.
    keys: HashMap<Bytes, Option<Arc<KeyValue>>>,
    answers: Vec<(Reply<Swap>, Swap)>,
    bytes: usize,
    durable: bool,
}

impl Writer {
    /// From here on the engine's records say that the store is in use.
    pub fn begin(&mut self) -> Result<(), StoreError> {
        self.make_durable(std::iter::empty(), self.revision)?;
        self.shrink();
        Ok(())
    }

    pub fn run(mut self) {
        let mut pending = Pending::default();
        while let Some(requests) = self.shared.inbox.take(MAX_BATCH, self.due()) {
            for request in requests {
                if pending.bytes > MAX_BATCH_BYTES {
                    self.commit(std::mem::take(&mut pending));
                }
                match request {
                    Request::Put(put, reply) => self.put(&mut pending, put, reply),
                    Request::Delete(key, expected, reply) => self.delete(&mut pending, key, expected, reply),
                    other => {
                        self.commit(std::mem::take(&mut pending));
                        if self.barrier(other) {
                            return;
                        }
                    }
                }
            }
            self.commit(std::mem::take(&mut pending));
            self.tick();
        }
        if let Err(error) = self.close() {
            tracing::error!(%error, "the store was not closed in order");
        }
    }

    fn due(&self) -> Option<Instant> {
        [self.tail.due, self.leases.next_deadline()].into_iter().flatten().min()
    }

    /// What needs all before it done. True: the store is closed.
    fn barrier(&mut self, request: Request) -> bool {
        let now = Instant::now();
        match request {
            Request::Put(..) | Request::Delete(..) => unreachable!("are batched"),
            Request::Compact(revision, reply) => drop(reply.send(self.compact(revision))),
            Request::Grant(ttl, reply) => {
                let lease = self.leases.grant(ttl, now);
                self.tail.leases.push((lease.id, Some(lease.granted)));
                self.delay();
                drop(reply.send(Ok(lease)));
            }
            Request::KeepAlive(id, reply) => {
                drop(reply.send(self.leases.keep_alive(id, now).ok_or(StoreError::NoLease(id))));
            }
            Request::Lease(id, reply) => {
                drop(reply.send(self.leases.get(id, now).ok_or(StoreError::NoLease(id))));
            }
            Request::Revoke(id, reply) => drop(reply.send(self.revoke(id))),
            Request::Close(reply) => {
                drop(reply.send(self.close()));
                return true;
            }
        }
        false
    }

    fn put(&self, pending: &mut Pending, put: Put, reply: Reply<Swap>) {
        if let Some(lease) = put.lease.filter(|lease| !self.leases.has(*lease)) {
            return drop(reply.send(Err(StoreError::NoLease(lease))));
        }
        let current = match self.current(pending, &put.key) {
            Ok(current) => current,
            Err(error) => return drop(reply.send(Err(error))),
        };
        let before = current.as_ref().map_or(0, |kv| kv.mod_revision);
        if before != put.expected {
            return pending.answers.push((reply, self.changed(pending, current)));
        }
        let revision = self.revision + 1 + pending.steps.len() as Revision;
        let kv = Arc::new(KeyValue {
            key: put.key,
            value: put.value,
            create_revision: current.as_ref().map_or(revision, |kv| kv.create_revision),
            mod_revision: revision,
            version: current.as_ref().map_or(1, |kv| kv.version + 1),
            lease: put.lease,
        });
        pending.durable |= !self.config.is_volatile(&kv.key);
        pending.keys.insert(kv.key.clone(), Some(kv.clone()));
        pending.answers.push((reply, Swap::Done(revision)));
        let record = Record::Put { kv: kv.clone(), previous: before };
        pending.push(record, vec![Arc::new(Change::Put { kv, previous: current })]);
    }

    fn delete(&self, pending: &mut Pending, key: Bytes, expected: Revision, reply: Reply<Swap>) {
        let current = match self.current(pending, &key) {
            Ok(current) => current,
            Err(error) => return drop(reply.send(Err(error))),
        };
        let Some(previous) = current.as_ref().filter(|kv| kv.mod_revision == expected).cloned() else {
            return pending.answers.push((reply, self.changed(pending, current)));
        };
        let revision = self.revision + 1 + pending.steps.len() as Revision;
        pending.durable |= !self.config.is_volatile(&key);
        pending.keys.insert(key.clone(), None);
        pending.answers.push((reply, Swap::Done(revision)));
        let record = Record::Delete(vec![(key.clone(), expected)]);
        pending.push(record, vec![Arc::new(Change::Delete { key, revision, previous: Some(previous) })]);
    }

    fn changed(&self, pending: &Pending, current: Option<Arc<KeyValue>>) -> Swap {
        Swap::Changed { current, revision: self.revision + pending.steps.len() as Revision }
    }

    /// A key as it will be after what is pending.
    fn current(&self, pending: &Pending, key: &[u8]) -> Result<Option<Arc<KeyValue>>, StoreError> {
        match pending.keys.get(key) {
            Some(current) => Ok(current.clone()),
            None => self.shared.present(key),
        }
    }

    /// Makes what is pending durable if it has to be, shows it, and answers.
    fn commit(&mut self, pending: Pending) {
        let outcome = self.store(&pending);
        for (reply, swap) in pending.answers {
            // Who has gone does not need to know.
            drop(reply.send(outcome.clone().map(|()| swap)));
        }
        if outcome.is_ok() {
            self.shared.publish(pending.steps.iter().flat_map(|(_, changes)| changes), self.revision);
        }
    }

    fn store(&mut self, pending: &Pending) -> Result<(), StoreError> {
        if pending.steps.is_empty() {
            return Ok(());
        }
        let first = self.revision + 1;
        let last = self.revision + pending.steps.len() as Revision;
        let records = (first..).zip(pending.steps.iter().map(|(record, _)| record.clone()));
        if pending.durable || last > self.meta.ceiling || self.tail.is_full() {
            self.make_durable(records, last)?;
        } else {
            self.tail.bytes += pending.bytes;
            self.tail.records.extend(records);
            self.delay();
        }
        self.show(pending);
        Ok(())
    }

    fn delay(&mut self) {
        self.tail.due.get_or_insert_with(|| Instant::now() + self.config.volatile_delay);
    }

    /// The tail, then `records`, in one step; with it goes what a compaction left.
    fn make_durable(
        &mut self,
        records: impl Iterator<Item = (Revision, Arc<Record>)>,
        revision: Revision,
    ) -> Result<(), StoreError> {
        let meta = Meta { revision, ceiling: revision + RESERVE, ..self.meta.clone() };
        let removed = self.removable[self.removable.len().saturating_sub(MAX_REMOVED)..].to_vec();
        let mut all = self.tail.records.clone();
        all.extend(records);
        let batch = Batch { meta, records: all, removed, leases: self.tail.leases.clone() };
        if let Err(error) = self.shared.engine.commit(&batch) {
            // Nothing is lost: the tail stays, and is tried again.
            if self.tail.due.is_some() {
                self.tail.due = Some(Instant::now() + self.config.volatile_delay);
            }
            return Err(error);
        }
        self.removable.truncate(self.removable.len() - batch.removed.len());
        self.meta = batch.meta;
        self.tail = Tail::default();
        if !self.removable.is_empty() {
            self.tail.due = Some(Instant::now() + Duration::from_millis(50));
        }
        self.shared.counters.commit();
        Ok(())
    }

    /// From here on it is seen.
    fn show(&mut self, pending: &Pending) {
        let mut state = write(&self.shared.state);
        for (record, changes) in &pending.steps {
            self.revision += 1;
            state.index.apply(self.revision, record);
            state
                .window
                .push(Committed { revision: self.revision, changes: changes.clone() }, self.meta.revision);
            for change in changes {
                let before = change.previous().and_then(|kv| kv.lease);
                let after = match &**change {
                    Change::Put { kv, .. } => kv.lease,
                    Change::Delete { .. } => None,
                };
                self.leases.attach(change.key(), before, after);
            }
        }
        state.revision = self.revision;
        drop(state);
        self.shared.counters.wrote(pending.steps.len());
    }

    fn tick(&mut self) {
        let now = Instant::now();
        while let Some(lease) = self.leases.run_out(now) {
            if let Err(error) = self.revoke(lease) {
                tracing::warn!(%lease, %error, "a lease has run out but its keys cannot be deleted yet");
                self.leases.keep_alive(lease, now);
                break;
            }
        }
        if self.tail.due.is_some_and(|due| due <= now) {
            let removes = !self.removable.is_empty();
            match self.make_durable(std::iter::empty(), self.revision) {
                Ok(()) if removes && self.removable.is_empty() => self.shrink(),
                Ok(()) => {}
                Err(error) => tracing::warn!(%error, "volatile changes cannot be made durable yet"),
            }
        }
    }

    /// All keys of a lease go at one revision.
    fn revoke(&mut self, lease: LeaseId) -> Result<(), StoreError> {
        if !self.leases.has(lease) {
            return Err(StoreError::NoLease(lease));
        }
        let mut pending = Pending::default();
        let (mut keys, mut changes) = (Vec::new(), Vec::new());
        let revision = self.revision + 1;
        for key in self.leases.keys(lease) {
            let Some(previous) = self.shared.present(key)? else { continue };
            pending.durable |= !self.config.is_volatile(key);
            keys.push((key.clone(), previous.mod_revision));
            changes.push(Arc::new(Change::Delete { key: key.clone(), revision, previous: Some(previous) }));
        }
        if !keys.is_empty() {
            pending.push(Record::Delete(keys), changes);
        }
        self.tail.leases.push((lease, None));
        if let Err(error) = self.store(&pending) {
            self.tail.leases.pop();
            return Err(error);
        }
        self.leases.remove(lease);
        if !self.tail.leases.is_empty() {
            self.delay();
        }
        self.shared.publish(pending.steps.iter().flat_map(|(_, changes)| changes), self.revision);
        Ok(())
    }

    fn compact(&mut self, revision: Revision) -> Result<(), StoreError> {
        if revision <= self.meta.compacted {
            return Err(StoreError::Compacted { asked: revision, oldest: self.meta.compacted });
        }
        if revision > self.revision {
            return Err(StoreError::Future { asked: revision });
        }
        let before = self.meta.clone();
        self.meta.compacted = revision;
        self.meta.lost.retain(|lost| lost.last > revision);
        if let Err(error) = self.make_durable(std::iter::empty(), self.revision) {
            self.meta = before;
            return Err(error);
        }
        let mut state = write(&self.shared.state);
        state.compacted = revision;
        state.lost.clone_from(&self.meta.lost);
        self.removable.extend(state.index.compact(revision));
        drop(state);
        if !self.removable.is_empty() {
            self.delay();
        }
        Ok(())
    }

    fn shrink(&self) {
        let live_bytes = read(&self.shared.state).index.live_bytes();
        if let Err(error) = self.shared.engine.shrink(live_bytes) {
            tracing::warn!(%error, "the store's file stays larger than it need be");
        }
    }

    /// In order: what is told is durable, and no revision is left out at the next start.
    fn close(&mut self) -> Result<(), StoreError> {
        self.shared.inbox.close();
        locked(&self.shared.hub).close();
        let meta = Meta { revision: self.revision, ceiling: self.revision, ..self.meta.clone() };
        let tail = std::mem::take(&mut self.tail);
        let batch = Batch { meta, records: tail.records, removed: Vec::new(), leases: tail.leases };
        let committed = self.shared.engine.commit(&batch);
        committed.and(self.shared.engine.close())
    }
}

impl Pending {
    fn push(&mut self, record: Record, changes: Vec<Arc<Change>>) {
        self.bytes += record.bytes();
        self.steps.push((Arc::new(record), changes));
    }
}

impl Tail {
    fn is_full(&self) -> bool {
        self.records.len() >= MAX_TAIL || self.bytes >= MAX_TAIL_BYTES
    }
}
