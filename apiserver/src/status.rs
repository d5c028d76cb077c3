//! The errors of the API: `Status` objects with upstream's reasons and words, which clients branch on.
//! Source: apimachinery `pkg/api/errors/errors.go`.

use std::fmt;
use std::time::Duration;

use corten_schema::Resource;
use http::StatusCode;
use serde_json::{Value, json};

/// A failure that is answered. Boxed: results stay small.
#[derive(Debug, Clone, PartialEq)]
pub struct Status(Box<Inner>);

#[derive(Debug, Clone, PartialEq)]
struct Inner {
    code: StatusCode,
    reason: &'static str,
    message: String,
    details: Details,
    /// Details are shown though they say nothing.
    bare_details: bool,
    /// Where a list may go on though it is no longer the same.
    continue_token: String,
}

/// What it is about.
#[derive(Debug, Clone, Default, PartialEq)]
pub struct Details {
    pub group: String,
    /// The plural; for `Invalid` the kind.
    pub kind: String,
    pub name: String,
    pub uid: String,
    pub causes: Vec<Cause>,
    pub retry_after: Option<Duration>,
}

/// One thing that is wrong with an object.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Cause {
    /// `FieldValueRequired`, `FieldValueInvalid`, ... ; empty where upstream has none.
    pub reason: &'static str,
    /// Without the field.
    pub message: String,
    /// `spec.containers[0].name`.
    pub field: String,
}

pub type Result<T, E = Status> = std::result::Result<T, E>;

impl Status {
    pub fn new(code: StatusCode, reason: &'static str, message: impl Into<String>) -> Self {
        Self(Box::new(Inner {
            code,
            reason,
            message: message.into(),
            details: Details::default(),
            bare_details: false,
            continue_token: String::new(),
        }))
    }

    pub fn not_found(resource: &Resource, name: &str) -> Self {
        let message = format!("{} \"{name}\" not found", resource.group_resource());
        Self::new(StatusCode::NOT_FOUND, "NotFound", message).about(resource, name)
    }

    /// No such path.
    pub fn no_such_path() -> Self {
        Self::new(StatusCode::NOT_FOUND, "NotFound", "the server could not find the requested resource")
            .with_bare_details()
    }

    pub fn already_exists(resource: &Resource, name: &str) -> Self {
        let message = format!("{} \"{name}\" already exists", resource.group_resource());
        Self::new(StatusCode::CONFLICT, "AlreadyExists", message).about(resource, name)
    }

    pub fn conflict(resource: &Resource, name: &str, why: impl fmt::Display) -> Self {
        let message =
            format!("Operation cannot be fulfilled on {} \"{name}\": {why}", resource.group_resource());
        Self::new(StatusCode::CONFLICT, "Conflict", message).about(resource, name)
    }

    /// The conflict of an update with an old resourceVersion.
    pub fn modified(resource: &Resource, name: &str) -> Self {
        const WHY: &str =
            "the object has been modified; please apply your changes to the latest version and try again";
        Self::conflict(resource, name, WHY)
    }

    pub fn invalid(resource: &Resource, name: &str, causes: Vec<Cause>) -> Self {
        let list = match &*causes {
            [one] => one.to_string(),
            _ => {
                format!("[{}]", causes.iter().map(ToString::to_string).collect::<Vec<_>>().join(", "))
            }
        };
        let message = format!("{} \"{name}\" is invalid: {list}", resource.group_kind());
        let details = Details {
            group: resource.group.to_string(),
            kind: resource.kind.to_string(),
            name: name.to_owned(),
            causes,
            ..Details::default()
        };
        Self::new(StatusCode::UNPROCESSABLE_ENTITY, "Invalid", message).with(details)
    }

    pub fn bad_request(message: impl Into<String>) -> Self {
        Self::new(StatusCode::BAD_REQUEST, "BadRequest", message)
    }

    pub fn unauthorized() -> Self {
        Self::new(StatusCode::UNAUTHORIZED, "Unauthorized", "Unauthorized")
    }

    /// An admission plugin or a strategy refuses.
    pub fn forbidden(resource: &Resource, name: &str, why: impl fmt::Display) -> Self {
        let object = if name.is_empty() {
            resource.group_resource()
        } else {
            format!("{} \"{name}\"", resource.group_resource())
        };
        let message = format!("{object} is forbidden: {why}");
        Self::new(StatusCode::FORBIDDEN, "Forbidden", message).about(resource, name)
    }

    pub fn method_not_allowed() -> Self {
        const MESSAGE: &str = "the server does not allow this method on the requested resource";
        Self::new(StatusCode::METHOD_NOT_ALLOWED, "MethodNotAllowed", MESSAGE).with_bare_details()
    }

    /// A resourceVersion or a continue token of history that is compacted.
    pub fn expired(message: impl Into<String>) -> Self {
        Self::new(StatusCode::GONE, "Expired", message)
    }

    pub fn too_large(limit: usize) -> Self {
        let message = format!("Request entity too large: limit is {limit}");
        Self::new(StatusCode::PAYLOAD_TOO_LARGE, "RequestEntityTooLarge", message)
    }

    pub fn internal(why: impl fmt::Display) -> Self {
        let message = format!("Internal error occurred: {why}");
        Self::new(StatusCode::INTERNAL_SERVER_ERROR, "InternalError", message)
    }

