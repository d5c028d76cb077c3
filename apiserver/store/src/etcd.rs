//! A real etcd as the store, shared by many: our trait in etcd's calls.
//!
//! A watch that loses its member goes on at another from the revision after the last it told.

use std::sync::Arc;
use std::time::{Duration, Instant};

use bytes::Bytes;
use corten_etcd::{
    Changes, Client, Compare, EtcdError, KeyRange, Op, OpAnswer, Put as EtcdPut, Range, Txn,
    Watch as EtcdWatch, Watcher as EtcdWatcher,
};

use crate::api::{
    Answer, Change, KeyValue, Keys, Lease, LeaseId, List, Page, Put, Read, Revision, Store, Swap, Told,
    Watcher, check_key, check_put,
};
use crate::{Image, StoreError};

/// How long a watch tries to find a member before it gives up.
const PATIENCE: Duration = Duration::from_secs(30);

#[derive(Clone)]
pub struct EtcdStore {
    client: Client,
    tells_progress: bool,
}

impl EtcdStore {
    /// Connects, and asks which version it is.
    pub async fn connect(config: &corten_etcd::Config) -> Result<Self, StoreError> {
        let client = Client::connect(config).await.map_err(failed(0))?;
        let version = client.version().await.map_err(failed(0))?;
        Ok(Self { client, tells_progress: tells_progress(&version) })
    }

    /// Puts what is in a snapshot into an empty etcd. Revisions are new ones there: clients list anew.
    ///
    /// # Errors
    /// [`StoreError::NotEmpty`].
    pub async fn restore(&self, image: &Image) -> Result<(), StoreError> {
        if self.count(b"").await? > 0 {
            return Err(StoreError::NotEmpty);
        }
        let mut leases = std::collections::HashMap::new();
        for (id, granted) in &image.leases {
            leases.insert(*id, self.grant(*granted).await?.id);
        }
        for kv in &image.kvs {
            let lease = kv.lease.and_then(|lease| leases.get(&lease).copied());
            if self.put(Put::create(kv.key.clone(), kv.value.clone()).lease(lease)).await?.done().is_none() {
                return Err(StoreError::NotEmpty);
            }
        }
        Ok(())
    }

    /// What `when` allows is done; else how the key is.
    async fn swap(&self, key: Bytes, when: Compare, then: Op) -> Result<Swap, StoreError> {
        let otherwise = vec![Op::Range(Range::new(KeyRange::one(key)))];
        let txn = Txn { when: vec![when], then: vec![then], otherwise };
        let answer = self.client.txn(txn).await.map_err(failed(0))?;
        if answer.succeeded {
            return Ok(Swap::Done(answer.revision));
        }
        let current = answer.answers.into_iter().find_map(|answer| match answer {
            OpAnswer::Range(page) => page.kvs.into_iter().next().map(key_value),
            _ => None,
        });
        Ok(Swap::Changed { current, revision: answer.revision })
    }
}

