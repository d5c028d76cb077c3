//! What is kept in memory of a resource, by a watch of the store: for decisions that are made on every request.
//!
//! A view follows the store within microseconds (the embedded one) or a network's way (etcd). Who must not be wrong
//! about what was written a moment ago asks [`View::settle`] first.

use std::collections::BTreeMap;
use std::sync::{Arc, PoisonError, RwLock};
use std::time::Duration;

use bytes::Bytes;
use corten_store::{Change, KeyValue, Keys, List, Revision, Store, StoreError, Told};
use tokio::sync::{Notify, watch};
use tokio::task::JoinHandle;

use crate::object::Object;

/// What a view makes of objects. Keys are without the resource's prefix: `NAMESPACE/NAME` or `NAME`.
pub trait Keep: Default + Send + Sync + 'static {
    fn put(&mut self, key: &str, object: Object);
    fn remove(&mut self, key: &str);
}

/// Objects decoded to one type.
#[derive(Debug)]
pub struct Decoded<T>(pub BTreeMap<String, T>);

impl<T> Default for Decoded<T> {
    fn default() -> Self {
        Self(BTreeMap::new())
    }
}

impl<T: From<Object> + Send + Sync + 'static> Keep for Decoded<T> {
    fn put(&mut self, key: &str, object: Object) {
        self.0.insert(key.to_owned(), T::from(object));
    }

    fn remove(&mut self, key: &str) {
        self.0.remove(key);
    }
}

/// A view of one resource; ends with its last handle.
pub struct View<K> {
    shared: Arc<Shared<K>>,
    seen: watch::Receiver<Revision>,
    task: JoinHandle<()>,
}

struct Shared<K> {
    store: Arc<dyn Store>,
    prefix: Bytes,
    kept: RwLock<K>,
    /// Somebody wants to know that everything up to now has been seen.
    asked: Notify,
}

const RETRY: Duration = Duration::from_millis(200);
const SETTLE_WITHIN: Duration = Duration::from_secs(1);

impl<K: Keep> View<K> {
    /// Begins to follow the keys of a prefix. Must be called within a tokio runtime.
    pub fn start(store: Arc<dyn Store>, prefix: impl Into<Bytes>) -> Self {
        let (told, seen) = watch::channel(0);
        let shared = Arc::new(Shared {
            store,
            prefix: prefix.into(),
            kept: RwLock::new(K::default()),
            asked: Notify::new(),
        });
        let task = tokio::spawn(follow(Arc::clone(&shared), told));
        Self { shared, seen, task }
    }

    /// Has the first list been read?
    pub fn ready(&self) -> bool {
        *self.seen.borrow() > 0
    }

    pub async fn wait_ready(&self) {
        self.seen.clone().wait_for(|seen| *seen > 0).await.ok();
    }

    /// Tells each revision that is seen.
    pub fn revisions(&self) -> watch::Receiver<Revision> {
        self.seen.clone()
    }

    pub fn read<R>(&self, look: impl FnOnce(&K) -> R) -> R {
        look(&self.shared.kept.read().unwrap_or_else(PoisonError::into_inner))
    }

    /// Waits until everything that is in the store now has been seen; a second at most. `false`: it has not.
    pub async fn settle(&self) -> bool {
        let Ok(now) = self.shared.store.revision().await else { return false };
        self.reach(now).await
    }

    pub async fn reach(&self, revision: Revision) -> bool {
        let mut seen = self.seen.clone();
        if *seen.borrow() >= revision {
            return true;
        }
        self.shared.asked.notify_one();
        matches!(
            tokio::time::timeout(SETTLE_WITHIN, seen.wait_for(|seen| *seen >= revision)).await,
            Ok(Ok(_))
        )
    }
}

impl<K> Drop for View<K> {
    fn drop(&mut self) {
        self.task.abort();
    }
}

async fn follow<K: Keep>(shared: Arc<Shared<K>>, told: watch::Sender<Revision>) {
    loop {
        if let Err(error) = follow_once(&shared, &told).await {
            let prefix = String::from_utf8_lossy(&shared.prefix);
            // Compaction under a slow reader is part of life: the list is read anew.
            tracing::debug!(%prefix, %error, "the watch of a view ended");
        }
        tokio::time::sleep(RETRY).await;
    }
}

async fn follow_once<K: Keep>(shared: &Shared<K>, told: &watch::Sender<Revision>) -> Result<(), StoreError> {
    let page = shared.store.list(List::new(shared.prefix.clone())).await?;
    let mut kept = K::default();
    for kv in &page.kvs {
        put(&mut kept, &shared.prefix, kv);
    }
    *shared.kept.write().unwrap_or_else(PoisonError::into_inner) = kept;
    told.send_replace(page.revision.max(1));
    let keys = Keys::Prefix(shared.prefix.clone());
    let mut watcher = shared.store.watch(keys, Some(page.revision + 1)).await?;
    let tells_progress = shared.store.tells_progress();
    loop {
        let next = tokio::select! {
            next = watcher.next() => next?,
            () = shared.asked.notified(), if tells_progress => {
                watcher.ask_progress().await?;
                continue;
            }
        };
        match next {
            Told::Changes(changes) => {
                let Some(last) = changes.last().map(|change| change.revision()) else { continue };
                let mut kept = shared.kept.write().unwrap_or_else(PoisonError::into_inner);
                for change in &changes {
                    match &**change {
                        Change::Put { kv, .. } => put(&mut *kept, &shared.prefix, kv),
                        Change::Delete { key, .. } => kept.remove(below(&shared.prefix, key)),
                    }
                }
                drop(kept);
                told.send_replace(last);
            }
            Told::Progress(revision) => {
                told.send_replace(revision);
            }
        }
    }
}

fn put<K: Keep>(kept: &mut K, prefix: &[u8], kv: &KeyValue) {
    let key = below(prefix, &kv.key);
    match Object::at_rest(kv) {
        Ok(object) => kept.put(key, object),
        Err(error) => {
            kept.remove(key);
            tracing::warn!(key = %String::from_utf8_lossy(&kv.key), %error, "a record is no object");
        }
    }
}

fn below<'a>(prefix: &[u8], key: &'a [u8]) -> &'a str {
    key.strip_prefix(prefix).and_then(|key| std::str::from_utf8(key).ok()).unwrap_or_default()
}
