//! JSON patch (RFC 6902), with the liberties of the library that upstream uses: `replace` of an absent key adds it,
//! indices below zero count from the end, `test` finds `null` where nothing is.

use serde_json::Value;

/// Operations in one patch.
pub const MAX_OPERATIONS: usize = 10_000;
/// What the `copy` operations of one patch may add, in bytes of JSON.
pub const MAX_COPIED_BYTES: usize = 3 * 1024 * 1024;
/// `move` alone can nest without adding a byte; what walks a document recurses.
const MAX_DEPTH: usize = 512;

#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum ParseError {
    /// 400.
    #[error("error decoding patch: json: cannot unmarshal {found} into Go {into}")]
    Shape { found: &'static str, into: &'static str },
    /// 413.
    #[error("The allowed maximum operations in a JSON patch is {MAX_OPERATIONS}, got {0}")]
    TooManyOperations(usize),
}

/// Why a patch does not fit its document: 422, whose message to clients says no more than that.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum ApplyError {
    #[error("Unexpected kind: {0}")]
    UnexpectedKind(String),
    #[error("{operation} operation is missing its {field} field: missing value")]
    MissingField { operation: &'static str, field: &'static str },
    #[error("{operation} operation does not apply: doc is missing path: {path:?}: missing value")]
    MissingPath { operation: &'static str, path: String },
    #[error("error in {operation} for path: '{path}': {cause}")]
    At { operation: &'static str, path: String, cause: AtError },
    #[error("replace operation value must be object or array")]
    RootNotContainer,
    #[error("testing value {0} failed: test failed")]
    TestFailed(String),
    #[error(
        "Unable to complete the copy, the accumulated size increase of copy is {0}, exceeding the limit {MAX_COPIED_BYTES}"
    )]
    CopiedTooMuch(usize),
    #[error("the patch nests the document deeper than {MAX_DEPTH}")]
    TooDeep,
}

#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum AtError {
    #[error("Unable to remove nonexistent key: {0}: missing value")]
    NoKey(String),
    #[error("value was not a proper array index: '{0}'")]
    NotAnIndex(String),
    #[error("Unable to access invalid index: {0}: invalid index referenced")]
    OutOfBounds(i64),
}

/// A patch that was read once and can be applied on each try of an update.
#[derive(Debug, Clone)]
pub struct JsonPatch {
    operations: Vec<Operation>,
    unknown_fields: Vec<String>,
}

#[derive(Debug, Clone, Default)]
struct Operation {
    kind: Option<String>,
    path: Option<String>,
    from: Option<String>,
    value: Value,
}

impl JsonPatch {
    /// `patch`: the parsed body.
    pub fn parse(patch: Value) -> Result<Self, ParseError> {
        let list = match patch {
            Value::Array(list) => list,
            Value::Null => Vec::new(),
            other => {
                return Err(ParseError::Shape {
                    found: json_kind(&other),
                    into: "value of type []handlers.jsonPatchOp",
                });
            }
        };
        if list.len() > MAX_OPERATIONS {
            return Err(ParseError::TooManyOperations(list.len()));
        }
        let mut unknown_fields = Vec::new();
        let operations = list
            .into_iter()
            .enumerate()
            .map(|(index, operation)| Operation::parse(index, operation, &mut unknown_fields))
            .collect::<Result<_, _>>()?;
        Ok(Self { operations, unknown_fields })
    }

    /// Fields that no operation has, as strict validation reports them: `json patch unknown field "[0].x"`.
    pub fn unknown_fields(&self) -> &[String] {
        &self.unknown_fields
    }

    pub fn apply(&self, mut doc: Value) -> Result<Value, ApplyError> {
        let mut bounds = Bounds { copied_bytes: 0, depth: depth(&doc) };
        for operation in &self.operations {
            operation.apply(&mut doc, &mut bounds)?;
        }
        Ok(doc)
    }
}

/// What a patch has used up of what it may.
struct Bounds {
    copied_bytes: usize,
    /// The document is at most this deep.
    depth: usize,
}