impl Store for EtcdStore {
    fn get(&self, key: &[u8], at: Option<Revision>) -> Answer<'_, Read> {
        let range = Range { revision: at, ..Range::new(KeyRange::one(key)) };
        Box::pin(async move {
            let page = self.client.range(&range).await.map_err(failed(at.unwrap_or(0)))?;
            Ok(Read { kv: page.kvs.into_iter().next().map(key_value), revision: page.revision })
        })
    }

    fn list(&self, list: List) -> Answer<'_, Page> {
        Box::pin(async move {
            let keys = match &list.after {
                None => KeyRange::prefix(list.prefix.to_vec()),
                Some(after) => KeyRange::prefix_after(list.prefix.to_vec(), after),
            };
            let limit = list.limit.map(|limit| limit.min(u32::MAX as usize) as u32);
            // To etcd a limit of 0 is none.
            let range = Range { revision: list.at, limit, count_only: limit == Some(0), ..Range::new(keys) };
            let page = self.client.range(&range).await.map_err(failed(list.at.unwrap_or(0)))?;
            Ok(Page {
                kvs: page.kvs.into_iter().map(key_value).collect(),
                count: page.count as usize,
                revision: list.at.unwrap_or(page.revision),
            })
        })
    }

    fn count(&self, prefix: &[u8]) -> Answer<'_, usize> {
        let range = Range { count_only: true, ..Range::new(KeyRange::prefix(prefix)) };
        Box::pin(async move { Ok(self.client.range(&range).await.map_err(failed(0))?.count as usize) })
    }

    fn put(&self, put: Put) -> Answer<'_, Swap> {
        Box::pin(async move {
            check_put(&put)?;
            let lease = put.lease.and_then(|lease| corten_etcd::LeaseId::of(lease.number()));
            let then = Op::Put(EtcdPut::new(put.key.to_vec(), put.value.to_vec()).lease(lease));
            let when = Compare::ModRevision(put.key.to_vec(), put.expected);
            self.swap(put.key, when, then).await
        })
    }

    fn delete(&self, key: &[u8], expected: Revision) -> Answer<'_, Swap> {
        let key = Bytes::copy_from_slice(key);
        Box::pin(async move {
            check_key(&key)?;
            if expected <= 0 {
                // To etcd a key that is not there was last changed at 0, and deleting it would be done.
                let Read { kv, revision } = self.get(&key, None).await?;
                return Ok(Swap::Changed { current: kv, revision });
            }
            let then = Op::Delete { keys: KeyRange::one(key.to_vec()), previous: false };
            let when = Compare::ModRevision(key.to_vec(), expected);
            self.swap(key, when, then).await
        })
    }

    fn watch(&self, keys: Keys, from: Option<Revision>) -> Answer<'_, Box<dyn Watcher>> {
        Box::pin(async move {
            // Known even when nothing happens before the connection is lost.
            let from = match from {
                Some(from) => from,
                None => self.revision().await? + 1,
            };
            let watcher = open(&self.client, &keys, from).await.map_err(failed(from))?;
            let tells_progress = self.tells_progress;
            let client = self.client.clone();
            let watch =
                Watch { client, keys, next: from, watcher: Some(watcher), asked: false, tells_progress };
            Ok(Box::new(watch) as Box<dyn Watcher>)
        })
    }

    fn compact(&self, revision: Revision) -> Answer<'_, ()> {
        Box::pin(async move { self.client.compact(revision).await.map_err(failed(revision)) })
    }

    fn grant(&self, ttl: Duration) -> Answer<'_, Lease> {
        let ttl = Duration::from_secs(ttl.as_secs() + u64::from(ttl.subsec_nanos() > 0));
        Box::pin(async move { self.client.grant(ttl).await.map(lease).map_err(failed(0)) })
    }

    fn keep_alive(&self, id: LeaseId) -> Answer<'_, Lease> {
        Box::pin(async move { self.client.keep_alive(etcd_id(id)).await.map(lease).map_err(failed(0)) })
    }

    fn lease(&self, id: LeaseId) -> Answer<'_, Lease> {
        Box::pin(async move { self.client.time_to_live(etcd_id(id)).await.map(lease).map_err(failed(0)) })
    }

    fn revoke(&self, id: LeaseId) -> Answer<'_, ()> {
        Box::pin(async move { self.client.revoke(etcd_id(id)).await.map_err(failed(0)) })
    }

    fn revision(&self) -> Answer<'_, Revision> {
        let range = Range { count_only: true, ..Range::new(KeyRange::one([0])) };
        Box::pin(async move { Ok(self.client.range(&range).await.map_err(failed(0))?.revision) })
    }

    fn tells_progress(&self) -> bool {
        self.tells_progress
    }
}

struct Watch {
    client: Client,
    keys: Keys,
    /// The first revision that is not told yet.
    next: Revision,
    watcher: Option<EtcdWatcher>,
    asked: bool,
    tells_progress: bool,
}

impl Watch {
    async fn tell(&mut self) -> Result<Told, StoreError> {
        let mut since = None;
        loop {
            let step = match &mut self.watcher {
                Some(watcher) => watcher.next().await,
                None => match open(&self.client, &self.keys, self.next).await {
                    Ok(watcher) => {
                        self.watcher = Some(watcher);
                        if self.asked {
                            self.ask().await?;
                        }
                        continue;
                    }
                    Err(error) => Err(error),
                },
            };
            match step {
                Ok(Changes { revision, changes }) if changes.is_empty() => {
                    // The answer to a question of an earlier connection may be behind what was told since.
                    if std::mem::take(&mut self.asked) && revision + 1 >= self.next {
                        return Ok(Told::Progress(revision));
                    }
                }
                Ok(Changes { changes, .. }) => {
                    let changes: Vec<_> = changes.into_iter().map(change).collect();
                    self.next = changes.last().map_or(self.next, |last| last.revision() + 1);
                    return Ok(Told::Changes(changes));
                }
                Err(error)
                    if error.passes() && since.get_or_insert_with(Instant::now).elapsed() < PATIENCE =>
                {
                    self.watcher = None;
                    tokio::time::sleep(Duration::from_millis(200)).await;
                }
                Err(error) => return Err(failed(self.next)(error)),
            }
        }
    }

