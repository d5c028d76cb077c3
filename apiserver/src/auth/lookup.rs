//! Objects read straight from the store: for decisions that must see what was just written.

use std::sync::Arc;

use corten_store::{List, Store};

use crate::object::Object;
use crate::registry::{Registry, Served};
use crate::status::{Result, Status};

#[derive(Clone)]
pub struct Lookup {
    pub store: Arc<dyn Store>,
    pub registry: Arc<Registry>,
}

impl Lookup {
    pub fn new(store: Arc<dyn Store>, registry: Arc<Registry>) -> Self {
        Self { store, registry }
    }

    /// The row of a built-in resource in v1.
    ///
    /// # Errors
    /// 500: this server does not know it.
    pub fn row(&self, group: &str, plural: &str) -> Result<Arc<Served>> {
        let missing = || Status::internal(format!("resource {plural:?} of group {group:?} is not served"));
        self.registry.find(group, "v1", plural).ok_or_else(missing)
    }

    /// An object of a built-in resource; `namespace` is empty for what is not in one.
    ///
    /// # Errors
    /// 500: the store does not answer, or what it has is no object.
    pub async fn get(
        &self,
        group: &str,
        plural: &str,
        namespace: &str,
        name: &str,
    ) -> Result<Option<Object>> {
        let served = self.row(group, plural)?;
        // A name from outside must not reach another namespace's keys.
        let plain = |text: &str| !text.is_empty() && !text.contains('/');
        if !plain(name) || (served.resource.namespaced && !plain(namespace)) {
            return Ok(None);
        }
        let read = self.store.get(&served.key(namespace, name), None).await.map_err(Status::internal)?;
        read.kv.map(|kv| Object::at_rest(&kv).map_err(Status::internal)).transpose()
    }

    /// All objects of a built-in resource, or those of a namespace.
    ///
    /// # Errors
    /// As [`Lookup::get`].
    pub async fn list(&self, group: &str, plural: &str, namespace: &str) -> Result<Vec<Object>> {
        let served = self.row(group, plural)?;
        let page = self.store.list(List::new(served.prefix(namespace))).await.map_err(Status::internal)?;
        page.kvs.iter().map(|kv| Object::at_rest(kv).map_err(Status::internal)).collect()
    }
}
