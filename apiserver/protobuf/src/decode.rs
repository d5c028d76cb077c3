//! A message to JSON.

use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use corten_schema::{Field, Node, Object, Type, Width};
use serde_json::map::Entry;
use serde_json::{Map, Value};

use crate::envelope;
use crate::error::{Error, Problem};
use crate::special::{self, Shape};
use crate::wire::{Raw, Reader};

/// What is decoded is stored as JSON, and read again by a parser with a limit of 128.
pub(crate) const MAX_DEPTH: usize = 120;

pub(crate) type Lookup<'l, 'a> = dyn Fn(&str, &str) -> Option<Node<'a>> + 'l;

/// What the walk carries: how deep it is, and where it finds the types of embedded objects.
#[derive(Clone, Copy)]
pub(crate) struct Walk<'l, 'a> {
    pub(crate) lookup: &'l Lookup<'l, 'a>,
    depth: usize,
}

impl Walk<'_, '_> {
    pub(crate) fn deeper(self, levels: usize) -> Result<Self, Problem> {
        let depth = self.depth + levels;
        if depth > MAX_DEPTH { Err(Problem::Depth(MAX_DEPTH)) } else { Ok(Self { depth, ..self }) }
    }
}

pub(crate) fn enveloped(bytes: &[u8], lookup: &Lookup<'_, '_>, depth: usize) -> Result<Value, Error> {
    let envelope = envelope::read(bytes)?;
    let (api_version, kind) = (envelope.api_version, envelope.kind);
    let node = lookup(api_version, kind)
        .ok_or_else(|| Problem::NoKind { api_version: api_version.to_owned(), kind: kind.to_owned() })?;
    let mut object = Map::new();
    message(Walk { lookup, depth }.deeper(1)?, node, envelope.raw, &mut object)?;
    for (key, text) in [("apiVersion", api_version), ("kind", kind)] {
        if !text.is_empty() {
            object.insert(key.to_owned(), text.into());
        }
    }
    Ok(Value::Object(object))
}

/// An embedded object: in an envelope of its own, or JSON.
pub(crate) fn embedded(walk: Walk<'_, '_>, raw: &[u8]) -> Result<Value, Error> {
    if envelope::is_envelope(raw) {
        return enveloped(raw, walk.lookup, walk.depth);
    }
    let value: Value = serde_json::from_slice(raw).map_err(|error| Problem::NotJson(error.to_string()))?;
    walk.deeper(special::depth(&value))?;
    Ok(value)
}

/// The fields of a message into `object`; what is there already is merged with, as protobuf has it.
pub(crate) fn message(
    walk: Walk<'_, '_>,
    node: Node<'_>,
    bytes: &[u8],
    object: &mut Map<String, Value>,
) -> Result<(), Error> {
    let Type::Object(ty) = node.ty() else { return Err(Problem::Form("a type with fields").into()) };
    level(walk, node, ty, &mut Vec::new(), bytes, object)
}

/// `within`: the numbers of the messages around this one that JSON does not have.
fn level(
    walk: Walk<'_, '_>,
    node: Node<'_>,
    ty: &Object,
    within: &mut Vec<u32>,
    bytes: &[u8],
    object: &mut Map<String, Value>,
) -> Result<(), Error> {
    let mut reader = Reader::new(bytes);
    while let Some((number, raw)) = reader.field()? {
        let is = |field: &&Field| field.wire.number == number && field.wire.within[..] == within[..];
        if let Some(found) = ty.fields.iter().find(is) {
            field(walk, node, ty, found, raw, object).map_err(|error| error.within(&found.name))?;
            continue;
        }
        let at = within.len();
        let is_within = |field: &Field| {
            let path = &field.wire.within;
            path.get(at) == Some(&number) && path[..at] == within[..]
        };
        if ty.fields.iter().any(is_within) {
            within.push(number);
            level(walk, node, ty, within, raw.bytes()?, object)?;
            within.pop();
        }
    }
    Ok(())
}

fn field(
    walk: Walk<'_, '_>,
    node: Node<'_>,
    ty: &Object,
    field: &Field,
    raw: Raw<'_>,
    object: &mut Map<String, Value>,
) -> Result<(), Error> {
    let shape = special::shape(ty, field);
    let of = node.at(field.ty);
    if let Shape::Plain = shape {
        match of.ty() {
            Type::List(list) => {
                let Value::Array(items) = slot(object, &field.name, || Value::Array(Vec::new())) else {
                    return Err(Problem::Form("a list").into());
                };
                return elements(walk.deeper(1)?, of.at(list.item), raw, items);
            }
            Type::Map(map) => {
                let Value::Object(entries) = slot(object, &field.name, || Value::Object(Map::new())) else {
                    return Err(Problem::Form("a map").into());
                };
                let value = |raw: Option<Raw<'_>>| map_value(walk.deeper(1)?, of.at(map.value), raw);
                return entry(raw, value, entries);
            }
            Type::Object(_) => {
                let Value::Object(inner) = slot(object, &field.name, || Value::Object(Map::new())) else {
                    return Err(Problem::Form("an object").into());
                };
                return message(walk.deeper(1)?, of, raw.bytes()?, inner);
            }
            _ => {}
        }
    }
    let value = match shape {
        Shape::Plain => scalar(walk, of.ty(), raw)?,
        Shape::Json => special::raw_message(walk, raw.bytes()?)?,
        Shape::JsonList => {
            let item = special::raw_message(walk.deeper(1)?, raw.bytes()?)?.unwrap_or(Value::Null);
            if let Value::Array(items) = slot(object, &field.name, || Value::Array(Vec::new())) {
                items.push(item);
            }
            return Ok(());
        }
        Shape::Dependencies => {
            let Value::Object(entries) = slot(object, &field.name, || Value::Object(Map::new())) else {
                return Err(Problem::Form("a map").into());
            };
            let value = |raw: Option<Raw<'_>>| {
                let bytes = raw.map_or(Ok(&[][..]), Raw::bytes)?;
                special::schema_or_names(walk.deeper(1)?, node, bytes)
            };
            return entry(raw, value, entries);
        }
        Shape::SchemaOrList => Some(special::schema_or_list(walk, node, raw.bytes()?)?),
        Shape::SchemaOrBool => Some(special::schema_or_bool(walk, node, raw.bytes()?)?),
        Shape::Wrapped => Some(list(walk, of, raw.bytes()?)?),
    };
    if let Some(value) = value
        && (field.wire.keeps_zero || !is_zero(&value))
    {
        object.insert(field.name.to_string(), value);
    } else {
        // Written twice, at last as nothing.
        object.remove(&*field.name);
    }
    Ok(())
}

