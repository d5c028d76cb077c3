//! Leases of records that live for a while: those that begin within the same minute share one.
//! Source: apiserver `pkg/storage/etcd3/lease_manager.go`.

use std::collections::HashMap;
use std::time::{Duration, Instant};

use corten_store::{LeaseId, Store, StoreError};
use tokio::sync::Mutex;

/// A lease takes new records for so long, and lives so much longer than they asked for.
const SHARED: Duration = Duration::from_mins(1);
/// Records in one lease: they all go at one revision.
const MOST: usize = 1000;

#[derive(Default)]
pub struct Leases(Mutex<HashMap<Duration, Current>>);

struct Current {
    id: LeaseId,
    since: Instant,
    records: usize,
}

impl Leases {
    /// A lease that holds a record for `ttl` at least.
    ///
    /// # Errors
    /// The store's.
    pub async fn get(&self, store: &dyn Store, ttl: Duration) -> Result<LeaseId, StoreError> {
        let mut leases = self.0.lock().await;
        if let Some(current) = leases.get_mut(&ttl)
            && current.since.elapsed() < SHARED
            && current.records < MOST
        {
            current.records += 1;
            return Ok(current.id);
        }
        let lease = store.grant(ttl + SHARED).await?;
        leases.insert(ttl, Current { id: lease.id, since: Instant::now(), records: 1 });
        Ok(lease.id)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn records_of_the_same_minute_share_a_lease() {
        let store = corten_store::Embedded::memory(corten_store::Config::default()).expect("memory is there");
        let leases = Leases::default();
        let hour = Duration::from_hours(1);
        let first = leases.get(&store, hour).await.expect("a lease");
        assert_eq!(leases.get(&store, hour).await.expect("a lease"), first);
        assert_ne!(leases.get(&store, hour * 2).await.expect("a lease"), first);
        for _ in 0..MOST {
            leases.get(&store, hour).await.expect("a lease");
        }
        assert_ne!(leases.get(&store, hour).await.expect("a lease"), first);
    }
}
