//! What happened lately, in memory: most watches resume from here, and the records that are not durable yet are here.

use std::collections::VecDeque;
use std::sync::Arc;

use crate::api::{Change, KeyValue, Keys, Revision};

const MAX_REVISIONS: usize = 10_000;
const MAX_BYTES: usize = 8 << 20;

/// All changes of one revision.
pub struct Committed {
    pub revision: Revision,
    pub changes: Vec<Arc<Change>>,
}

pub struct Window {
    commits: VecDeque<Committed>,
    /// All changes from this revision on are here.
    start: Revision,
    bytes: usize,
}

impl Window {
    pub fn new(start: Revision) -> Self {
        Self { commits: VecDeque::new(), start, bytes: 0 }
    }

    pub fn start(&self) -> Revision {
        self.start
    }

    /// Adds the next; lets old ones go, but none after `durable`.
    pub fn push(&mut self, committed: Committed, durable: Revision) {
        self.bytes += committed.bytes();
        self.commits.push_back(committed);
        while self.commits.len() > MAX_REVISIONS || self.bytes > MAX_BYTES {
            let Some(oldest) = self.commits.pop_front_if(|oldest| oldest.revision <= durable) else { break };
            self.bytes -= oldest.bytes();
            self.start = oldest.revision + 1;
        }
    }

    /// What a key became at a revision.
    pub fn find(&self, key: &[u8], revision: Revision) -> Option<Arc<KeyValue>> {
        let place = self.commits.binary_search_by_key(&revision, |committed| committed.revision).ok()?;
        self.commits[place].changes.iter().find_map(|change| match &**change {
            Change::Put { kv, .. } if kv.key == key => Some(kv.clone()),
            _ => None,
        })
    }

    /// Changes of `keys` from a revision on, about `limit` of them, and the revision to go on from.
    pub fn changes(&self, keys: &Keys, from: Revision, limit: usize) -> (Vec<Arc<Change>>, Option<Revision>) {
        let place = self.commits.partition_point(|committed| committed.revision < from);
        let mut found = Vec::new();
        for committed in self.commits.range(place..) {
            if found.len() >= limit {
                return (found, Some(committed.revision));
            }
            found.extend(committed.changes.iter().filter(|change| keys.contain(change.key())).cloned());
        }
        (found, None)
    }
}

impl Committed {
    fn bytes(&self) -> usize {
        const HEAD: usize = 200;
        let of = |kv: &Arc<KeyValue>| kv.value.len() + kv.key.len();
        let change = |change: &Arc<Change>| {
            let new = match &**change {
                Change::Put { kv, .. } => of(kv),
                Change::Delete { .. } => 0,
            };
            HEAD + new + change.previous().map_or(0, of)
        };
        self.changes.iter().map(change).sum()
    }
}