fn slot<'o>(object: &'o mut Map<String, Value>, name: &str, new: fn() -> Value) -> &'o mut Value {
    match object.entry(name) {
        Entry::Occupied(entry) => entry.into_mut(),
        Entry::Vacant(entry) => entry.insert(new()),
    }
}

fn is_zero(value: &Value) -> bool {
    match value {
        Value::String(text) => text.is_empty(),
        Value::Bool(is) => !is,
        Value::Number(number) => number.as_f64() == Some(0.0) && !number.to_string().starts_with('-'),
        _ => false,
    }
}

/// One element of a repeated field, or several numbers packed into one.
fn elements(walk: Walk<'_, '_>, item: Node<'_>, raw: Raw<'_>, items: &mut Vec<Value>) -> Result<(), Error> {
    if let (Raw::Bytes(bytes), Type::Bool | Type::Integer(_) | Type::Number) = (raw, item.ty()) {
        let mut packed = Reader::new(bytes);
        while !packed.is_empty() {
            let raw = match item.ty() {
                Type::Number => Raw::Fixed64(u64::from_le_bytes(packed.array()?)),
                _ => Raw::Varint(packed.varint()?),
            };
            items.extend(scalar(walk, item.ty(), raw)?);
        }
        return Ok(());
    }
    items.push(element(walk, item, Some(raw))?);
    Ok(())
}

/// A value that stands for itself: of a list or a map; `None`: it was not written, so it is zero.
fn element(walk: Walk<'_, '_>, node: Node<'_>, raw: Option<Raw<'_>>) -> Result<Value, Error> {
    match node.ty() {
        Type::Object(_) => {
            let mut object = Map::new();
            message(walk.deeper(1)?, node, raw.map_or(Ok(&[][..]), Raw::bytes)?, &mut object)?;
            Ok(Value::Object(object))
        }
        ty => Ok(match raw {
            Some(raw) => scalar(walk, ty, raw)?.unwrap_or(Value::Null),
            None => special::zero(ty),
        }),
    }
}

/// Maps of lists have a message around each list.
fn map_value(walk: Walk<'_, '_>, node: Node<'_>, raw: Option<Raw<'_>>) -> Result<Value, Error> {
    match node.ty() {
        Type::List(_) => list(walk, node, raw.map_or(Ok(&[][..]), Raw::bytes)?),
        _ => element(walk, node, raw),
    }
}

fn entry(
    raw: Raw<'_>,
    read: impl Fn(Option<Raw<'_>>) -> Result<Value, Error>,
    entries: &mut Map<String, Value>,
) -> Result<(), Error> {
    let (mut key, mut value) = ("", None);
    let mut reader = Reader::new(raw.bytes()?);
    while let Some((number, raw)) = reader.field()? {
        match number {
            1 => key = raw.text()?,
            2 => value = Some(raw),
            _ => {}
        }
    }
    let value = read(value).map_err(|error| error.within(key))?;
    entries.insert(key.to_owned(), value);
    Ok(())
}

/// The items of a list that has a message of its own around it.
pub(crate) fn list(walk: Walk<'_, '_>, node: Node<'_>, bytes: &[u8]) -> Result<Value, Error> {
    let item = node.item().ok_or(Problem::Form("a list"))?;
    let mut items = Vec::new();
    let mut reader = Reader::new(bytes);
    while let Some((number, raw)) = reader.field()? {
        if number == 1 {
            elements(walk.deeper(1)?, item, raw, &mut items)?;
        }
    }
    Ok(Value::Array(items))
}

/// `None`: nothing is there (an empty time, an embedded object without bytes).
fn scalar(walk: Walk<'_, '_>, ty: &Type, raw: Raw<'_>) -> Result<Option<Value>, Error> {
    Ok(Some(match ty {
        Type::Bool => Value::Bool(raw.varint()? != 0),
        Type::String(_) => raw.text()?.into(),
        Type::Integer(Width::I32) => (raw.varint()? as i32).into(),
        Type::Integer(Width::I64) => (raw.varint()? as i64).into(),
        Type::Number => special::number(f64::from_bits(raw.fixed64()?))?,
        Type::Bytes => STANDARD.encode(raw.bytes()?).into(),
        Type::IntOrString => special::int_or_string(raw.bytes()?)?,
        Type::Quantity => special::quantity(raw.bytes()?)?,
        Type::Duration => special::duration(raw.bytes()?)?,
        Type::Time => return Ok(special::time(raw.bytes()?, false)?.map(Value::String)),
        Type::MicroTime => return Ok(special::time(raw.bytes()?, true)?.map(Value::String)),
        Type::Any | Type::FieldsV1 => return special::raw_message(walk, raw.bytes()?),
        Type::Object(_) | Type::Map(_) | Type::List(_) => {
            return Err(Problem::Form("a type without parts").into());
        }
    }))
}
