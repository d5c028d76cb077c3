//! Types whose message is not what their JSON looks like.

use corten_schema::{Field, Node, Object, Type};
use serde_json::{Map, Number, Value};

use crate::decode::{self, Walk};
use crate::error::{Error, Problem};
use crate::wire::{Reader, try_write_message, write_bytes, write_message, write_varint};
use crate::{encode, text};

/// How a field differs from what its type says.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Shape {
    Plain,
    /// Any JSON, as bytes in a message.
    Json,
    JsonList,
    /// A schema or a list of schemas.
    SchemaOrList,
    SchemaOrBool,
    /// By names: a schema or a list of names.
    Dependencies,
    /// A list with a message around it, which lets it be empty and not absent.
    Wrapped,
}

/// Source: apiextensions `v1/types_jsonschema.go`; apimachinery `meta/v1/types.go` (Verbs).
pub(crate) fn shape(object: &Object, field: &Field) -> Shape {
    if object.name.ends_with("apiextensions.v1.JSONSchemaProps") {
        return match &*field.name {
            "default" | "example" => Shape::Json,
            "enum" => Shape::JsonList,
            "items" => Shape::SchemaOrList,
            "additionalItems" | "additionalProperties" => Shape::SchemaOrBool,
            "dependencies" => Shape::Dependencies,
            _ => Shape::Plain,
        };
    }
    if field.name == "verbs" && object.name.ends_with("meta.v1.APIResource") {
        return Shape::Wrapped;
    }
    Shape::Plain
}

/// JSONSchemaPropsOrArray: a schema (1) or schemas (2).
pub(crate) fn schema_or_list(walk: Walk<'_, '_>, schema: Node<'_>, bytes: &[u8]) -> Result<Value, Error> {
    let (mut single, mut list) = (None, Vec::new());
    let mut reader = Reader::new(bytes);
    while let Some((number, raw)) = reader.field()? {
        match number {
            1 => single = Some(props(walk, schema, raw.bytes()?)?),
            2 => list.push(props(walk.deeper(1)?, schema, raw.bytes()?)?),
            _ => {}
        }
    }
    Ok(if list.is_empty() { single.unwrap_or(Value::Null) } else { Value::Array(list) })
}

pub(crate) fn write_schema_or_list(schema: Node<'_>, value: &Value, out: &mut Vec<u8>) -> Result<(), Error> {
    match value {
        Value::Array(list) => list
            .iter()
            .try_for_each(|item| try_write_message(out, 2, |out| encode::message(schema, item, out))),
        single => try_write_message(out, 1, |out| encode::message(schema, single, out)),
    }
}

/// JSONSchemaPropsOrStringArray: a schema (1) or names (2).
pub(crate) fn schema_or_names(walk: Walk<'_, '_>, schema: Node<'_>, bytes: &[u8]) -> Result<Value, Error> {
    let (mut single, mut names) = (None, Vec::new());
    let mut reader = Reader::new(bytes);
    while let Some((number, raw)) = reader.field()? {
        match number {
            1 => single = Some(props(walk, schema, raw.bytes()?)?),
            2 => names.push(Value::from(raw.text()?)),
            _ => {}
        }
    }
    Ok(single.unwrap_or(Value::Array(names)))
}

pub(crate) fn write_schema_or_names(schema: Node<'_>, value: &Value, out: &mut Vec<u8>) -> Result<(), Error> {
    let Value::Array(names) = value else {
        return try_write_message(out, 1, |out| encode::message(schema, value, out));
    };
    for name in names {
        write_bytes(out, 2, name.as_str().ok_or(Problem::Form("a name"))?.as_bytes());
    }
    Ok(())
}

/// JSONSchemaPropsOrBool: allowed (1), or a schema (2).
pub(crate) fn schema_or_bool(walk: Walk<'_, '_>, schema: Node<'_>, bytes: &[u8]) -> Result<Value, Error> {
    let (mut allows, mut single) = (false, None);
    let mut reader = Reader::new(bytes);
    while let Some((number, raw)) = reader.field()? {
        match number {
            1 => allows = raw.varint()? != 0,
            2 => single = Some(props(walk, schema, raw.bytes()?)?),
            _ => {}
        }
    }
    Ok(single.unwrap_or(Value::Bool(allows)))
}

