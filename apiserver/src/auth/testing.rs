//! A store with objects, for tests of this module.

use std::sync::Arc;

use corten_store::{Config, Embedded, Put, Store};
use serde_json::{Value, json};

use super::lookup::Lookup;
use crate::object::Object;
use crate::registry::Registry;

pub struct World {
    pub store: Arc<dyn Store>,
    pub registry: Arc<Registry>,
}

impl Default for World {
    fn default() -> Self {
        Self::new()
    }
}

impl World {
    pub fn new() -> Self {
        let store = Embedded::memory(Config::default()).expect("a store");
        Self { store: Arc::new(store), registry: Arc::new(Registry::built_in()) }
    }

    pub fn lookup(&self) -> Lookup {
        Lookup::new(Arc::clone(&self.store), Arc::clone(&self.registry))
    }

    /// Writes over what is there.
    pub async fn put(&self, group: &str, plural: &str, object: Value) {
        let served = self.registry.find(group, "v1", plural).expect("a served resource");
        let object = Object::of(object).expect("an object");
        let key = served.key(object.namespace(), object.name());
        let now = self.store.get(&key, None).await.expect("read").kv;
        let expected = now.map_or(0, |kv| kv.mod_revision);
        let put = Put::update(key, object.encode(), expected);
        self.store.put(put).await.expect("written").done().expect("nobody else writes");
    }

    pub async fn delete(&self, group: &str, plural: &str, namespace: &str, name: &str) {
        let served = self.registry.find(group, "v1", plural).expect("a served resource");
        let key = served.key(namespace, name);
        let now = self.store.get(&key, None).await.expect("read").kv.expect("it is there");
        self.store.delete(&key, now.mod_revision).await.expect("deleted");
    }
}

pub fn object(namespace: &str, name: &str, uid: &str) -> Value {
    let mut object = json!({ "metadata": { "name": name, "uid": uid } });
    if !namespace.is_empty() {
        object["metadata"]["namespace"] = namespace.into();
    }
    object
}
