//! A request's body as an object of the kind that is expected: JSON, YAML or protobuf; fields that the kind does not
//! have and fields that stand there twice are told, or refused. Source: apiserver `pkg/endpoints/handlers/create.go`,
//! `rest.go` (transformDecodeError), apimachinery `pkg/runtime/serializer`.

use corten_schema::check::{self, Checked};
use corten_schema::{Node, defaults, json as schema_json};
use serde_json::Value;

use crate::crd::Custom;
use crate::object::Object;
use crate::registry::Served;
use crate::request::{Call, Content, Validation, unsupported_media_type};
use crate::status::{Result, Status};

const JSON: &str = "application/json";
const YAML: &str = "application/yaml";

/// What a body must be.
#[derive(Clone, Copy)]
pub struct Expected<'a> {
    pub api_version: &'a str,
    pub kind: &'a str,
    pub node: Node<'a>,
    /// Other versions of the kind are the same to us: `DeleteOptions` of any group, `policy/v1beta1` Evictions.
    pub any_version: bool,
    /// Of a custom resource, which has no form in protobuf.
    pub custom: Option<&'a Custom>,
}

/// A body that was read, and what strict validation has against it.
#[derive(Debug)]
pub struct Decoded {
    pub object: Object,
    pub strict: Vec<String>,
}

/// A body of the kind of a resource: read, checked, with the defaults of its kind.
///
/// # Errors
/// 400, 415 in upstream's words.
pub fn resource(call: &Call, content: &Content, served: &Served, validation: Validation) -> Result<Object> {
    let api_version = served.resource.api_version();
    let expected = Expected {
        api_version: &api_version,
        kind: &served.resource.kind,
        node: served.node(),
        any_version: false,
        custom: served.custom(),
    };
    let mut object = body(call, content, expected, validation)?;
    default(&mut object, served);
    Ok(object)
}

/// A body of any kind; without defaults.
///
/// # Errors
/// As [`resource`].
pub fn body(
    call: &Call,
    content: &Content,
    expected: Expected<'_>,
    validation: Validation,
) -> Result<Object> {
    let decoded = read(content, expected)?;
    match validation {
        Validation::Strict if !decoded.strict.is_empty() => {
            Err(unusable(&decoded.object, expected, &strict_error(&decoded.strict)))
        }
        Validation::Warn => {
            decoded.strict.iter().for_each(|warning| call.warn(warning));
            Ok(decoded.object)
        }
        Validation::Strict | Validation::Ignore => Ok(decoded.object),
    }
}

/// Those of the table, then those that depend on other fields; of another version than is stored once it is converted.
pub fn default(object: &mut Object, served: &Served) {
    let mut value = Value::Object(std::mem::take(&mut object.0));
    defaults::apply(served.node(), &mut value);
    *object = Object::of(value).unwrap_or_default();
    let resource = &served.resource;
    if (&resource.group, &resource.version) == (&resource.stored.0, &resource.stored.1) {
        (served.kind.default)(object);
    }
}

/// `strict decoding error: unknown field "spec.a", ...`
pub fn strict_error(errors: &[String]) -> String {
    format!("strict decoding error: {}", errors.join(", "))
}

/// A body without a look at what strict validation finds.
///
/// # Errors
/// As [`resource`].
pub fn read(content: &Content, expected: Expected<'_>) -> Result<Decoded> {
    let (value, duplicates, text) = match &*content.media_type {
        "" | JSON => {
            let (value, duplicates) = schema_json::parse(&content.bytes)
                .map_err(|error| unrecognized(expected, &error, &content.bytes))?;
            (value, duplicates, Some(content.bytes.clone()))
        }
        YAML => {
            let yaml = yaml(&content.bytes).map_err(|error| {
                unrecognized(expected, &format!("error converting YAML to JSON: {error}"), &content.bytes)
            })?;
            let text = serde_json::to_vec(&yaml).unwrap_or_default();
            (yaml, Vec::new(), Some(text.into()))
        }
        corten_protobuf::MEDIA_TYPE if expected.custom.is_none() => {
            let lookup = |_: &str, _: &str| Some(expected.node);
            let value = corten_protobuf::decode(&content.bytes, lookup)
                .map_err(|error| unrecognized(expected, &error, &content.bytes))?;
            (value, Vec::new(), None)
        }
        _ if expected.custom.is_none() => {
            return Err(unsupported_media_type(&[JSON, YAML, corten_protobuf::MEDIA_TYPE]));
        }
        _ => return Err(unsupported_media_type(&[JSON, YAML])),
    };
    let mut value = value;
    named(&mut value, expected, &content.bytes)?;
    let checked = fields(expected.node, expected.custom, &mut value);
    let strict = match text {
        Some(text) => schema_json::strict_errors(&text, &checked.unknown, &duplicates),
        None => Vec::new(),
    };
    let object = Object::of(value).unwrap_or_default();
    if let Some(error) = checked.errors.first() {
        return Err(unusable(&object, expected, error));
    }
    Ok(Decoded { object, strict })
}