impl Bounds {
    fn nest(&mut self, path: &str, depth_of_value: usize) -> Result<(), ApplyError> {
        self.depth = self.depth.max(segments(path) + depth_of_value);
        if self.depth > MAX_DEPTH { Err(ApplyError::TooDeep) } else { Ok(()) }
    }
}

impl Operation {
    fn parse(index: usize, operation: Value, unknown: &mut Vec<String>) -> Result<Self, ParseError> {
        let fields = match operation {
            Value::Object(fields) => fields,
            Value::Null => return Ok(Self::default()),
            other => {
                return Err(ParseError::Shape {
                    found: json_kind(&other),
                    into: "value of type handlers.jsonPatchOp",
                });
            }
        };
        let mut parsed = Self::default();
        for (name, value) in fields {
            match name.as_str() {
                "op" => parsed.kind = text(value, "struct field jsonPatchOp.op of type string")?,
                "path" => parsed.path = text(value, "struct field jsonPatchOp.path of type string")?,
                "from" => parsed.from = text(value, "struct field jsonPatchOp.from of type string")?,
                "value" => parsed.value = value,
                _ => unknown.push(format!("json patch unknown field \"[{index}].{name}\"")),
            }
        }
        Ok(parsed)
    }

    fn apply(&self, doc: &mut Value, bounds: &mut Bounds) -> Result<(), ApplyError> {
        match self.kind.as_deref() {
            Some("add") => self.add(doc, bounds),
            Some("remove") => self.remove(doc),
            Some("replace") => self.replace(doc, bounds),
            Some("move") => self.r#move(doc, bounds),
            Some("copy") => self.copy(doc, bounds),
            Some("test") => self.test(doc),
            other => Err(ApplyError::UnexpectedKind(other.unwrap_or("unknown").to_owned())),
        }
    }

    fn add(&self, doc: &mut Value, bounds: &mut Bounds) -> Result<(), ApplyError> {
        let path = self.path("add")?;
        bounds.nest(path, depth(&self.value))?;
        insert("add", doc, path, self.value.clone())
    }

    fn remove(&self, doc: &mut Value) -> Result<(), ApplyError> {
        take("remove", doc, self.path("remove")?).map(drop)
    }

    fn replace(&self, doc: &mut Value, bounds: &mut Bounds) -> Result<(), ApplyError> {
        let path = self.path("replace")?;
        bounds.nest(path, depth(&self.value))?;
        if path.is_empty() {
            if !self.value.is_object() && !self.value.is_array() {
                return Err(ApplyError::RootNotContainer);
            }
            *doc = self.value.clone();
            return Ok(());
        }
        match container("replace", doc, path)? {
            Container::Object(object, key) => {
                object.insert(key, self.value.clone());
            }
            Container::Array(array, key) => {
                let index = existing(&key, array.len()).map_err(|cause| at("replace", path, cause))?;
                array[index] = self.value.clone();
            }
        }
        Ok(())
    }

    fn r#move(&self, doc: &mut Value, bounds: &mut Bounds) -> Result<(), ApplyError> {
        let from = self.from("move")?;
        let depth_of_value = bounds.depth.saturating_sub(segments(from));
        let value = take("move", doc, from)?;
        let path = self.path("move")?;
        bounds.nest(path, depth_of_value)?;
        insert("move", doc, path, value)
    }

    fn copy(&self, doc: &mut Value, bounds: &mut Bounds) -> Result<(), ApplyError> {
        let from = self.from("copy")?;
        let path = self.path("copy")?;
        let value = look("copy", doc, from)?.cloned().unwrap_or_default();
        bounds.copied_bytes += json_len(&value);
        if bounds.copied_bytes > MAX_COPIED_BYTES {
            return Err(ApplyError::CopiedTooMuch(bounds.copied_bytes));
        }
        bounds.nest(path, depth(&value))?;
        insert("copy", doc, path, value)
    }

    fn test(&self, doc: &mut Value) -> Result<(), ApplyError> {
        let path = self.path("test")?;
        let found = if path.is_empty() { Some(&*doc) } else { look("test", doc, path)? };
        if found.unwrap_or(&Value::Null) == &self.value {
            Ok(())
        } else {
            Err(ApplyError::TestFailed(path.to_owned()))
        }
    }

    fn path(&self, operation: &'static str) -> Result<&str, ApplyError> {
        self.path.as_deref().ok_or(ApplyError::MissingField { operation, field: "path" })
    }

    fn from(&self, operation: &'static str) -> Result<&str, ApplyError> {
        self.from.as_deref().ok_or(ApplyError::MissingField { operation, field: "from" })
    }
}

