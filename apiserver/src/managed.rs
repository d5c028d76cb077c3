//! Who manages which fields: kept on every write. The rules are [`corten_merge::managed`]'s.

use std::sync::Arc;

use corten_merge::Class;
use corten_merge::managed::{ApplyError, Ignored, Versions, Write};
use corten_schema::Node;
use http::StatusCode;
use serde_json::{Map, Value};

use crate::fresh;
use crate::kinds::convert::convert;
use crate::object::Object;
use crate::registry::{Registry, Served};
use crate::status::{Cause, Details, Result, Status};

/// The object after a write that was no apply.
pub fn updated(
    registry: &Registry,
    served: &Served,
    subresource: &str,
    old: Option<&Object>,
    mut new: Object,
    manager: &str,
) -> Object {
    let old = old.map(|old| &old.0);
    with(registry, served, subresource, manager, |write| write.update(old, &mut new.0));
    new
}

/// The object after an apply; its defaults are not all there.
///
/// # Errors
/// 400; 409 with the fields that others manage.
pub fn applied(
    registry: &Registry,
    served: &Served,
    subresource: &str,
    old: Option<&Object>,
    patch: &Map<String, Value>,
    manager: &str,
    force: bool,
) -> Result<Object> {
    let old = old.map(|old| &old.0);
    let applied = with(registry, served, subresource, manager, |write| write.apply(old, patch, force));
    applied.map(|applied| Object(applied.object)).map_err(|error| refused(&error))
}

fn with<T>(
    registry: &Registry,
    served: &Served,
    subresource: &str,
    manager: &str,
    write: impl FnOnce(Write<'_>) -> T,
) -> T {
    let resource = &served.resource;
    let main_has_status = resource.subresource("status").is_some();
    let ignored =
        Ignored::of(&resource.group, &resource.kind, subresource, main_has_status, served.is_custom());
    write(Write {
        node: served.node(),
        api_version: &resource.api_version(),
        kind: &resource.kind,
        subresource,
        manager,
        now: &fresh::now(),
        is_custom: served.is_custom(),
        ignored: &ignored,
        versions: &Others::of(registry, served),
    })
}

/// The other versions of a resource: those whose objects lie in the same place.
struct Others(Vec<Arc<Served>>);

impl Others {
    fn of(registry: &Registry, served: &Served) -> Self {
        let resource = &served.resource;
        let is_other = |row: &&Arc<Served>| {
            row.resource.prefix == resource.prefix
                && row.resource.kind == resource.kind
                && (&row.resource.group, &row.resource.version) != (&resource.group, &resource.version)
        };
        Self(registry.all().iter().filter(is_other).map(Arc::clone).collect())
    }
}

impl Versions for Others {
    fn node(&self, api_version: &str) -> Option<Node<'_>> {
        self.0.iter().find(|row| row.resource.api_version() == api_version).map(|row| row.node())
    }

    fn convert(&self, object: &Map<String, Value>, api_version: &str) -> Option<Map<String, Value>> {
        let mut object = Object(object.clone());
        convert(&mut object, api_version);
        Some(object.0)
    }
}

/// An apply that cannot be made, as it is answered.
pub fn refused(error: &ApplyError) -> Status {
    let ApplyError::Conflicts(conflicts) = error else {
        return match error.class() {
            Some(Class::BadRequest) => Status::bad_request(error.to_string()),
            _ => Status::new(StatusCode::INTERNAL_SERVER_ERROR, "", error.to_string()),
        };
    };
    let causes = conflicts.0.iter().map(|conflict| Cause {
        reason: "FieldManagerConflict",
        message: conflict.message(),
        field: conflict.path.to_string(),
    });
    let details = Details { causes: causes.collect(), ..Details::default() };
    Status::new(StatusCode::CONFLICT, "Conflict", error.to_string()).with(details)
}