pub(crate) fn write_schema_or_bool(schema: Node<'_>, value: &Value, out: &mut Vec<u8>) -> Result<(), Error> {
    if let Value::Bool(allows) = value {
        write_varint(out, 1, u64::from(*allows));
        return Ok(());
    }
    write_varint(out, 1, 1);
    try_write_message(out, 2, |out| encode::message(schema, value, out))
}

fn props(walk: Walk<'_, '_>, schema: Node<'_>, bytes: &[u8]) -> Result<Value, Error> {
    let mut object = Map::new();
    decode::message(walk.deeper(1)?, schema, bytes, &mut object)?;
    Ok(Value::Object(object))
}

/// RawExtension, JSON, FieldsV1: JSON, or for a RawExtension also an enveloped object, in bytes (1).
pub(crate) fn raw_message(walk: Walk<'_, '_>, bytes: &[u8]) -> Result<Option<Value>, Error> {
    let mut found: &[u8] = &[];
    let mut reader = Reader::new(bytes);
    while let Some((number, raw)) = reader.field()? {
        if number == 1 {
            found = raw.bytes()?;
        }
    }
    if found.is_empty() { Ok(None) } else { decode::embedded(walk, found).map(Some) }
}

pub(crate) fn write_raw(value: &Value, out: &mut Vec<u8>) {
    write_bytes(out, 1, value.to_string().as_bytes());
}

/// How many levels a value has.
pub(crate) fn depth(value: &Value) -> usize {
    match value {
        Value::Array(items) => 1 + items.iter().map(depth).max().unwrap_or_default(),
        Value::Object(fields) => 1 + fields.values().map(depth).max().unwrap_or_default(),
        _ => 0,
    }
}

/// Which it is (1: 0 a number, 1 text), the number (2), the text (3).
pub(crate) fn int_or_string(bytes: &[u8]) -> Result<Value, Error> {
    let (mut is_text, mut number, mut text) = (false, 0, "");
    let mut reader = Reader::new(bytes);
    while let Some((field, raw)) = reader.field()? {
        match field {
            1 => is_text = raw.varint()? == 1,
            2 => number = raw.varint()? as i32,
            3 => text = raw.text()?,
            _ => {}
        }
    }
    Ok(if is_text { text.into() } else { number.into() })
}

pub(crate) fn write_int_or_string(value: &Value, out: &mut Vec<u8>) -> Result<(), Error> {
    let (number, text) = match value {
        Value::String(text) => (0, text.as_str()),
        other => (integer(other)?, ""),
    };
    write_varint(out, 1, u64::from(value.is_string()));
    write_varint(out, 2, number as u64);
    write_bytes(out, 3, text.as_bytes());
    Ok(())
}

pub(crate) fn quantity(bytes: &[u8]) -> Result<Value, Error> {
    let mut text = "";
    let mut reader = Reader::new(bytes);
    while let Some((number, raw)) = reader.field()? {
        if number == 1 {
            text = raw.text()?;
        }
    }
    Ok(if text.is_empty() { "0" } else { text }.into())
}

pub(crate) fn write_quantity(value: &Value, out: &mut Vec<u8>) -> Result<(), Error> {
    match value {
        Value::String(text) => write_bytes(out, 1, text.as_bytes()),
        Value::Number(number) => write_bytes(out, 1, number.to_string().as_bytes()),
        _ => return Err(Problem::Form("a quantity").into()),
    }
    Ok(())
}

/// Nanoseconds (1).
pub(crate) fn duration(bytes: &[u8]) -> Result<Value, Error> {
    let mut nanos = 0;
    let mut reader = Reader::new(bytes);
    while let Some((number, raw)) = reader.field()? {
        if number == 1 {
            nanos = raw.varint()? as i64;
        }
    }
    Ok(text::duration(nanos).into())
}

