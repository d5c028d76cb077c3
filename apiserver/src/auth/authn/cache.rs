//! What a signature proved: so that it is checked once and not on every request. Only successes are kept, each until it
//! ends, so nobody fills it from outside.

use std::collections::HashMap;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::SystemTime;

use sha2::{Digest, Sha256};

pub type Key = [u8; 32];

pub struct Cache<T> {
    entries: Mutex<HashMap<Key, (Arc<T>, SystemTime)>>,
    limit: usize,
}

impl<T> Cache<T> {
    pub fn new(limit: usize) -> Self {
        Self { entries: Mutex::default(), limit }
    }

    /// What credentials are known by: they are not kept themselves.
    pub fn key<'a>(parts: impl IntoIterator<Item = &'a [u8]>) -> Key {
        let mut digest = Sha256::new();
        for part in parts {
            digest.update((part.len() as u64).to_be_bytes());
            digest.update(part);
        }
        digest.finalize().into()
    }

    pub fn get(&self, key: &Key, now: SystemTime) -> Option<Arc<T>> {
        let entries = self.entries.lock().unwrap_or_else(PoisonError::into_inner);
        entries.get(key).filter(|(_, until)| now < *until).map(|(value, _)| Arc::clone(value))
    }

    pub fn put(&self, key: Key, value: Arc<T>, until: SystemTime, now: SystemTime) {
        let mut entries = self.entries.lock().unwrap_or_else(PoisonError::into_inner);
        if entries.len() >= self.limit {
            entries.retain(|_, (_, until)| now < *until);
        }
        if entries.len() >= self.limit {
            entries.clear();
        }
        entries.insert(key, (value, until));
    }
}
