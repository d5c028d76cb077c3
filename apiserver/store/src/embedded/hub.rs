//! Who is told of a change. A change finds its watches by key and by prefix, so idle watches cost it nothing.
//!
//! A watch that has heard all has a seat here, with a short queue. When the queue is full the watch loses its seat and
//! reads on from history, until it has caught up: no reader, however slow, makes the store keep more than a queue.

use std::collections::{BTreeMap, HashMap, VecDeque};
use std::sync::{Arc, Mutex};

use bytes::Bytes;
use tokio::sync::Notify;

use super::locked;
use crate::api::{Change, Keys, Revision};

/// Changes that wait for one reader; they are shared, not copied.
pub const QUEUE: usize = 128;

#[derive(Default)]
pub struct Hub {
    /// All changes up to and with this one are in the queues.
    pub published: Revision,
    pub closed: bool,
    one: HashMap<Bytes, Vec<Arc<Seat>>>,
    prefixes: HashMap<Bytes, Vec<Arc<Seat>>>,
    /// How many prefixes have this length.
    lengths: BTreeMap<usize, usize>,
}

/// One watch that is up to date.
pub struct Seat {
    pub waiting: Mutex<Waiting>,
    pub arrived: Notify,
}

pub struct Waiting {
    pub queue: VecDeque<Arc<Change>>,
    /// Nothing before this revision is wanted.
    from: Revision,
    last: Revision,
    /// The seat is lost: go on from this revision when the queue is empty.
    pub resume: Option<Revision>,
}

/// What a seat has for its watch.
pub enum Heard {
    Changes(Vec<Arc<Change>>),
    /// The queue ran over: go on from this revision.
    Lost(Revision),
    Nothing,
}

impl Seat {
    pub fn new(from: Revision) -> Arc<Self> {
        let waiting = Waiting { queue: VecDeque::new(), from, last: 0, resume: None };
        Arc::new(Self { waiting: Mutex::new(waiting), arrived: Notify::new() })
    }

    /// All that waits.
    pub fn take(&self) -> Heard {
        let mut waiting = locked(&self.waiting);
        match (waiting.queue.is_empty(), waiting.resume) {
            (false, _) => Heard::Changes(std::mem::take(&mut waiting.queue).into()),
            (true, Some(resume)) => Heard::Lost(resume),
            (true, None) => Heard::Nothing,
        }
    }

    /// False: the queue is full, the seat is lost.
    fn tell(&self, change: &Arc<Change>) -> bool {
        let mut waiting = locked(&self.waiting);
        let revision = change.revision();
        if revision < waiting.from {
            return true;
        }
        // The changes of one revision stay together.
        if waiting.queue.len() >= QUEUE && revision != waiting.last {
            waiting.resume = Some(revision);
            return false;
        }
        waiting.last = revision;
        waiting.queue.push_back(change.clone());
        drop(waiting);
        self.arrived.notify_one();
        true
    }
}

impl Hub {
    pub fn new(published: Revision) -> Self {
        Self { published, ..Self::default() }
    }

    pub fn publish(&mut self, change: &Arc<Change>) {
        let key = change.key();
        if let Some(seats) = self.one.get_mut(key) {
            seats.retain(|seat| seat.tell(change));
            if seats.is_empty() {
                self.one.remove(key);
            }
        }
        let mut emptied = Vec::new();
        for length in self.lengths.range(..=key.len()).map(|(length, _)| *length) {
            if let Some(seats) = self.prefixes.get_mut(&key[..length]) {
                seats.retain(|seat| seat.tell(change));
                if seats.is_empty() {
                    emptied.push(length);
                }
            }
        }
        for length in emptied {
            self.forget_prefix(&key[..length]);
        }
    }

    pub fn seat(&mut self, keys: &Keys, seat: Arc<Seat>) {
        match keys {
            Keys::One(key) => self.one.entry(key.clone()).or_default().push(seat),
            Keys::Prefix(prefix) => {
                let seats = self.prefixes.entry(prefix.clone()).or_insert_with(|| {
                    *self.lengths.entry(prefix.len()).or_default() += 1;
                    Vec::new()
                });
                seats.push(seat);
            }
        }
    }

    pub fn leave(&mut self, keys: &Keys, seat: &Arc<Seat>) {
        let (table, keys, is_prefix) = match keys {
            Keys::One(key) => (&mut self.one, key, false),
            Keys::Prefix(prefix) => (&mut self.prefixes, prefix, true),
        };
        let Some(seats) = table.get_mut(keys) else { return };
        if let Some(place) = seats.iter().position(|other| Arc::ptr_eq(other, seat)) {
            seats.swap_remove(place);
        }
        if seats.is_empty() {
            if is_prefix {
                self.forget_prefix(keys);
            } else {
                table.remove(keys);
            }
        }
    }

    fn forget_prefix(&mut self, prefix: &[u8]) {
        if self.prefixes.remove(prefix).is_none() {
            return;
        }
        if let Some(count) = self.lengths.get_mut(&prefix.len()) {
            *count -= 1;
            if *count == 0 {
                self.lengths.remove(&prefix.len());
            }
        }
    }

    /// Wakes everybody to hear that the store is closed.
    pub fn close(&mut self) {
        self.closed = true;
        for seat in self.one.values().chain(self.prefixes.values()).flatten() {
            seat.arrived.notify_one();
        }
    }

    pub fn watches(&self) -> usize {
        self.one.values().chain(self.prefixes.values()).map(Vec::len).sum()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn change(key: &'static str, revision: Revision) -> Arc<Change> {
        Arc::new(Change::Delete { key: key.into(), revision, previous: None })
    }

    fn told(seat: &Seat) -> Vec<Revision> {
        locked(&seat.waiting).queue.drain(..).map(|change| change.revision()).collect()
    }

    #[test]
    fn a_change_finds_its_watches_by_key_and_prefix() {
        let mut hub = Hub::default();
        let keys = [
            Keys::One("/a/b".into()),
            Keys::Prefix("/a/".into()),
            Keys::Prefix("".into()),
            Keys::Prefix("/c".into()),
        ];
        let seats = keys.each_ref().map(|keys| {
            let seat = Seat::new(2);
            hub.seat(keys, seat.clone());
            seat
        });
        for change in [change("/a/b", 1), change("/a/b", 2), change("/a/bc", 3), change("/", 4)] {
            hub.publish(&change);
        }
        assert_eq!(seats.each_ref().map(|seat| told(seat)), [vec![2], vec![2, 3], vec![2, 3, 4], vec![]]);
        for (keys, seat) in keys.iter().zip(&seats) {
            hub.leave(keys, seat);
        }
        assert_eq!((hub.watches(), hub.lengths.len(), hub.prefixes.len(), hub.one.len()), (0, 0, 0, 0));
    }

    #[test]
    fn who_does_not_read_loses_the_seat_and_knows_where_to_go_on() {
        let mut hub = Hub::default();
        let keys = Keys::Prefix("/".into());
        let seat = Seat::new(1);
        hub.seat(&keys, seat.clone());
        for revision in 1..1000 {
            hub.publish(&change("/a", revision));
        }
        assert_eq!(locked(&seat.waiting).resume, Some(QUEUE as i64 + 1));
        assert_eq!(told(&seat), (1..=QUEUE as i64).collect::<Vec<_>>());
        assert_eq!(hub.watches(), 0);
    }
}