pub(crate) fn write_duration(value: &Value, out: &mut Vec<u8>) -> Result<(), Error> {
    let nanos =
        value.as_str().and_then(text::parse_duration).ok_or(Problem::Form("a duration such as 1m30s"))?;
    write_varint(out, 1, nanos as u64);
    Ok(())
}

/// Seconds (1) and nanoseconds (2) since 1970; a zero time has no bytes. Upstream drops what is below a second of a
/// Time, below a microsecond of a MicroTime.
pub(crate) fn time(bytes: &[u8], micro: bool) -> Result<Option<String>, Error> {
    if bytes.is_empty() {
        return Ok(None);
    }
    let (mut seconds, mut nanos) = (0, 0);
    let mut reader = Reader::new(bytes);
    while let Some((number, raw)) = reader.field()? {
        match number {
            1 => seconds = raw.varint()? as i64,
            2 => nanos = raw.varint()? as i32,
            _ => {}
        }
    }
    let carry = i64::from(nanos.div_euclid(1_000_000_000));
    let micros = micro.then_some(nanos.rem_euclid(1_000_000_000) as u32 / 1000);
    let seconds = if micro { seconds.saturating_add(carry) } else { seconds };
    Ok(Some(text::rfc3339(seconds, micros).ok_or(Problem::Time(seconds))?))
}

pub(crate) fn write_time(value: &Value, micro: bool, out: &mut Vec<u8>) -> Result<(), Error> {
    let (seconds, nanos) =
        value.as_str().and_then(text::parse_rfc3339).ok_or(Problem::Form("a time as RFC 3339 writes it"))?;
    write_varint(out, 1, seconds as u64);
    write_varint(out, 2, u64::from(if micro { nanos / 1000 * 1000 } else { 0 }));
    Ok(())
}

/// As Go writes it: without a fraction where there is none.
pub(crate) fn number(value: f64) -> Result<Value, Error> {
    const EXACT: f64 = 9_007_199_254_740_992.0;
    if value.fract() == 0.0 && value.abs() < EXACT && !(value == 0.0 && value.is_sign_negative()) {
        return Ok((value as i64).into());
    }
    Ok(Value::Number(Number::from_f64(value).ok_or(Problem::Form("a finite number"))?))
}

pub(crate) fn integer(value: &Value) -> Result<i64, Error> {
    // Numbers such as 5.0 are integers in Go's JSON only when written as such.
    Ok(value.as_i64().ok_or(Problem::Form("an integer"))?)
}

/// What a value is that was not written.
pub(crate) fn zero(ty: &Type) -> Value {
    match ty {
        Type::Bool => Value::Bool(false),
        Type::Integer(_) | Type::Number | Type::IntOrString => 0.into(),
        Type::String(_) | Type::Bytes => "".into(),
        Type::Quantity => "0".into(),
        Type::Duration => "0s".into(),
        Type::List(_) => Value::Array(Vec::new()),
        Type::Object(_) | Type::Map(_) => Value::Object(Map::new()),
        Type::Any | Type::Time | Type::MicroTime | Type::FieldsV1 => Value::Null,
    }
}

/// A list whose message is its own: items (1).
pub(crate) fn write_wrapped(
    node: Node<'_>,
    value: &Value,
    number: u32,
    out: &mut Vec<u8>,
) -> Result<(), Error> {
    try_write_message(out, number, |out| encode::list(node, value, 1, out))
}

/// The parts of a value whose message is not its JSON's, as a message.
pub(crate) fn write_message_of(
    ty: &Type,
    value: &Value,
    number: u32,
    out: &mut Vec<u8>,
) -> Result<(), Error> {
    try_write_message(out, number, |out| match ty {
        Type::IntOrString => write_int_or_string(value, out),
        Type::Quantity => write_quantity(value, out),
        Type::Duration => write_duration(value, out),
        Type::Time => write_time(value, false, out),
        Type::MicroTime => write_time(value, true, out),
        _ => {
            write_raw(value, out);
            Ok(())
        }
    })
}

/// JSON within a message.
pub(crate) fn write_json(value: &Value, number: u32, out: &mut Vec<u8>) {
    write_message(out, number, |out| write_raw(value, out));
}
