//! Which key has which revisions, and the present values that fit into memory.
//!
//! The index is all that reads need to find a record; it is rebuilt from the records at start. Values are kept up to a
//! budget, the others are read from the engine.

use std::collections::{BTreeMap, VecDeque};
use std::ops::Bound;
use std::sync::Arc;

use bytes::Bytes;

use crate::api::{KeyValue, Revision};
use crate::engine::Record;

#[derive(Default)]
pub struct Index {
    keys: BTreeMap<Bytes, History>,
    /// What can be removed once compaction has reached `by`; in that order.
    replaced: VecDeque<Replaced>,
    live_bytes: u64,
    cached_bytes: usize,
    budget_bytes: usize,
    /// The last key whose value was let go.
    hand: Bytes,
}

struct History {
    /// In order of revision. Empty for most keys after a compaction.
    older: Vec<Version>,
    last: Version,
    /// The value of `last`.
    cached: Option<Arc<KeyValue>>,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
struct Version {
    revision: Revision,
    /// Or deleted by this revision.
    live: bool,
    /// Of its record.
    bytes: u32,
}

struct Replaced {
    by: Revision,
    revision: Revision,
    key: Bytes,
    bytes: u32,
}

/// Where the value of a key is.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Located {
    Here(Arc<KeyValue>),
    /// In the record of this revision.
    At(Bytes, Revision),
}

impl Index {
    pub fn new(budget_bytes: usize) -> Self {
        Self { budget_bytes, ..Self::default() }
    }

    /// The bytes of keys and values in all records.
    pub fn live_bytes(&self) -> u64 {
        self.live_bytes
    }

    pub fn cached_bytes(&self) -> usize {
        self.cached_bytes
    }

    /// The revision at which a key was last changed, and whether it is there since.
    pub fn last(&self, key: &[u8]) -> Option<(Revision, bool)> {
        self.keys.get(key).map(|history| (history.last.revision, history.last.live))
    }

    /// A key as it was at a revision that is not compacted.
    pub fn find(&self, key: &[u8], at: Revision) -> Option<Located> {
        let (key, history) = self.keys.get_key_value(key)?;
        history.at(key, at)
    }

    /// The first `limit` keys of a prefix behind `after`, and how many there are without limit.
    pub fn page(
        &self,
        prefix: &[u8],
        after: Option<&Bytes>,
        at: Revision,
        limit: usize,
    ) -> (Vec<Located>, usize) {
        let start = match after {
            Some(after) if &after[..] >= prefix => Bound::Excluded(&after[..]),
            _ => Bound::Included(prefix),
        };
        let range = self.keys.range::<[u8], _>((start, Bound::Unbounded));
        let mut page = Vec::new();
        let mut count = 0;
        for (key, history) in range.take_while(|(key, _)| key.starts_with(prefix)) {
            if page.len() < limit {
                page.extend(history.at(key, at));
                count = page.len();
            } else if history.is_live(at) {
                count += 1;
            }
        }
        (page, count)
    }

    pub fn count(&self, prefix: &[u8]) -> usize {
        let range = self.keys.range::<[u8], _>((Bound::Included(prefix), Bound::Unbounded));
        range.take_while(|(key, _)| key.starts_with(prefix)).filter(|(_, history)| history.last.live).count()
    }

    /// Takes in what happened at a revision, which is the highest so far.
    pub fn apply(&mut self, revision: Revision, record: &Record) {
        self.live_bytes += match record {
            Record::Put { kv, .. } => (kv.key.len() + kv.value.len()) as u64,
            Record::Delete(keys) => keys.iter().map(|(key, _)| key.len() as u64).sum(),
        };
        match record {
            Record::Put { kv, .. } => self.put(kv),
            Record::Delete(keys) => {
                for (key, _) in keys {
                    self.delete(key, revision);
                }
                // After all that it replaces: the queue is in order of `by`. A watch from the compacted revision
                // itself is answered, so what was deleted then stays.
                self.replaced.extend(keys.iter().map(|(key, _)| Replaced {
                    by: revision + 1,
                    revision,
                    key: key.clone(),
                    bytes: key.len() as u32,
                }));
            }
        }
    }

    fn put(&mut self, kv: &Arc<KeyValue>) {
        let last =
            Version { revision: kv.mod_revision, live: true, bytes: (kv.key.len() + kv.value.len()) as u32 };
        if let Some(history) = self.keys.get_mut(&kv.key) {
            self.cached_bytes -= history.cached_bytes();
            self.replaced.extend(history.replace(&kv.key, last, Some(kv.clone())));
        } else {
            let history = History { older: Vec::new(), last, cached: Some(kv.clone()) };
            self.keys.insert(kv.key.clone(), history);
        }
        self.cached_bytes += kv.value.len();
        self.stay_in_budget();
    }

    fn delete(&mut self, key: &Bytes, revision: Revision) {
        if let Some(history) = self.keys.get_mut(key) {
            self.cached_bytes -= history.cached_bytes();
            self.replaced.extend(history.replace(
                key,
                Version { revision, live: false, bytes: key.len() as u32 },
                None,
            ));
        }
    }

    /// Keeps a value that was read, if it is still the key's.
    pub fn cache(&mut self, kv: &Arc<KeyValue>) {
        let Some(history) = self.keys.get_mut(&kv.key) else { return };
        if history.last.revision == kv.mod_revision && history.cached.is_none() {
            history.cached = Some(kv.clone());
            self.cached_bytes += kv.value.len();
            self.stay_in_budget();
        }
    }

