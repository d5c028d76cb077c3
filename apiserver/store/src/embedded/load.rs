//! The start of a store: index and leases from the records, which are checked against each other; and the making of a
//! store from a snapshot.

use std::collections::HashMap;
use std::path::PathBuf;
use std::sync::{Arc, Mutex, RwLock};
use std::time::Instant;

use bytes::Bytes;

use super::hub::Hub;
use super::inbox::Inbox;
use super::index::Index;
use super::leases::Leases;
use super::window::Window;
use super::writer::{Tail, Writer};
use super::{Config, Counters, Shared, State};
use crate::api::{LeaseId, Revision};
use crate::engine::{Batch, Engine, Loaded, Lost, Meta, Record};
use crate::{Image, StoreError};

pub fn load(engine: Arc<dyn Engine>, config: Config) -> Result<Writer, StoreError> {
    let mut loading = Loading { index: Index::new(config.cache_bytes), ..Loading::default() };
    engine.load(&mut |loaded| loading.take(loaded).map_err(damaged))?;
    loading.end().map_err(damaged)?;
    let Loading { mut meta, mut index, leases, attached, .. } = loading;

    let mut held = Leases::default();
    let now = Instant::now();
    for (lease, granted) in leases {
        held.insert(lease, granted, now);
    }
    for (key, lease) in attached {
        held.attach(&key, None, Some(lease));
    }
    // Not closed in order: revisions up to the ceiling may have been told, of volatile changes that are gone.
    if meta.ceiling > meta.revision {
        meta.lost.push(Lost { first: meta.revision + 1, last: meta.ceiling });
        meta.revision = meta.ceiling;
    }
    let removable = index.compact(meta.compacted);
    let state = State {
        index,
        window: Window::new(meta.revision + 1),
        revision: meta.revision,
        compacted: meta.compacted,
        lost: meta.lost.clone(),
    };
    let shared = Arc::new(Shared {
        hub: Mutex::new(Hub::new(meta.revision)),
        state: RwLock::new(state),
        engine,
        inbox: Inbox::new(),
        counters: Counters::default(),
    });
    let revision = meta.revision;
    let mut writer =
        Writer { shared, config, leases: held, meta, revision, tail: Tail::default(), removable };
    writer.begin()?;
    Ok(writer)
}

fn damaged(what: String) -> StoreError {
    // Who opened the file puts its name there.
    StoreError::Corrupted { file: PathBuf::new(), what }
}

#[derive(Default)]
struct Loading {
    meta: Meta,
    index: Index,
    leases: HashMap<LeaseId, std::time::Duration>,
    attached: HashMap<Bytes, LeaseId>,
    last: Revision,
}

impl Loading {
    fn take(&mut self, loaded: Loaded) -> Result<(), String> {
        match loaded {
            Loaded::Meta(meta) => self.meta = meta,
            Loaded::Lease(lease, granted) => drop(self.leases.insert(lease, granted)),
            Loaded::Record(revision, record) => {
                self.follows(revision)?;
                self.check(revision, &record)?;
                self.index.apply(revision, &record);
                self.attach(&record);
            }
        }
        Ok(())
    }

    fn attach(&mut self, record: &Record) {
        match record {
            Record::Put { kv, .. } => match kv.lease {
                Some(lease) => {
                    self.attached.insert(kv.key.clone(), lease);
                }
                None => {
                    self.attached.remove(&kv.key);
                }
            },
            Record::Delete(keys) => {
                for (key, _) in keys {
                    self.attached.remove(key);
                }
            }
        }
    }

    /// Since the compacted revision there is a record for each revision, but those that a crash left out.
    fn follows(&mut self, revision: Revision) -> Result<(), String> {
        if revision > self.meta.revision {
            return Err(format!(
                "it has a record of revision {revision}, beyond its last, {}",
                self.meta.revision
            ));
        }
        let mut missing = self.last.max(self.meta.compacted).max(1) + 1;
        self.last = revision;
        while missing < revision {
            match self.meta.lost.iter().find(|lost| lost.first <= missing && missing <= lost.last) {
                Some(lost) => missing = lost.last + 1,
                None => return Err(format!("the record of revision {missing} is missing")),
            }
        }
        Ok(())
    }

    /// What a record replaces is what its key was.
    fn check(&self, revision: Revision, record: &Record) -> Result<(), String> {
        if revision <= self.meta.compacted {
            return Ok(());
        }
        let check = |key: &Bytes, previous: Revision| {
            let there = self.index.last(key).filter(|(_, live)| *live).map_or(0, |(revision, _)| revision);
            if there == previous {
                return Ok(());
            }
            let key = key.escape_ascii();
            Err(format!("revision {revision} of {key} replaces {previous}, but before it is {there}"))
        };
        match record {
            Record::Put { kv, previous } => check(&kv.key, *previous),
            Record::Delete(keys) => keys.iter().try_for_each(|(key, previous)| check(key, *previous)),
        }
    }

    fn end(&mut self) -> Result<(), String> {
        let end = self.meta.revision + 1;
        let last = self.last;
        self.meta.revision += 1;
        let followed = self.follows(end);
        self.meta.revision -= 1;
        self.last = last;
        followed
    }
}

/// Puts a snapshot into an engine that has nothing.
pub fn fill(engine: &dyn Engine, image: &Image) -> Result<(), StoreError> {
    const STEP: usize = 1000;
    let mut kvs: Vec<_> = image.kvs.iter().collect();
    kvs.sort_unstable_by_key(|kv| kv.mod_revision);
    let revision = image.revision;
    // What was before is not in a snapshot.
    let meta = Meta { revision, ceiling: revision, compacted: revision, lost: Vec::new() };
    let leases = image.leases.iter().map(|(lease, granted)| (*lease, Some(*granted))).collect();
    engine.commit(&Batch { meta: meta.clone(), leases, ..Batch::default() })?;
    for kvs in kvs.chunks(STEP) {
        let record = |kv: &Arc<_>| Arc::new(Record::Put { kv: Arc::clone(kv), previous: 0 });
        let records = kvs.iter().map(|kv| (kv.mod_revision, record(kv))).collect();
        engine.commit(&Batch { meta: meta.clone(), records, ..Batch::default() })?;
    }
    Ok(())
}
