//! Which leases there are, until when, and the keys that go with them.

use std::collections::{BTreeSet, HashMap};
use std::hash::{BuildHasher, RandomState};
use std::time::{Duration, Instant};

use bytes::Bytes;

use crate::api::{Lease, LeaseId};

#[derive(Default)]
pub struct Leases {
    all: HashMap<LeaseId, Held>,
    deadlines: BTreeSet<(Instant, LeaseId)>,
    random: RandomState,
}

struct Held {
    granted: Duration,
    deadline: Instant,
    keys: BTreeSet<Bytes>,
}

impl Leases {
    /// A new lease. Whole seconds, at least one, as etcd has them.
    pub fn grant(&mut self, ttl: Duration, now: Instant) -> Lease {
        let granted = Duration::from_secs(ttl.as_secs() + u64::from(ttl.subsec_nanos() > 0))
            .max(Duration::from_secs(1));
        // Not counted up: a lease that a crash took must not come back as somebody else's.
        let id = (0..=u64::MAX)
            .filter_map(|round| LeaseId::of((self.random.hash_one((now, round)) >> 1) as i64))
            .find(|id| !self.all.contains_key(id))
            .expect("2^63 numbers");
        self.insert(id, granted, now);
        Lease { id, granted, left: granted }
    }

    /// A lease that was there before; its time starts anew, as in etcd after an election.
    pub fn insert(&mut self, id: LeaseId, granted: Duration, now: Instant) {
        let deadline = now + granted;
        self.all.insert(id, Held { granted, deadline, keys: BTreeSet::new() });
        self.deadlines.insert((deadline, id));
    }

    pub fn has(&self, id: LeaseId) -> bool {
        self.all.contains_key(&id)
    }

    pub fn keep_alive(&mut self, id: LeaseId, now: Instant) -> Option<Lease> {
        let held = self.all.get_mut(&id)?;
        self.deadlines.remove(&(held.deadline, id));
        held.deadline = now + held.granted;
        self.deadlines.insert((held.deadline, id));
        Some(Lease { id, granted: held.granted, left: held.granted })
    }

    pub fn get(&self, id: LeaseId, now: Instant) -> Option<Lease> {
        let held = self.all.get(&id)?;
        Some(Lease { id, granted: held.granted, left: held.deadline.saturating_duration_since(now) })
    }

    pub fn keys(&self, id: LeaseId) -> impl Iterator<Item = &Bytes> {
        self.all.get(&id).into_iter().flat_map(|held| &held.keys)
    }

    /// A key is written with `after` and had `before`.
    pub fn attach(&mut self, key: &Bytes, before: Option<LeaseId>, after: Option<LeaseId>) {
        if before == after {
            return;
        }
        if let Some(held) = before.and_then(|id| self.all.get_mut(&id)) {
            held.keys.remove(key);
        }
        if let Some(held) = after.and_then(|id| self.all.get_mut(&id)) {
            held.keys.insert(key.clone());
        }
    }

    pub fn remove(&mut self, id: LeaseId) {
        if let Some(held) = self.all.remove(&id) {
            self.deadlines.remove(&(held.deadline, id));
        }
    }

    pub fn next_deadline(&self) -> Option<Instant> {
        self.deadlines.first().map(|(deadline, _)| *deadline)
    }

    /// The first lease whose time is over.
    pub fn run_out(&self, now: Instant) -> Option<LeaseId> {
        self.deadlines.first().filter(|(deadline, _)| *deadline <= now).map(|(_, id)| *id)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn leases_run_out_in_order_unless_kept_alive() {
        let start = Instant::now();
        let after = |seconds| start + Duration::from_secs(seconds);
        let mut leases = Leases::default();
        let long = leases.grant(Duration::from_secs(9), start).id;
        let short = leases.grant(Duration::from_millis(1), start);
        assert_eq!(short.granted, Duration::from_secs(1), "whole seconds");
        assert_eq!(leases.run_out(after(0)), None);
        assert_eq!(leases.run_out(after(1)), Some(short.id));
        leases.keep_alive(short.id, after(9)).expect("there");
        assert_eq!(leases.run_out(after(9)), Some(long));
        leases.remove(long);
        assert_eq!(leases.run_out(after(9)), None);
        assert_eq!(leases.run_out(after(10)), Some(short.id));
        assert_eq!(leases.keep_alive(long, after(9)), None);
    }

    #[test]
    fn a_key_belongs_to_one_lease() {
        let mut leases = Leases::default();
        let [one, two] = [1, 2].map(|_| leases.grant(Duration::from_secs(9), Instant::now()).id);
        let key = Bytes::from("/a");
        leases.attach(&key, None, Some(one));
        leases.attach(&key, Some(one), Some(two));
        assert_eq!((leases.keys(one).count(), leases.keys(two).count()), (0, 1));
        leases.attach(&key, Some(two), None);
        assert_eq!(leases.keys(two).count(), 0);
    }
}
