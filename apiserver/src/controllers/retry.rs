//! Work that is done again until it succeeds: one task a key, each later than the one before.

use std::collections::HashMap;
use std::hash::Hash;
use std::time::Duration;

use tokio::sync::mpsc;
use tokio::time::Instant;

const FIRST: Duration = Duration::from_millis(5);
const LAST: Duration = Duration::from_mins(1);

/// Keys that wait for their work, each once.
pub struct Queue<K> {
    wanted: HashMap<K, Instant>,
    failures: HashMap<K, u32>,
    input: mpsc::UnboundedReceiver<(K, Duration)>,
    to: mpsc::UnboundedSender<(K, Duration)>,
}

impl<K: Clone + Eq + Hash> Queue<K> {
    pub fn new() -> Self {
        let (to, input) = mpsc::unbounded_channel();
        Self { wanted: HashMap::new(), failures: HashMap::new(), input, to }
    }

    /// What puts keys in; from anywhere.
    pub fn handle(&self) -> Handle<K> {
        Handle(self.to.clone())
    }

    /// The next key whose time has come. Cancel safe.
    pub async fn next(&mut self) -> K {
        loop {
            let next = self.wanted.iter().min_by_key(|(_, at)| **at).map(|(key, at)| (key.clone(), *at));
            match next {
                Some((key, at)) if at <= Instant::now() => {
                    // What came meanwhile for the same key is done with it.
                    while let Ok((other, after)) = self.input.try_recv() {
                        self.want(other, after);
                    }
                    self.wanted.remove(&key);
                    return key;
                }
                Some((_, at)) => {
                    tokio::select! {
                        Some((key, after)) = self.input.recv() => self.want(key, after),
                        () = tokio::time::sleep_until(at) => {}
                    }
                }
                None => {
                    // We hold a sender: it never ends.
                    if let Some((key, after)) = self.input.recv().await {
                        self.want(key, after);
                    }
                }
            }
        }
    }

    fn want(&mut self, key: K, after: Duration) {
        let at = Instant::now() + after;
        let entry = self.wanted.entry(key).or_insert(at);
        *entry = (*entry).min(at);
    }

    /// Again, after a time that doubles with each failure.
    pub fn failed(&mut self, key: K) {
        let failures = self.failures.entry(key.clone()).or_insert(0);
        *failures += 1;
        let after = FIRST.saturating_mul(1 << (*failures).min(16)).min(LAST);
        self.want(key, after);
    }

    pub fn succeeded(&mut self, key: &K) {
        self.failures.remove(key);
    }
}

pub struct Handle<K>(mpsc::UnboundedSender<(K, Duration)>);

impl<K> Clone for Handle<K> {
    fn clone(&self) -> Self {
        Self(self.0.clone())
    }
}

impl<K> Handle<K> {
    pub fn add(&self, key: K) {
        self.add_after(key, Duration::ZERO);
    }

    pub fn add_after(&self, key: K, after: Duration) {
        // The queue is gone: so is its controller.
        self.0.send((key, after)).ok();
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn a_key_waits_once_and_longer_each_time_it_fails() {
        let mut queue = Queue::new();
        let handle = queue.handle();
        handle.add("a");
        handle.add("a");
        handle.add_after("b", Duration::from_millis(300));
        assert_eq!(queue.next().await, "a");
        let before = Instant::now();
        queue.failed("a");
        assert_eq!(queue.next().await, "a");
        let first = before.elapsed();
        queue.failed("a");
        assert_eq!(queue.next().await, "a");
        assert!(before.elapsed() >= first + FIRST * 4, "{first:?}");
        queue.succeeded(&"a");
        assert_eq!(queue.next().await, "b");
        assert!(before.elapsed() >= Duration::from_millis(250));
    }
}