    /// Lets values go, in the order of keys and round again.
    fn stay_in_budget(&mut self) {
        let mut rounds = 0;
        while self.cached_bytes > self.budget_bytes && rounds < 2 {
            let start = Bound::Excluded(std::mem::take(&mut self.hand));
            let mut hand = None;
            for (key, history) in self.keys.range_mut((start, Bound::Unbounded)) {
                self.cached_bytes -= history.cached_bytes();
                history.cached = None;
                if self.cached_bytes <= self.budget_bytes {
                    hand = Some(key.clone());
                    break;
                }
            }
            self.hand = hand.unwrap_or_default();
            rounds += 1;
        }
    }

    /// Forgets what was replaced before `revision`; answers which records nobody needs any more.
    pub fn compact(&mut self, revision: Revision) -> Vec<Revision> {
        let end = self.replaced.partition_point(|replaced| replaced.by <= revision);
        let mut removed = Vec::with_capacity(end);
        for Replaced { revision, key, bytes, .. } in self.replaced.drain(..end) {
            removed.push(revision);
            self.live_bytes = self.live_bytes.saturating_sub(bytes.into());
            if let Some(history) = self.keys.get_mut(&key) {
                history.older.retain(|version| version.revision > revision);
                if history.last.revision == revision && !history.last.live {
                    self.keys.remove(&key);
                }
            }
        }
        removed.dedup();
        removed
    }
}

impl History {
    fn at(&self, key: &Bytes, at: Revision) -> Option<Located> {
        if self.last.revision > at {
            let version = self.older.iter().rev().find(|version| version.revision <= at)?;
            return version.live.then(|| Located::At(key.clone(), version.revision));
        }
        if !self.last.live {
            return None;
        }
        Some(match &self.cached {
            Some(kv) => Located::Here(kv.clone()),
            None => Located::At(key.clone(), self.last.revision),
        })
    }

    fn is_live(&self, at: Revision) -> bool {
        if self.last.revision <= at {
            return self.last.live;
        }
        self.older.iter().rev().find(|version| version.revision <= at).is_some_and(|version| version.live)
    }

    /// What is replaced can be removed one day; a tombstone is by itself already.
    fn replace(&mut self, key: &Bytes, last: Version, cached: Option<Arc<KeyValue>>) -> Option<Replaced> {
        let before = std::mem::replace(&mut self.last, last);
        self.cached = cached;
        self.older.push(before);
        let Version { revision, live, bytes } = before;
        live.then(|| Replaced { by: last.revision, revision, key: key.clone(), bytes })
    }

    fn cached_bytes(&self) -> usize {
        self.cached.as_ref().map_or(0, |kv| kv.value.len())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn put(index: &mut Index, key: &'static str, revision: Revision) {
        let kv = KeyValue {
            key: key.into(),
            value: vec![0; 10].into(),
            create_revision: revision,
            mod_revision: revision,
            version: 1,
            lease: None,
        };
        index.apply(revision, &Record::Put { kv: Arc::new(kv), previous: 0 });
    }

    fn delete(index: &mut Index, keys: &[&'static str], revision: Revision) {
        index.apply(revision, &Record::Delete(keys.iter().map(|key| ((*key).into(), 0)).collect()));
    }

    fn keys(index: &Index, at: Revision) -> Vec<(Bytes, Revision)> {
        let (page, count) = index.page(b"", None, at, usize::MAX);
        assert_eq!(page.len(), count);
        page.into_iter()
            .map(|located| match located {
                Located::Here(kv) => (kv.key.clone(), kv.mod_revision),
                Located::At(key, revision) => (key, revision),
            })
            .collect()
    }

    #[test]
    fn every_revision_shows_what_was_there_then() {
        let mut index = Index::new(1000);
        put(&mut index, "a", 2);
        put(&mut index, "b", 3);
        put(&mut index, "a", 4);
        delete(&mut index, &["a", "b"], 5);
        put(&mut index, "b", 6);
        assert_eq!(keys(&index, 1), []);
        assert_eq!(keys(&index, 3), [("a".into(), 2), ("b".into(), 3)]);
        assert_eq!(keys(&index, 4), [("a".into(), 4), ("b".into(), 3)]);
        assert_eq!(keys(&index, 5), []);
        assert_eq!(keys(&index, 6), [("b".into(), 6)]);
        // What the compacted revision shows stays; so does what was deleted by it.
        assert_eq!(index.compact(4), [2]);
        assert_eq!(keys(&index, 4), [("a".into(), 4), ("b".into(), 3)]);
        assert_eq!(index.compact(5), [4, 3]);
        assert_eq!(index.compact(6), [5]);
        assert_eq!(keys(&index, 6), [("b".into(), 6)]);
        assert_eq!(index.last(b"a"), None);
    }

    #[test]
    fn pages_begin_behind_a_key_and_count_the_rest() {
        let mut index = Index::new(1000);
        for (key, revision) in [("a/1", 2), ("a/2", 3), ("a/3", 4), ("b", 5)] {
            put(&mut index, key, revision);
        }
        let (page, count) = index.page(b"a/", Some(&"a/1".into()), 9, 1);
        assert_eq!((page.len(), count), (1, 2));
        assert_eq!(index.page(b"a/", Some(&"a/3".into()), 9, 1), (vec![], 0));
        assert_eq!(index.page(b"a/", Some(&"0".into()), 9, 0).1, 3);
        assert_eq!(index.count(b"a/"), 3);
    }

    #[test]
    fn values_beyond_the_budget_are_let_go() {
        let mut index = Index::new(25);
        for (key, revision) in [("a", 2), ("b", 3), ("c", 4), ("d", 5), ("a", 6), ("b", 7)] {
            put(&mut index, key, revision);
            assert!(index.cached_bytes() <= 25);
        }
        assert_eq!(keys(&index, 7).len(), 4);
        delete(&mut index, &["a", "b", "c", "d"], 8);
        assert_eq!(index.cached_bytes(), 0);
    }
}
