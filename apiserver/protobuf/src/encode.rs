//! JSON to a message. Fields are written by their numbers and map entries by their keys, as upstream's encoder does.

use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use corten_schema::{Field, Node, Object, Type, Width};
use serde_json::Value;

use crate::error::{Error, Problem};
use crate::special::{self, Shape};
use crate::wire::{try_write_message, write_bytes, write_fixed64, write_varint};

/// The fields of an object; those that have no number or are null are left out.
pub(crate) fn message(node: Node<'_>, value: &Value, out: &mut Vec<u8>) -> Result<(), Error> {
    let (Type::Object(ty), Value::Object(object)) = (node.ty(), value) else {
        return Err(Problem::Form("an object").into());
    };
    let mut members: Vec<(&Field, &Value)> = object
        .iter()
        .filter(|(_, value)| !value.is_null())
        .filter_map(|(name, value)| Some((ty.field(name)?, value)))
        .filter(|(field, _)| field.wire.number > 0)
        .collect();
    members.sort_by(|(a, _), (b, _)| path(a).cmp(path(b)));
    level(node, ty, &members, 0, out)
}

fn path(field: &Field) -> impl Iterator<Item = u32> {
    field.wire.within.iter().copied().chain([field.wire.number])
}

/// `members`: all within the same messages, down to `depth`.
fn level(
    node: Node<'_>,
    ty: &Object,
    members: &[(&Field, &Value)],
    depth: usize,
    out: &mut Vec<u8>,
) -> Result<(), Error> {
    for run in members.chunk_by(|(a, _), (b, _)| {
        let at = |field: &Field| field.wire.within.get(depth).copied();
        at(a).is_some() && at(a) == at(b)
    }) {
        let (first, value) = run[0];
        match first.wire.within.get(depth) {
            Some(&number) => try_write_message(out, number, |out| level(node, ty, run, depth + 1, out))?,
            None => field(node, ty, first, value, out).map_err(|error| error.within(&first.name))?,
        }
    }
    Ok(())
}

fn field(node: Node<'_>, ty: &Object, field: &Field, value: &Value, out: &mut Vec<u8>) -> Result<(), Error> {
    let of = node.at(field.ty);
    let number = field.wire.number;
    match special::shape(ty, field) {
        Shape::Plain => match of.ty() {
            Type::List(_) => list(of, value, number, out),
            Type::Map(map) => {
                entries(value, number, out, |value, out| map_value(of.at(map.value), value, out))
            }
            _ => single(of, value, number, out),
        },
        Shape::Json => {
            special::write_json(value, number, out);
            Ok(())
        }
        Shape::JsonList => {
            let items = value.as_array().ok_or(Problem::Form("a list"))?;
            for item in items {
                special::write_json(item, number, out);
            }
            Ok(())
        }
        Shape::SchemaOrList => {
            try_write_message(out, number, |out| special::write_schema_or_list(node, value, out))
        }
        Shape::SchemaOrBool => {
            try_write_message(out, number, |out| special::write_schema_or_bool(node, value, out))
        }
        Shape::Dependencies => entries(value, number, out, |value, out| {
            try_write_message(out, 2, |out| special::write_schema_or_names(node, value, out))
        }),
        Shape::Wrapped => special::write_wrapped(of, value, number, out),
    }
}

fn entries(
    value: &Value,
    number: u32,
    out: &mut Vec<u8>,
    mut write: impl FnMut(&Value, &mut Vec<u8>) -> Result<(), Error>,
) -> Result<(), Error> {
    let mut entries: Vec<_> = value.as_object().ok_or(Problem::Form("a map"))?.iter().collect();
    entries.sort_by_key(|(key, _)| *key);
    for (key, value) in entries {
        try_write_message(out, number, |out| {
            write_bytes(out, 1, key.as_bytes());
            if value.is_null() { Ok(()) } else { write(value, out) }
        })
        .map_err(|error: Error| error.within(key))?;
    }
    Ok(())
}

/// Maps of lists have a message around each list.
fn map_value(node: Node<'_>, value: &Value, out: &mut Vec<u8>) -> Result<(), Error> {
    match node.ty() {
        Type::List(_) => special::write_wrapped(node, value, 2, out),
        _ => single(node, value, 2, out),
    }
}

pub(crate) fn list(node: Node<'_>, value: &Value, number: u32, out: &mut Vec<u8>) -> Result<(), Error> {
    let item = node.item().ok_or(Problem::Form("a list"))?;
    let items = value.as_array().ok_or(Problem::Form("a list"))?;
    items.iter().try_for_each(|value| single(item, value, number, out))
}

fn single(node: Node<'_>, value: &Value, number: u32, out: &mut Vec<u8>) -> Result<(), Error> {
    match node.ty() {
        Type::Bool => write_varint(out, number, value.as_bool().ok_or(Problem::Form("a boolean"))?.into()),
        Type::String(_) => write_bytes(out, number, text(value)?.as_bytes()),
        Type::Integer(Width::I32 | Width::I64) => write_varint(out, number, special::integer(value)? as u64),
        Type::Number => {
            write_fixed64(out, number, value.as_f64().ok_or(Problem::Form("a number"))?.to_bits());
        }
        Type::Bytes => {
            let bytes = STANDARD.decode(text(value)?).map_err(|_| Problem::Form("base64"))?;
            write_bytes(out, number, &bytes);
        }
        Type::Object(_) => return try_write_message(out, number, |out| message(node, value, out)),
        Type::Map(_) | Type::List(_) => return Err(Problem::Form("a type that protobuf has").into()),
        ty => return special::write_message_of(ty, value, number, out),
    }
    Ok(())
}

fn text(value: &Value) -> Result<&str, Problem> {
    value.as_str().ok_or(Problem::Form("text"))
}