/// Where an operation acts: what holds the last key of its path, and that key.
enum Container<'a> {
    Object(&'a mut serde_json::Map<String, Value>, String),
    Array(&'a mut Vec<Value>, String),
}

fn container<'a>(
    operation: &'static str,
    doc: &'a mut Value,
    path: &str,
) -> Result<Container<'a>, ApplyError> {
    let missing = || ApplyError::MissingPath { operation, path: path.to_owned() };
    // What stands before the first slash is not looked at.
    let (_, path_below) = path.split_once('/').ok_or_else(missing)?;
    let (parents, last) = path_below.rsplit_once('/').map_or((None, path_below), |(a, b)| (Some(a), b));
    let mut at = doc;
    for part in parents.into_iter().flat_map(|parents| parents.split('/')) {
        at = match at {
            Value::Object(object) => object.get_mut(&decode(part)).ok_or_else(missing)?,
            Value::Array(array) => {
                let index = existing(&decode(part), array.len()).map_err(|_| missing())?;
                &mut array[index]
            }
            _ => return Err(missing()),
        };
    }
    match at {
        Value::Object(object) => Ok(Container::Object(object, decode(last))),
        Value::Array(array) => Ok(Container::Array(array, decode(last))),
        _ => Err(missing()),
    }
}

fn insert(operation: &'static str, doc: &mut Value, path: &str, value: Value) -> Result<(), ApplyError> {
    match container(operation, doc, path)? {
        Container::Object(object, key) => {
            object.insert(key, value);
        }
        Container::Array(array, key) if key == "-" => array.push(value),
        Container::Array(array, key) => {
            // One place more than there are elements: -1 appends.
            let index = existing(&key, array.len() + 1).map_err(|cause| at(operation, path, cause))?;
            array.insert(index, value);
        }
    }
    Ok(())
}

fn take(operation: &'static str, doc: &mut Value, path: &str) -> Result<Value, ApplyError> {
    match container(operation, doc, path)? {
        Container::Object(object, key) => {
            object.remove(&key).ok_or_else(|| at(operation, path, AtError::NoKey(key)))
        }
        Container::Array(array, key) => {
            let index = existing(&key, array.len()).map_err(|cause| at(operation, path, cause))?;
            Ok(array.remove(index))
        }
    }
}

fn look<'a>(
    operation: &'static str,
    doc: &'a mut Value,
    path: &str,
) -> Result<Option<&'a Value>, ApplyError> {
    match container(operation, doc, path)? {
        Container::Object(object, key) => Ok(object.get(&key)),
        Container::Array(array, key) => {
            let index = existing(&key, array.len()).map_err(|cause| at(operation, path, cause))?;
            Ok(array.get(index))
        }
    }
}

fn existing(key: &str, len: usize) -> Result<usize, AtError> {
    let number: i64 = key.parse().map_err(|_| AtError::NotAnIndex(key.to_owned()))?;
    let index = if number < 0 { number.checked_add_unsigned(len as u64) } else { Some(number) };
    index
        .and_then(|index| usize::try_from(index).ok())
        .filter(|index| *index < len)
        .ok_or(AtError::OutOfBounds(number))
}

fn at(operation: &'static str, path: &str, cause: AtError) -> ApplyError {
    ApplyError::At { operation, path: path.to_owned(), cause }
}

fn decode(part: &str) -> String {
    part.replace("~1", "/").replace("~0", "~")
}

fn segments(path: &str) -> usize {
    path.bytes().filter(|byte| *byte == b'/').count()
}

