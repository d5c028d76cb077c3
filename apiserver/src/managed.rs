//! Who manages which fields: kept on every write. The rules are [`corten_merge::managed`]'s.

use corten_merge::Class;
use corten_merge::managed::{ApplyError, Ignored, Write};
use http::StatusCode;
use serde_json::Value;

use crate::fresh;
use crate::object::Object;
use crate::registry::Served;
use crate::status::{Cause, Details, Result, Status};

/// The object after a write that was no apply.
pub fn updated(
    served: &Served,
    subresource: &str,
    old: Option<&Object>,
    new: Object,
    manager: &str,
) -> Object {
    let old = old.map(|old| Value::Object(old.0.clone()));
    let mut new = Value::Object(new.0);
    with(served, subresource, manager, |write| write.update(old.as_ref(), &mut new));
    Object::of(new).unwrap_or_default()
}

/// The object after an apply; its defaults are not all there.
///
/// # Errors
/// 400; 409 with the fields that others manage.
pub fn applied(
    served: &Served,
    subresource: &str,
    old: Option<&Object>,
    patch: &Value,
    manager: &str,
    force: bool,
) -> Result<Object> {
    let old = old.map(|old| Value::Object(old.0.clone()));
    let applied = with(served, subresource, manager, |write| write.apply(old.as_ref(), patch, force));
    match applied {
        Ok(applied) => Ok(Object::of(applied.object).unwrap_or_default()),
        Err(error) => Err(refused(&error)),
    }
}

fn with<T>(served: &Served, subresource: &str, manager: &str, write: impl FnOnce(Write<'_>) -> T) -> T {
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
        versions: &(),
    })
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
