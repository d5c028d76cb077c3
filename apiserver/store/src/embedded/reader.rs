//! Reads: found in the index, taken from memory or from the engine.

use std::sync::Arc;

use super::index::Located;
use super::{Shared, State, read, write};
use crate::StoreError;
use crate::api::{KeyValue, List, Page, Read, Revision};
use crate::engine::Record;

/// Values that a task may read from the engine by itself; more are read on a thread for blocking work.
const FEW: usize = 8;

impl State {
    /// The revision to read at.
    pub fn at(&self, asked: Option<Revision>) -> Result<Revision, StoreError> {
        let Some(asked) = asked else { return Ok(self.revision) };
        if asked > self.revision {
            return Err(StoreError::Future { asked });
        }
        if asked < self.compacted {
            return Err(StoreError::Compacted { asked, oldest: self.compacted });
        }
        // The last of the lost is what the store was at after the crash.
        match self.lost.iter().find(|lost| lost.first <= asked && asked < lost.last) {
            Some(lost) => Err(StoreError::Compacted { asked, oldest: lost.last }),
            None => Ok(asked),
        }
    }

    /// May a watch begin here?
    pub fn from(&self, asked: Revision) -> Result<(), StoreError> {
        if asked < self.compacted {
            return Err(StoreError::Compacted { asked, oldest: self.compacted });
        }
        // Who asks for the first of the lost has seen none of them.
        match self.lost.iter().find(|lost| lost.first < asked && asked <= lost.last) {
            Some(lost) => Err(StoreError::Compacted { asked, oldest: lost.last }),
            None => Ok(()),
        }
    }

    /// From the window, if it is there: what is not durable is nowhere else.
    fn nearer(&self, located: Located) -> Located {
        match located {
            Located::At(key, revision) => match self.window.find(&key, revision) {
                Some(kv) => Located::Here(kv),
                None => Located::At(key, revision),
            },
            here @ Located::Here(_) => here,
        }
    }
}

impl Shared {
    pub fn get(&self, key: &[u8], at: Option<Revision>) -> Result<Read, StoreError> {
        loop {
            let state = read(&self.state);
            let revision = state.revision;
            let at_revision = state.at(at)?;
            let located = state.index.find(key, at_revision).map(|located| state.nearer(located));
            drop(state);
            let kv = match located {
                None => None,
                Some(Located::Here(kv)) => Some(kv),
                Some(Located::At(_, record)) => match self.fetch(&[record])?.pop().flatten() {
                    Some(kv) => Some(self.keep(kv)),
                    // Compacted meanwhile: look again, `at` tells.
                    None => continue,
                },
            };
            return Ok(Read { kv, revision });
        }
    }

    /// A key as it is; for the writer.
    pub fn present(&self, key: &[u8]) -> Result<Option<Arc<KeyValue>>, StoreError> {
        Ok(self.get(key, None)?.kv)
    }

    pub async fn list(self: &Arc<Self>, list: List) -> Result<Page, StoreError> {
        loop {
            let (located, count, revision) = self.locate(&list)?;
            let cold: Vec<_> = located
                .iter()
                .filter_map(|located| match located {
                    Located::At(_, record) => Some(*record),
                    Located::Here(_) => None,
                })
                .collect();
            let fetched = if cold.len() <= FEW {
                self.fetch(&cold)?
            } else {
                let shared = self.clone();
                let fetch = tokio::task::spawn_blocking(move || shared.fetch(&cold));
                fetch.await.map_err(|_| StoreError::Closed)??
            };
            let mut fetched = fetched.into_iter();
            let kvs = located.into_iter().map(|located| match located {
                Located::Here(kv) => Some(kv),
                Located::At(..) => fetched.next().flatten().map(|kv| self.keep(kv)),
            });
            // One that is missing was compacted meanwhile: look again.
            if let Some(kvs) = kvs.collect() {
                return Ok(Page { kvs, count, revision });
            }
        }
    }

    /// Where the values of a page are; how many keys there are; at which revision.
    fn locate(&self, list: &List) -> Result<(Vec<Located>, usize, Revision), StoreError> {
        let state = read(&self.state);
        let revision = state.at(list.at)?;
        let limit = list.limit.unwrap_or(usize::MAX);
        let (located, count) = state.index.page(&list.prefix, list.after.as_ref(), revision, limit);
        Ok((located.into_iter().map(|located| state.nearer(located)).collect(), count, revision))
    }

    /// The values that records hold; `None`: removed.
    pub fn fetch(&self, records: &[Revision]) -> Result<Vec<Option<Arc<KeyValue>>>, StoreError> {
        if records.is_empty() {
            return Ok(Vec::new());
        }
        let kv = |record: Option<Arc<Record>>| match record.as_deref() {
            Some(Record::Put { kv, .. }) => Some(kv.clone()),
            _ => None,
        };
        Ok(self.engine.read(records)?.into_iter().map(kv).collect())
    }

    fn keep(&self, kv: Arc<KeyValue>) -> Arc<KeyValue> {
        write(&self.state).index.cache(&kv);
        kv
    }
}
