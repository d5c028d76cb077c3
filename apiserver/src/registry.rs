//! What is served now: the rows of the schema table and those of custom resources.

use std::sync::{Arc, PoisonError, RwLock};

use corten_schema::{Node, Resource, Types};

use crate::crd::Custom;
use crate::kinds::Kind;
use crate::object::Object;
use crate::status::Cause;

/// A resource that is served.
pub struct Served {
    pub resource: Resource,
    pub types: TypesOf,
    pub kind: &'static Kind,
}

/// Whose table a resource's type is in.
#[derive(Clone)]
pub enum TypesOf {
    BuiltIn(&'static Types),
    Custom(Arc<Custom>),
}

impl Served {
    /// The type of its objects.
    pub fn node(&self) -> Node<'_> {
        let types = match &self.types {
            TypesOf::BuiltIn(types) => types,
            TypesOf::Custom(custom) => &custom.types,
        };
        Node { types, id: self.resource.ty }
    }

    pub fn is_custom(&self) -> bool {
        matches!(self.types, TypesOf::Custom(_))
    }

    /// What only a custom resource has.
    pub fn custom(&self) -> Option<&Custom> {
        match &self.types {
            TypesOf::Custom(custom) => Some(custom),
            TypesOf::BuiltIn(_) => None,
        }
    }

    /// What is wrong with an object; a custom resource's by its schema, with what it was before where it was.
    pub fn validate(&self, object: &Object, old: Option<&Object>) -> Vec<Cause> {
        match self.custom() {
            Some(custom) => custom.validate(object, old),
            None => (self.kind.validate)(object),
        }
    }

    /// The value of a field that can be selected; `None`: there is no such.
    pub fn field(&self, object: &Object, label: &str) -> Option<String> {
        match self.custom() {
            Some(custom) => custom.field(object, label),
            None => (self.kind.field)(object, label),
        }
    }

    /// Where an object lies in the store. Source: apiserver `registry/generic/registry/store.go`.
    pub fn key(&self, namespace: &str, name: &str) -> Vec<u8> {
        if self.resource.namespaced {
            format!("{}{namespace}/{name}", self.resource.prefix).into_bytes()
        } else {
            format!("{}{name}", self.resource.prefix).into_bytes()
        }
    }

    /// Where all of them lie, or those of a namespace.
    pub fn prefix(&self, namespace: &str) -> Vec<u8> {
        if self.resource.namespaced && !namespace.is_empty() {
            format!("{}{namespace}/", self.resource.prefix).into_bytes()
        } else {
            self.resource.prefix.as_bytes().to_vec()
        }
    }
}

/// Where upstream keeps everything.
pub const ROOT: &str = "/registry";

/// What is served; changes as a whole when a custom resource comes or goes.
pub struct Registry {
    served: RwLock<Arc<[Arc<Served>]>>,
}

impl Registry {
    pub fn new(served: Vec<Arc<Served>>) -> Self {
        Self { served: RwLock::new(served.into()) }
    }

    /// What every server serves.
    pub fn built_in() -> Self {
        Self::built_in_below(ROOT)
    }

    /// The same with all keys below another root (`--etcd-prefix`).
    pub fn built_in_below(root: &str) -> Self {
        let table = corten_schema::builtin();
        let row = |resource: &Resource| {
            let types = TypesOf::BuiltIn(&table.types);
            let kind = crate::kinds::of(&resource.group, &resource.kind);
            let mut resource = resource.clone();
            if let Some(rest) = resource.prefix.strip_prefix(ROOT).filter(|_| root != ROOT) {
                resource.prefix = format!("{root}{rest}").into();
            }
            Arc::new(Served { resource, types, kind })
        };
        Self::new(table.resources.iter().map(row).collect())
    }

    /// All of it, as it is now.
    pub fn all(&self) -> Arc<[Arc<Served>]> {
        Arc::clone(&self.served.read().unwrap_or_else(PoisonError::into_inner))
    }

    pub fn find(&self, group: &str, version: &str, plural: &str) -> Option<Arc<Served>> {
        self.by(|row| row.plural == plural && row.group == group && row.version == version)
    }

    pub fn of_kind(&self, group: &str, version: &str, kind: &str) -> Option<Arc<Served>> {
        self.by(|row| row.kind == kind && row.group == group && row.version == version)
    }

    /// Serves other custom resources than before.
    pub fn replace_custom(&self, custom: impl IntoIterator<Item = Arc<Served>>) {
        let mut served = self.served.write().unwrap_or_else(PoisonError::into_inner);
        let built_in = served.iter().filter(|served| !served.is_custom()).map(Arc::clone);
        *served = built_in.chain(custom).collect();
    }

    fn by(&self, is: impl Fn(&Resource) -> bool) -> Option<Arc<Served>> {
        self.all().iter().find(|served| is(&served.resource)).map(Arc::clone)
    }
}