/// Takes out what the kind does not have; says what does not have its type (of a custom resource that is for its own
/// validation to say, but of metadata).
pub fn fields(node: Node<'_>, custom: Option<&Custom>, value: &mut Value) -> Checked {
    let Some(custom) = custom else { return check::check(node, value) };
    let mut checked = Checked { unknown: check::prune(node, value), errors: Vec::new() };
    let any =
        corten_schema::builtin().of_api_version("v1", "ConfigMap").and_then(|node| node.child("metadata"));
    if let (Some(meta), Some(node)) = (value.get_mut("metadata"), any) {
        let found = check::check(node, meta);
        checked.errors = found.errors;
        checked.unknown.extend(found.unknown.into_iter().map(|path| format!("metadata.{path}")));
    }
    let mut object = Object::of(value.take()).unwrap_or_default();
    custom.drop_nulls(&mut object);
    *value = Value::Object(object.0);
    checked
}

/// Its kind and version are those that are expected, or left out.
fn named(value: &mut Value, expected: Expected<'_>, bytes: &[u8]) -> Result<()> {
    const MEMBER: &str = "Go value of type struct { APIVersion string \"json:\\\"apiVersion,omitempty\\\"\"; Kind string \"json:\\\"kind,omitempty\\\"\" }";
    let no_object = |found: &str, into: &str| {
        let error = format!(
            "couldn't get version/kind; json parse error: json: cannot unmarshal {found} into {into}"
        );
        unrecognized(expected, &error, bytes)
    };
    let Value::Object(map) = value else { return Err(no_object(go_kind(value), MEMBER)) };
    for (key, field) in [("apiVersion", "APIVersion"), ("kind", "Kind")] {
        if let Some(other) = map.get(key).filter(|value| !value.is_string() && !value.is_null()) {
            let into = format!("Go struct field .{key} of type string");
            let _ = field;
            return Err(no_object(go_kind(other), &into));
        }
        if map.get(key).and_then(Value::as_str).unwrap_or_default().is_empty() {
            let default = if key == "kind" { expected.kind } else { expected.api_version };
            map.insert(key.to_owned(), default.into());
        }
    }
    let text = |key: &str| map.get(key).and_then(Value::as_str).unwrap_or_default().to_owned();
    let (api_version, kind) = (text("apiVersion"), text("kind"));
    if kind == expected.kind && (expected.any_version || api_version == expected.api_version) {
        return Ok(());
    }
    let object = Object(map.clone());
    if corten_schema::builtin().of_api_version(&api_version, &kind).is_none() {
        let error = format!(
            "no kind \"{kind}\" is registered for version \"{api_version}\" in scheme \"pkg/api/legacyscheme/scheme.go:30\""
        );
        return Err(unusable(&object, expected, &error));
    }
    if kind == expected.kind {
        return Err(Status::bad_request(format!(
            "the API version in the data ({api_version}) does not match the expected API version ({})",
            expected.api_version
        )));
    }
    let short = |api_version: &str| api_version.rsplit('/').next().unwrap_or_default().to_owned();
    let group = match expected.api_version.split_once('/') {
        Some((group, _)) => group.split('.').next().unwrap_or_default(),
        None => "core",
    };
    let error = format!(
        "converting ({}.{kind}) to ({group}.{}): unknown conversion",
        short(&api_version),
        expected.kind
    );
    Err(unusable(&object, expected, &error))
}