fn depth(value: &Value) -> usize {
    match value {
        Value::Object(object) => 1 + object.values().map(depth).max().unwrap_or(0),
        Value::Array(array) => 1 + array.iter().map(depth).max().unwrap_or(0),
        _ => 0,
    }
}

fn json_len(value: &Value) -> usize {
    struct Count(usize);
    impl std::io::Write for Count {
        fn write(&mut self, bytes: &[u8]) -> std::io::Result<usize> {
            self.0 += bytes.len();
            Ok(bytes.len())
        }
        fn flush(&mut self) -> std::io::Result<()> {
            Ok(())
        }
    }
    let mut count = Count(0);
    serde_json::to_writer(&mut count, value).expect("a Value is JSON and counting cannot fail");
    count.0
}

fn text(value: Value, into: &'static str) -> Result<Option<String>, ParseError> {
    match value {
        Value::String(text) => Ok(Some(text)),
        Value::Null => Ok(None),
        other => Err(ParseError::Shape { found: json_kind(&other), into }),
    }
}

/// As Go's decoder names it.
pub fn json_kind(value: &Value) -> &'static str {
    match value {
        Value::Null => "null",
        Value::Bool(_) => "bool",
        Value::Number(_) => "number",
        Value::String(_) => "string",
        Value::Array(_) => "array",
        Value::Object(_) => "object",
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    fn patched(doc: Value, patch: Value) -> Result<Value, String> {
        JsonPatch::parse(patch).map_err(|e| e.to_string())?.apply(doc).map_err(|e| e.to_string())
    }

    #[test]
    fn each_operation_does_what_rfc_6902_says() {
        for (doc, patch, expected) in [
            (json!({"a": 1}), json!([{"op": "add", "path": "/b", "value": [1]}]), json!({"a": 1, "b": [1]})),
            (
                json!({"a": [1, 3]}),
                json!([{"op": "add", "path": "/a/1", "value": 2}]),
                json!({"a": [1, 2, 3]}),
            ),
            (json!({"a": [1]}), json!([{"op": "add", "path": "/a/-", "value": 2}]), json!({"a": [1, 2]})),
            (json!({"a": 1}), json!([{"op": "remove", "path": "/a"}]), json!({})),
            (json!({"a": [1, 2]}), json!([{"op": "remove", "path": "/a/0"}]), json!({"a": [2]})),
            (json!({"a": 1}), json!([{"op": "replace", "path": "/a", "value": null}]), json!({"a": null})),
            (json!({"a": 1}), json!([{"op": "replace", "path": "", "value": {"b": 2}}]), json!({"b": 2})),
            (
                json!({"a": {"b": 1}}),
                json!([{"op": "move", "from": "/a/b", "path": "/c"}]),
                json!({"a": {}, "c": 1}),
            ),
            (
                json!({"a": [1]}),
                json!([{"op": "copy", "from": "/a/0", "path": "/a/-"}]),
                json!({"a": [1, 1]}),
            ),
            (json!({"a": {"x/y~": 1}}), json!([{"op": "remove", "path": "/a/x~1y~0"}]), json!({"a": {}})),
            (json!({"a": 1}), json!([{"op": "test", "path": "/a", "value": 1}]), json!({"a": 1})),
            (json!({"a": 1}), json!([]), json!({"a": 1})),
        ] {
            assert_eq!(patched(doc.clone(), patch.clone()), Ok(expected), "{doc} {patch}");
        }
    }

    #[test]
    fn liberties_of_upstreams_library() {
        for (doc, patch, expected) in [
            (json!({}), json!([{"op": "replace", "path": "/a", "value": 1}]), json!({"a": 1})),
            (json!({"a": [1, 2]}), json!([{"op": "remove", "path": "/a/-1"}]), json!({"a": [1]})),
            (
                json!({"a": [1, 2]}),
                json!([{"op": "add", "path": "/a/-1", "value": 3}]),
                json!({"a": [1, 2, 3]}),
            ),
            (json!({}), json!([{"op": "test", "path": "/a"}]), json!({})),
            (json!({}), json!([{"op": "copy", "from": "/a", "path": "/b"}]), json!({"b": null})),
            (json!({}), json!([{"op": "add", "path": "/a"}]), json!({"a": null})),
        ] {
            assert_eq!(patched(doc.clone(), patch.clone()), Ok(expected), "{doc} {patch}");
        }
    }

    #[test]
    fn what_does_not_apply_is_an_error() {
        let doc = json!({"a": {"b": [1]}, "s": "x"});
        for operation in [
            json!({"op": "remove", "path": "/no"}),
            json!({"op": "remove", "path": ""}),
            json!({"op": "add", "path": "/no/b", "value": 1}),
            json!({"op": "add", "path": "/s/b", "value": 1}),
            json!({"op": "add", "path": "/a/b/2", "value": 1}),
            json!({"op": "add", "path": "/a/b/x", "value": 1}),
            json!({"op": "add", "path": "/a/b/99999999999999999999", "value": 1}),
            json!({"op": "add", "path": "/a/b/-9223372036854775808", "value": 1}),
            json!({"op": "add", "value": 1}),
            json!({"op": "move", "from": "/no", "path": "/x"}),
            json!({"op": "move", "path": "/x"}),
            json!({"op": "move", "from": "/a", "path": "/a/b"}),
            json!({"op": "copy", "from": "/no/x", "path": "/x"}),
            json!({"op": "test", "path": "/a/b/0", "value": 1.0}),
            json!({"op": "test", "path": "/s", "value": "y"}),
            json!({"op": "replace", "path": "/a/b/-", "value": 1}),
            json!({"op": "replace", "path": "", "value": 1}),
            json!({"op": "frobnicate", "path": "/a"}),
            json!({"path": "/a"}),
            json!(null),
        ] {
            assert!(patched(doc.clone(), json!([operation.clone()])).is_err(), "{operation}");
        }
    }

    #[test]
    fn shapes_are_refused_in_gos_words() {
        for (patch, message) in [
            (
                json!({}),
                "error decoding patch: json: cannot unmarshal object into Go value of type []handlers.jsonPatchOp",
            ),
            (
                json!(["x"]),
                "error decoding patch: json: cannot unmarshal string into Go value of type handlers.jsonPatchOp",
            ),
            (
                json!([{"op": 1}]),
                "error decoding patch: json: cannot unmarshal number into Go struct field jsonPatchOp.op of type string",
            ),
        ] {
            assert_eq!(patched(json!({}), patch), Err(message.to_owned()));
        }
        let patch = JsonPatch::parse(json!([{"op": "add", "path": "/a", "value": 1, "valeu": 2}])).unwrap();
        assert_eq!(patch.unknown_fields(), ["json patch unknown field \"[0].valeu\""]);
    }

    #[test]
    fn ten_thousand_operations_and_no_more() {
        let operation = json!({"op": "add", "path": "/a", "value": 1});
        assert!(patched(json!({}), Value::Array(vec![operation.clone(); MAX_OPERATIONS])).is_ok());
        assert_eq!(
            patched(json!({}), Value::Array(vec![operation; MAX_OPERATIONS + 1])),
            Err("The allowed maximum operations in a JSON patch is 10000, got 10001".to_owned())
        );
    }

    #[test]
    fn copies_that_double_are_stopped_at_three_mebibytes() {
        let copy = json!({"op": "copy", "from": "/a", "path": "/a/-"});
        let error = patched(json!({"a": ["0123456789"]}), Value::Array(vec![copy; 64])).unwrap_err();
        assert!(error.starts_with("Unable to complete the copy"), "{error}");
    }

    #[test]
    fn moves_cannot_nest_without_end() {
        let round = [
            json!({"op": "add", "path": "/b", "value": {}}),
            json!({"op": "move", "from": "/a", "path": "/b/a"}),
            json!({"op": "move", "from": "/b", "path": "/a"}),
        ];
        let patch: Vec<_> = round.iter().cycle().take(9_999).cloned().collect();
        let error = patched(json!({"a": {}}), Value::Array(patch)).unwrap_err();
        assert_eq!(error, "the patch nests the document deeper than 512");
    }
}
