//! PATCH: JSON patch, merge patch, strategic merge patch, apply. Source: apiserver `pkg/endpoints/handlers/patch.go`.

use std::sync::Arc;

use corten_merge::strategic::StrategicError;
use corten_merge::{Class, JsonPatch};
use corten_schema::{Node, json as schema_json};
use http::StatusCode;
use serde_json::{Map, Value};

use crate::api::Api;
use crate::crd::Custom;
use crate::decode;
use crate::managed;
use crate::meta;
use crate::object::Object;
use crate::registry::Served;
use crate::request::{Answer, Call, Content, Validation, WriteOptions, unsupported_media_type};
use crate::status::{Cause, Details, Result, Status};
use crate::write::{Change, Path, Writing};

const JSON_PATCH: &str = "application/json-patch+json";
const MERGE_PATCH: &str = "application/merge-patch+json";
const STRATEGIC: &str = "application/strategic-merge-patch+json";
const APPLY: &str = "application/apply-patch+yaml";

/// A patch that was read once and is applied on each try.
pub struct Patch {
    form: Form,
    /// What strict validation has against the patch itself.
    strict: Vec<String>,
    validation: Validation,
}

enum Form {
    Json(JsonPatch),
    Merge(Value),
    Strategic(Value),
    Apply(Map<String, Value>),
}

/// # Errors
/// 400, 413, 415, 422 of the patch; as [`Writing::update`].
pub async fn patch(api: &Arc<Api>, call: &Call, served: &Arc<Served>, content: &Content) -> Result<Answer> {
    let info = &call.info;
    let options = options(call, content, !served.is_custom())?;
    let patch = Patch::read(content, options.validation)?;
    let main = info.subresource.is_empty();
    let writing = Writing {
        api,
        call,
        served,
        subresource: &info.subresource,
        namespace: &info.namespace,
        name: &info.name,
        options: &options,
    };
    let apply = matches!(patch.form, Form::Apply(_));
    let change = Change {
        create: main && (apply || served.kind.create_on_update),
        track: !apply,
        ..Change::of(if main { Path::Main } else { Path::Part })
    };
    let written = writing
        .update(&change, |old| {
            let patched = match (&patch.form, old) {
                (Form::Apply(patch), old) => managed::applied(
                    &api.registry,
                    served,
                    &info.subresource,
                    old,
                    patch,
                    &options.manager,
                    options.force,
                )?,
                (_, None) => return Err(Status::not_found(&served.resource, &info.name)),
                (_, Some(old)) => Object::of(patch.apply(call, served.node(), old)?).unwrap_or_default(),
            };
            let mut object = patch.check(call, served, patched)?;
            if let (None, false) = (old, object.uid().is_empty()) {
                let why = format!(
                    "uid mismatch: the provided object specified uid {}, and no existing object was found",
                    object.uid()
                );
                return Err(Status::conflict(&served.resource, &info.name, why));
            }
            let namespace = if served.resource.namespaced { &*info.namespace } else { "" };
            meta::take_namespace(&mut object, namespace)?;
            meta::check_name(&object, &info.name)?;
            Ok(object)
        })
        .await?;
    Ok(written.answer(served))
}

/// # Errors
/// 415 of another media type, 422 of options.
pub fn options(call: &Call, content: &Content, strategic: bool) -> Result<WriteOptions> {
    let all = [JSON_PATCH, MERGE_PATCH, STRATEGIC, APPLY];
    let supported: Vec<_> = all.into_iter().filter(|&one| strategic || one != STRATEGIC).collect();
    if !supported.contains(&&*content.media_type) {
        return Err(unsupported_media_type(&supported));
    }
    WriteOptions::of(&call.query, "PatchOptions", content.media_type == APPLY)
}

impl Patch {
    /// # Errors
    /// 400, 413.
    pub fn read(content: &Content, validation: Validation) -> Result<Self> {
        if content.media_type == APPLY {
            let value = decode::yaml(&content.bytes)
                .map_err(|error| Status::bad_request(format!("error decoding YAML: {error}")))?;
            let strict = match schema_json::parse(&content.bytes) {
                Ok((_, twice)) if !twice.is_empty() => {
                    schema_json::strict_errors(&content.bytes, &[], &twice)
                }
                _ => Vec::new(),
            };
            let config = match value {
                Value::Object(config) => config,
                Value::Null => Map::new(),
                other => {
                    let kind = corten_merge::json_kind(&other);
                    return Err(Status::bad_request(format!(
                        "error decoding YAML: error unmarshaling JSON: while decoding JSON: json: cannot unmarshal {kind} into Go value of type map[string]interface {{}}"
                    )));
                }
            };
            return Ok(Self { form: Form::Apply(config), strict, validation });
        }
        let (value, twice) = schema_json::parse(&content.bytes).map_err(|error| {
            let error = error.to_string();
            Status::bad_request(match &*content.media_type {
                STRATEGIC => error,
                _ => format!("error decoding patch: {error}"),
            })
        })?;
        let mut strict = schema_json::strict_errors(&content.bytes, &[], &twice);
        let form = match &*content.media_type {
            JSON_PATCH => {
                let patch = JsonPatch::parse(value).map_err(|error| match error {
                    corten_merge::json_patch::ParseError::TooManyOperations(_) => {
                        // Upstream's, which says how the error begins.
                        let message = format!("Request entity too large: {error}");
                        Status::new(StatusCode::PAYLOAD_TOO_LARGE, "RequestEntityTooLarge", message)
                    }
                    corten_merge::json_patch::ParseError::Shape { .. } => {
                        Status::bad_request(error.to_string())
                    }
                })?;
                strict = strict.into_iter().map(|error| format!("json patch {error}")).collect();
                strict.extend(patch.unknown_fields().iter().cloned());
                Form::Json(patch)
            }
            STRATEGIC => Form::Strategic(value),
            _ => Form::Merge(value),
        };
        Ok(Self { form, strict, validation })
    }

