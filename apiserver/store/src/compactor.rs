//! History is kept for a while, then forgotten. Works on every store, as kube-apiserver's compactor does.

use std::sync::Weak;
use std::time::Duration;

use crate::{Store, StoreError};

/// Compacts, every `keep`, what was the present one `keep` before: history of `keep` to twice that stays.
/// Upstream: 5 min. Ends when the store is dropped.
///
/// # Errors
/// What [`Store::compact`] says, unless somebody else compacted, or it may pass.
pub async fn keep_compacted(store: Weak<dyn Store>, keep: Duration) -> Result<(), StoreError> {
    let mut before = None;
    loop {
        let Some(present) = store.upgrade() else { return Ok(()) };
        if let Some(revision) = before {
            match present.compact(revision).await {
                Ok(())
                | Err(
                    StoreError::Compacted { .. } | StoreError::Unavailable(_) | StoreError::NoSpace { .. },
                ) => {}
                Err(error) => return Err(error),
            }
        }
        before = present.revision().await.ok();
        drop(present);
        tokio::time::sleep(keep).await;
    }
}