/// `Pod in version "v1" cannot be handled as a Deployment: ...`
fn unusable(object: &Object, expected: Expected<'_>, error: &str) -> Status {
    let version = object.api_version().rsplit('/').next().unwrap_or_default().to_owned();
    Status::bad_request(format!(
        "{} in version \"{version}\" cannot be handled as a {}: {error}",
        object.kind(),
        expected.kind
    ))
}

fn unrecognized(expected: Expected<'_>, error: &impl ToString, bytes: &[u8]) -> Status {
    let mut error = error.to_string();
    if !error.contains(':') {
        error = format!("couldn't get version/kind; json parse error: {error}");
    }
    Status::bad_request(format!(
        "the object provided is unrecognized (must be of type {}): {error} ({})",
        expected.kind,
        summary(bytes)
    ))
}

fn summary(bytes: &[u8]) -> String {
    const SHOWN: usize = 30;
    let head = &bytes[..bytes.len().min(SHOWN)];
    let text = match bytes.first() {
        None => return "<empty>".to_owned(),
        Some(b'{') => String::from_utf8_lossy(head).into_owned(),
        Some(_) => head.iter().map(|byte| format!("{byte:02x}")).collect(),
    };
    if bytes.len() > SHOWN { format!("{text} ...") } else { text }
}

/// As Go names what is in JSON.
pub fn go_kind(value: &Value) -> &'static str {
    match value {
        Value::Null => "null",
        Value::Bool(_) => "bool",
        Value::Number(_) => "number",
        Value::String(_) => "string",
        Value::Array(_) => "array",
        Value::Object(_) => "object",
    }
}

/// The parser looks at all open brackets at each word: without a bound 3 MiB of them take hours.
const MAX_YAML_DEPTH: usize = 1000;

/// How deep brackets are nested at most, also those in text.
fn nested(bytes: &[u8]) -> usize {
    let (mut depth, mut most) = (0_usize, 0);
    for byte in bytes {
        match byte {
            b'[' | b'{' => depth += 1,
            b']' | b'}' => depth = depth.saturating_sub(1),
            _ => continue,
        }
        most = most.max(depth);
    }
    most
}

/// YAML as the JSON that it means. Aliases and depth are bounded by the parser.
///
/// # Errors
/// It is no YAML, or none that can be JSON.
pub fn yaml(bytes: &[u8]) -> Result<Value, String> {
    // What clients call YAML is mostly JSON.
    if bytes.first() == Some(&b'{')
        && let Ok((value, _)) = schema_json::parse(bytes)
    {
        return Ok(value);
    }
    if nested(bytes) > MAX_YAML_DEPTH {
        return Err(format!("yaml: exceeded max depth of {MAX_YAML_DEPTH}"));
    }
    let text = std::str::from_utf8(bytes).map_err(|_| "yaml: invalid UTF-8".to_owned())?;
    let value: serde_yaml_ng::Value =
        serde_yaml_ng::from_str(text).map_err(|error| format!("yaml: {error}"))?;
    from_yaml(value)
}

fn from_yaml(value: serde_yaml_ng::Value) -> Result<Value, String> {
    use serde_yaml_ng::Value as Yaml;
    Ok(match value {
        Yaml::Null => Value::Null,
        Yaml::Bool(flag) => Value::Bool(flag),
        Yaml::Number(number) => match (number.as_i64(), number.as_u64()) {
            (Some(number), _) => number.into(),
            (None, Some(number)) => number.into(),
            (None, None) => number.as_f64().into(),
        },
        Yaml::String(text) => Value::String(text),
        Yaml::Sequence(list) => Value::Array(list.into_iter().map(from_yaml).collect::<Result<_, _>>()?),
        Yaml::Mapping(map) => {
            let fields = map.into_iter().map(|(key, value)| {
                let key = match key {
                    Yaml::String(key) => key,
                    Yaml::Bool(key) => key.to_string(),
                    Yaml::Number(key) => key.to_string(),
                    other => return Err(format!("unsupported map key of type: {other:?}")),
                };
                Ok((key, from_yaml(value)?))
            });
            Value::Object(fields.collect::<Result<_, _>>()?)
        }
        Yaml::Tagged(tagged) => from_yaml(tagged.value)?,
    })
}