    async fn ask(&mut self) -> Result<(), StoreError> {
        match &self.watcher {
            Some(watcher) => match watcher.ask_progress().await {
                // Asked again when it is open again.
                Err(error) if error.passes() => Ok(()),
                asked => asked.map_err(failed(self.next)),
            },
            None => Ok(()),
        }
    }
}

impl Watcher for Watch {
    fn next(&mut self) -> Answer<'_, Told> {
        Box::pin(self.tell())
    }

    fn ask_progress(&mut self) -> Answer<'_, ()> {
        Box::pin(async move {
            if !self.tells_progress {
                return Err(StoreError::NoProgress);
            }
            self.asked = true;
            self.ask().await
        })
    }
}

async fn open(client: &Client, keys: &Keys, from: Revision) -> Result<EtcdWatcher, EtcdError> {
    let keys = match keys {
        Keys::One(key) => KeyRange::one(key.to_vec()),
        Keys::Prefix(prefix) => KeyRange::prefix(prefix.to_vec()),
    };
    let watch = EtcdWatch { start: Some(from), previous: true, ..EtcdWatch::new(keys) };
    client.watch(watch).await
}

fn key_value(kv: corten_etcd::KeyValue) -> Arc<KeyValue> {
    Arc::new(KeyValue {
        key: kv.key.into(),
        value: kv.value.into(),
        create_revision: kv.create_revision,
        mod_revision: kv.mod_revision,
        version: kv.version,
        lease: kv.lease.and_then(|lease| LeaseId::of(lease.number())),
    })
}

fn change(change: corten_etcd::Change) -> Arc<Change> {
    Arc::new(match change {
        corten_etcd::Change::Put { kv, previous } => {
            Change::Put { kv: key_value(kv), previous: previous.map(key_value) }
        }
        corten_etcd::Change::Delete { key, at, previous } => {
            Change::Delete { key: key.into(), revision: at, previous: previous.map(key_value) }
        }
    })
}

fn lease(lease: corten_etcd::Lease) -> Lease {
    let id = LeaseId::of(lease.id.number()).expect("both are not 0");
    Lease { id, granted: lease.granted, left: lease.ttl }
}

fn etcd_id(id: LeaseId) -> corten_etcd::LeaseId {
    corten_etcd::LeaseId::of(id.number()).expect("both are not 0")
}

/// `asked`: the revision that was asked for, which etcd does not repeat.
fn failed(asked: Revision) -> impl Fn(EtcdError) -> StoreError {
    move |error| match error {
        EtcdError::Compacted { oldest } => {
            StoreError::Compacted { asked, oldest: oldest.unwrap_or(asked + 1) }
        }
        EtcdError::Future => StoreError::Future { asked },
        EtcdError::NoLease(id) => match LeaseId::of(id) {
            Some(id) => StoreError::NoLease(id),
            None => StoreError::Refused("etcd has not the lease that was asked for".into()),
        },
        EtcdError::NoSpace => StoreError::NoSpace { what: "etcd's database".into() },
        error if error.passes() => StoreError::Unavailable(error.to_string()),
        error => StoreError::Refused(error.to_string()),
    }
}

/// Source: Kubernetes apiserver `storage/feature`, etcd issue 15220.
fn tells_progress(version: &str) -> bool {
    let mut numbers = version.split(['.', '-', '+']).map(|number| number.parse().unwrap_or(0));
    let mut next = || numbers.next().unwrap_or(0_u32);
    match (next(), next(), next()) {
        (3, 4, patch) => patch >= 31,
        (3, 5, patch) => patch >= 13,
        (major, minor, _) => (major, minor) > (3, 5),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn progress_is_asked_only_of_an_etcd_that_tells_it_right() {
        for (version, tells) in [
            ("3.4.23", false),
            ("3.4.31", true),
            ("3.5.12", false),
            ("3.5.13", true),
            ("3.6.0", true),
            ("3.6.0-rc.1", true),
            ("4.0.0", true),
            ("2.3.8", false),
            ("", false),
        ] {
            assert_eq!(tells_progress(version), tells, "{version}");
        }
    }
}
