//! The way of a request to the writer: bounded, in order, many at a time.

use std::collections::VecDeque;
use std::sync::{Condvar, Mutex, PoisonError};
use std::time::Instant;

use tokio::sync::Semaphore;

use super::locked;
use crate::StoreError;

/// Requests that may wait; more wait in their tasks.
const ROOM: usize = 1024;

pub struct Inbox<T> {
    queue: Mutex<Queue<T>>,
    arrived: Condvar,
    room: Semaphore,
}

struct Queue<T> {
    waiting: VecDeque<T>,
    closed: bool,
}

impl<T> Inbox<T> {
    pub fn new() -> Self {
        Self {
            queue: Mutex::new(Queue { waiting: VecDeque::new(), closed: false }),
            arrived: Condvar::new(),
            room: Semaphore::new(ROOM),
        }
    }

    pub async fn send(&self, request: T) -> Result<(), StoreError> {
        self.room.acquire().await.map_err(|_| StoreError::Closed)?.forget();
        let mut queue = locked(&self.queue);
        if queue.closed {
            return Err(StoreError::Closed);
        }
        queue.waiting.push_back(request);
        drop(queue);
        self.arrived.notify_one();
        Ok(())
    }

    /// No more requests; those that wait are still taken.
    pub fn close(&self) {
        locked(&self.queue).closed = true;
        self.room.close();
        self.arrived.notify_one();
    }

    /// What waits, at most `limit`; waits for the first until `due`. `None`: closed, and all is taken.
    pub fn take(&self, limit: usize, due: Option<Instant>) -> Option<Vec<T>> {
        let mut queue = locked(&self.queue);
        while queue.waiting.is_empty() {
            if queue.closed {
                return None;
            }
            queue = match due.map(|due| due.saturating_duration_since(Instant::now())) {
                None => self.arrived.wait(queue).unwrap_or_else(PoisonError::into_inner),
                Some(left) if left.is_zero() => return Some(Vec::new()),
                Some(left) => {
                    self.arrived.wait_timeout(queue, left).unwrap_or_else(PoisonError::into_inner).0
                }
            };
        }
        let count = queue.waiting.len().min(limit);
        let taken = queue.waiting.drain(..count).collect();
        drop(queue);
        self.room.add_permits(count);
        Some(taken)
    }
}