    /// Of an apply: what is applied.
    pub fn applied(&self) -> Option<&Map<String, Value>> {
        match &self.form {
            Form::Apply(config) => Some(config),
            _ => None,
        }
    }

    /// The object after the patch, of which nothing is checked yet. Not for an apply.
    ///
    /// # Errors
    /// 400, 422, 500.
    pub fn apply(&self, call: &Call, node: Node<'_>, old: &Object) -> Result<Value> {
        let _ = call;
        let old = Value::Object(old.0.clone());
        match &self.form {
            Form::Json(patch) => patch.apply(old).map_err(|_| unprocessable()),
            Form::Merge(patch) => corten_merge::merge_patch(old, patch.clone())
                .map_err(|error| Status::bad_request(error.to_string())),
            Form::Strategic(patch) => {
                corten_merge::strategic(node, old, patch.clone()).map_err(|error| strategic_error(&error))
            }
            Form::Apply(_) => Err(Status::internal("an apply is no patch of the object alone")),
        }
    }

    /// The fields of what came out are the kind's; with its defaults.
    ///
    /// # Errors
    /// 422 in upstream's words.
    fn check(&self, call: &Call, served: &Served, object: Object) -> Result<Object> {
        let mut object = self.check_fields(call, served.node(), served.custom(), object)?;
        decode::default(&mut object, served);
        Ok(object)
    }

    /// # Errors
    /// As [`Patch::check`].
    pub fn check_fields(
        &self,
        call: &Call,
        node: Node<'_>,
        custom: Option<&Custom>,
        object: Object,
    ) -> Result<Object> {
        let apply = matches!(self.form, Form::Apply(_));
        let mut value = Value::Object(object.0);
        let before = (!apply).then(|| value.clone());
        let checked = decode::fields(node, custom, &mut value);
        let shown = || match (&self.form, &before) {
            (Form::Strategic(patch), _) => corten_merge::go_format::Go(patch).to_string(),
            (_, Some(value)) => value.to_string(),
            _ => String::new(),
        };
        if let Some(error) = checked.errors.first() {
            return Err(invalid_patch(&shown(), error));
        }
        let mut strict = self.strict.clone();
        if !apply {
            let unknown =
                checked.unknown.iter().map(|path| format!("unknown field {}", schema_json::quote(path)));
            strict.extend(unknown);
        }
        match self.validation {
            Validation::Strict if !strict.is_empty() && apply => {
                return Err(Status::bad_request(format!(
                    "error strict decoding YAML: {}",
                    strict.join(", ")
                )));
            }
            Validation::Strict if !strict.is_empty() => {
                return Err(invalid_patch(&shown(), &decode::strict_error(&strict)));
            }
            Validation::Warn => strict.iter().for_each(|warning| call.warn(warning)),
            Validation::Strict | Validation::Ignore => {}
        }
        Ok(Object::of(value).unwrap_or_default())
    }
}

fn strategic_error(error: &StrategicError) -> Status {
    match error.class() {
        Class::BadRequest => Status::bad_request(error.to_string()),
        Class::TooLarge => {
            Status::new(StatusCode::PAYLOAD_TOO_LARGE, "RequestEntityTooLarge", error.to_string())
        }
        Class::Unprocessable => unprocessable(),
        Class::Internal => Status::new(StatusCode::INTERNAL_SERVER_ERROR, "", error.to_string()),
    }
}

fn unprocessable() -> Status {
    const MESSAGE: &str = "the server rejected our request due to an error in our request";
    Status::new(StatusCode::UNPROCESSABLE_ENTITY, "Invalid", MESSAGE)
}

/// Of no kind, as upstream answers it.
fn invalid_patch(shown: &str, error: &str) -> Status {
    let cause = Cause::invalid("patch", &shown.into(), error);
    let message = format!(" \"\" is invalid: {cause}");
    let details = Details { causes: vec![cause], ..Details::default() };
    Status::new(StatusCode::UNPROCESSABLE_ENTITY, "Invalid", message).with(details)
}
