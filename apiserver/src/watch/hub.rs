//! The streams that there are: one for each prefix that somebody watches.

use std::collections::HashMap;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use bytes::Bytes;
use corten_store::{Keys, Store, StoreError, Told, Watcher};
use tokio::time::MissedTickBehavior;

use super::stream::{Interest, Joined, Stream};

/// As upstream's cacher has it.
pub const BOOKMARKS_EVERY: Duration = Duration::from_mins(1);

pub struct Hub {
    store: Arc<dyn Store>,
    bookmarks_every: Duration,
    streams: tokio::sync::Mutex<HashMap<Bytes, Arc<Stream>>>,
    closed: Mutex<bool>,
}

impl Hub {
    pub fn new(store: Arc<dyn Store>, bookmarks_every: Duration) -> Self {
        Self { store, bookmarks_every, streams: tokio::sync::Mutex::default(), closed: Mutex::new(false) }
    }

    /// A place among the watchers of a prefix. `None`: the hub is closed.
    ///
    /// # Errors
    /// The store cannot be watched.
    pub async fn join(&self, prefix: &Bytes, interest: &Arc<Interest>) -> Result<Option<Joined>, StoreError> {
        let mut streams = self.streams.lock().await;
        if self.is_closed() {
            return Ok(None);
        }
        if let Some(joined) = streams.get(prefix).and_then(|stream| stream.join(interest)) {
            return Ok(Some(joined));
        }
        streams.retain(|_, stream| !stream.is_over());
        let progress = self.store.revision().await?;
        let watcher = self.store.watch(Keys::Prefix(prefix.clone()), Some(progress + 1)).await?;
        let stream = Stream::new(progress);
        let joined = stream.join(interest);
        streams.insert(prefix.clone(), Arc::clone(&stream));
        tokio::spawn(feed(stream, watcher, self.store.tells_progress().then_some(self.bookmarks_every)));
        Ok(joined)
    }

    /// Ends all watches for good.
    pub async fn close(&self) {
        *self.closed.lock().unwrap_or_else(PoisonError::into_inner) = true;
        for (_, stream) in self.streams.lock().await.drain() {
            stream.end();
        }
    }

    /// Ends the watches of what lies below a prefix: it is served no more, or is another thing from now on. Their
    /// clients begin anew.
    pub async fn end(&self, prefix: &[u8]) {
        self.streams.lock().await.retain(|watched, stream| {
            let stays = !watched.starts_with(prefix);
            if !stays {
                stream.end();
            }
            stays
        });
    }

    fn is_closed(&self) -> bool {
        *self.closed.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// How many watch, by prefix.
    pub async fn watchers(&self) -> Vec<(Bytes, usize)> {
        let streams = self.streams.lock().await;
        streams.iter().map(|(prefix, stream)| (prefix.clone(), stream.len())).collect()
    }
}

/// From the store to the stream, until nobody watches or the store ends it.
async fn feed(stream: Arc<Stream>, mut watcher: Box<dyn Watcher>, bookmarks_every: Option<Duration>) {
    let mut tick = tokio::time::interval(bookmarks_every.unwrap_or(BOOKMARKS_EVERY));
    tick.set_missed_tick_behavior(MissedTickBehavior::Delay);
    tick.reset();
    loop {
        tokio::select! {
            told = watcher.next() => {
                let wanted = match told {
                    Ok(Told::Changes(changes)) => stream.tell(&changes),
                    Ok(Told::Progress(revision)) => stream.tell_progress(revision),
                    Err(error) => {
                        tracing::info!("watches end, their clients begin anew: {error}");
                        return stream.end();
                    }
                };
                if !wanted {
                    return;
                }
            }
            _ = tick.tick() => {
                if bookmarks_every.is_some() && stream.wants_bookmarks() && watcher.ask_progress().await.is_err() {
                    return stream.end();
                }
            }
        }
    }
}
