//! What a pull in flight holds: a lease against garbage collection (I9), and a claim so that no layer is fetched twice
//! at once (I8).

use std::sync::Arc;

use super::Store;
use crate::digest::Digest;

/// Keeps chain ids and blobs alive until dropped.
pub struct Lease {
    store: Arc<Store>,
    id: u64,
}

impl Lease {
    pub fn hold(&self, digest: Digest) {
        if let Some(held) = self.store.state().leases.get_mut(&self.id) {
            held.insert(digest);
        }
    }
}

impl Drop for Lease {
    fn drop(&mut self) {
        self.store.state().leases.remove(&self.id);
    }
}

/// The right to fetch and unpack one layer.
///
/// Claims are taken from an image's lowest layer upwards, one after the other: two pulls can then never wait for each
/// other, because whoever has a layer's claim has passed all layers below it.
pub struct Claim {
    _guard: tokio::sync::OwnedMutexGuard<()>,
}

impl Store {
    pub fn lease(self: &Arc<Self>) -> Lease {
        let mut state = self.state();
        let id = state.next_lease;
        state.next_lease += 1;
        state.leases.insert(id, std::collections::BTreeSet::new());
        Lease { store: Arc::clone(self), id }
    }

    /// Waits for another pull that is at this layer; `None` when the layer is there.
    pub async fn claim(&self, chain_id: Digest) -> Option<Claim> {
        let mutex = {
            let mut claims = self.claims.lock().expect("no panic while the claims are locked: panics abort");
            claims.retain(|_, mutex| mutex.strong_count() > 0);
            let known = claims.get(&chain_id).and_then(std::sync::Weak::upgrade);
            known.unwrap_or_else(|| {
                let mutex = Arc::default();
                claims.insert(chain_id, Arc::downgrade(&mutex));
                mutex
            })
        };
        let guard = mutex.lock_owned().await;
        (!self.has_layer(chain_id)).then_some(Claim { _guard: guard })
    }
}
