//! Records in memory. They outlive the store as long as the engine is held, which tests of recovery use.

use std::collections::BTreeMap;
use std::sync::{Arc, PoisonError, RwLock, RwLockReadGuard};
use std::time::Duration;

use super::{Batch, Engine, Loaded, Meta, Record};
use crate::StoreError;
use crate::api::{LeaseId, Revision};

#[derive(Default)]
pub struct Memory {
    kept: RwLock<Kept>,
}

#[derive(Default, Clone)]
struct Kept {
    meta: Meta,
    leases: BTreeMap<LeaseId, Duration>,
    records: BTreeMap<Revision, Arc<Record>>,
}

impl Memory {
    /// What a crash now would leave.
    #[cfg(test)]
    pub fn copy(&self) -> Self {
        Self { kept: RwLock::new(self.kept().clone()) }
    }

    fn kept(&self) -> RwLockReadGuard<'_, Kept> {
        self.kept.read().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Engine for Memory {
    fn load(&self, each: &mut dyn FnMut(Loaded) -> Result<(), StoreError>) -> Result<(), StoreError> {
        let kept = self.kept();
        each(Loaded::Meta(kept.meta.clone()))?;
        kept.leases.iter().try_for_each(|(lease, ttl)| each(Loaded::Lease(*lease, *ttl)))?;
        kept.records.iter().try_for_each(|(revision, record)| each(Loaded::Record(*revision, record.clone())))
    }

    fn commit(&self, batch: &Batch) -> Result<(), StoreError> {
        let mut kept = self.kept.write().unwrap_or_else(PoisonError::into_inner);
        kept.meta = batch.meta.clone();
        kept.records.extend(batch.records.iter().cloned());
        for revision in &batch.removed {
            kept.records.remove(revision);
        }
        for (lease, ttl) in &batch.leases {
            match ttl {
                Some(ttl) => kept.leases.insert(*lease, *ttl),
                None => kept.leases.remove(lease),
            };
        }
        Ok(())
    }

    fn read(&self, revisions: &[Revision]) -> Result<Vec<Option<Arc<Record>>>, StoreError> {
        let kept = self.kept();
        Ok(revisions.iter().map(|revision| kept.records.get(revision).cloned()).collect())
    }

    fn scan(&self, from: Revision, limit: usize) -> Result<Vec<(Revision, Arc<Record>)>, StoreError> {
        let kept = self.kept();
        Ok(kept
            .records
            .range(from..)
            .take(limit)
            .map(|(revision, record)| (*revision, record.clone()))
            .collect())
    }

    fn shrink(&self, _live_bytes: u64) -> Result<(), StoreError> {
        Ok(())
    }

    fn close(&self) -> Result<(), StoreError> {
        Ok(())
    }
}