    #[must_use]
    pub fn about(mut self, resource: &Resource, name: &str) -> Self {
        self.0.details.group = resource.group.to_string();
        self.0.details.kind = resource.plural.to_string();
        name.clone_into(&mut self.0.details.name);
        self
    }

    #[must_use]
    pub fn with(mut self, details: Details) -> Self {
        self.0.details = details;
        self
    }

    #[must_use]
    pub fn retry_after(mut self, time: Duration) -> Self {
        self.0.details.retry_after = Some(time);
        self
    }

    /// In the metadata, as upstream's answer to an old continue token has it.
    #[must_use]
    pub fn continue_with(mut self, token: String) -> Self {
        self.0.continue_token = token;
        self
    }

    /// As errors that upstream makes of no object have them: `"details":{}`.
    #[must_use]
    pub fn with_bare_details(mut self) -> Self {
        self.0.bare_details = true;
        self
    }

    pub fn code(&self) -> StatusCode {
        self.0.code
    }

    pub fn reason(&self) -> &'static str {
        self.0.reason
    }

    pub fn message(&self) -> &str {
        &self.0.message
    }

    pub fn details(&self) -> &Details {
        &self.0.details
    }

    pub fn to_json(&self) -> Value {
        let mut status = json!({
            "kind": "Status", "apiVersion": "v1", "metadata": {}, "status": "Failure",
            "message": self.0.message, "code": self.0.code.as_u16(),
        });
        if !self.0.continue_token.is_empty() {
            status["metadata"]["continue"] = self.0.continue_token.as_str().into();
        }
        if !self.0.reason.is_empty() {
            status["reason"] = self.0.reason.into();
        }
        let bare = self.0.bare_details.then(|| json!({}));
        if let Some(details) = self.0.details.to_json().or(bare) {
            status["details"] = details;
        }
        status
    }
}

impl Details {
    /// `None` where nothing is said.
    pub fn to_json(&self) -> Option<Value> {
        let mut details = serde_json::Map::new();
        for (key, text) in
            [("name", &self.name), ("group", &self.group), ("kind", &self.kind), ("uid", &self.uid)]
        {
            if !text.is_empty() {
                details.insert(key.to_owned(), text.as_str().into());
            }
        }
        if !self.causes.is_empty() {
            details.insert("causes".to_owned(), self.causes.iter().map(Cause::to_json).collect());
        }
        if let Some(time) = self.retry_after {
            details.insert("retryAfterSeconds".to_owned(), time.as_secs().into());
        }
        (!details.is_empty()).then_some(Value::Object(details))
    }
}

impl fmt::Display for Status {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0.message)
    }
}

impl std::error::Error for Status {}

impl Cause {
    pub fn required(field: impl Into<String>, detail: &str) -> Self {
        let message =
            if detail.is_empty() { "Required value".to_owned() } else { format!("Required value: {detail}") };
        Self { reason: "FieldValueRequired", message, field: field.into() }
    }

    /// `value` as it is shown: text in quotes.
    pub fn invalid(field: impl Into<String>, value: &Value, detail: impl fmt::Display) -> Self {
        let message = format!("Invalid value: {}: {detail}", shown(value));
        Self { reason: "FieldValueInvalid", message, field: field.into() }
    }

    pub fn unsupported(field: impl Into<String>, value: &Value, supported: &[&str]) -> Self {
        let list = supported.iter().map(|one| format!("\"{one}\"")).collect::<Vec<_>>().join(", ");
        let message = format!("Unsupported value: {}: supported values: {list}", shown(value));
        Self { reason: "FieldValueNotSupported", message, field: field.into() }
    }

    pub fn forbidden(field: impl Into<String>, detail: impl fmt::Display) -> Self {
        Self { reason: "FieldValueForbidden", message: format!("Forbidden: {detail}"), field: field.into() }
    }

    pub fn duplicate(field: impl Into<String>, value: &Value) -> Self {
        let message = format!("Duplicate value: {}", shown(value));
        Self { reason: "FieldValueDuplicate", message, field: field.into() }
    }

    pub fn not_found(field: impl Into<String>, value: &Value) -> Self {
        let message = format!("Not found: {}", shown(value));
        Self { reason: "FieldValueNotFound", message, field: field.into() }
    }

    pub fn too_long(field: impl Into<String>, limit: usize) -> Self {
        let message = format!("Too long: may not be more than {limit} bytes");
        Self { reason: "FieldValueTooLong", message, field: field.into() }
    }

    pub fn too_many(field: impl Into<String>, have: usize, limit: usize) -> Self {
        let message = format!("Too many: {have}: must have at most {limit} items");
        Self { reason: "FieldValueTooMany", message, field: field.into() }
    }

    fn to_json(&self) -> Value {
        let mut cause = serde_json::Map::new();
        for (key, text) in [("reason", self.reason), ("message", &self.message), ("field", &self.field)] {
            if !text.is_empty() {
                cause.insert(key.to_owned(), text.into());
            }
        }
        Value::Object(cause)
    }
}

impl fmt::Display for Cause {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        if self.field.is_empty() {
            return f.write_str(&self.message);
        }
        write!(f, "{}: {}", self.field, self.message)
    }
}

fn shown(value: &Value) -> String {
    // As Go's %q and the JSON of everything else.
    value.to_string()
}
