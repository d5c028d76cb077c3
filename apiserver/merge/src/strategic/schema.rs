//! What the schema table says of a field that is to be merged.

use corten_schema::{Node, Patch, Rest, Type};

use super::StrategicError;

const REPLACE: Patch = Patch { merge: false, retain_keys: false, key: None };
static REPLACED: Patch = REPLACE;

pub(super) fn field<'a>(node: Node<'a>, key: &str) -> Result<(Node<'a>, &'a Patch), StrategicError> {
    let unknown = |parent: &str| StrategicError::UnknownField {
        parent: parent.rsplit('.').next().unwrap_or_default().to_owned(),
        field: key.to_owned(),
    };
    match node.ty() {
        Type::Object(object) => match (object.field(key), object.rest) {
            (Some(field), _) => Ok((node.at(field.ty), &field.patch)),
            (None, Rest::Typed(id)) => Ok((node.at(id), &REPLACED)),
            (None, _) => Err(unknown(&object.name)),
        },
        Type::Map(map) => Ok((node.at(map.value), &REPLACED)),
        Type::Any => Err(unknown("RawExtension")),
        Type::FieldsV1 => Err(unknown("FieldsV1")),
        Type::IntOrString => Err(unknown("IntOrString")),
        Type::Quantity => Err(unknown("Quantity")),
        Type::Time => Err(unknown("Time")),
        Type::MicroTime => Err(unknown("MicroTime")),
        Type::Duration => Err(unknown("Duration")),
        Type::Bool => Err(StrategicError::NotAStruct("bool")),
        Type::String(_) => Err(StrategicError::NotAStruct("string")),
        Type::Integer(_) => Err(StrategicError::NotAStruct("int64")),
        Type::Number => Err(StrategicError::NotAStruct("float64")),
        Type::Bytes | Type::List(_) => Err(StrategicError::NotAStruct("slice")),
    }
}

/// The items of a list and how it is merged.
pub(super) fn list<'a>(node: Node<'a>, key: &str) -> Result<(Node<'a>, &'a Patch), StrategicError> {
    let (list, how) = field(node, key)?;
    let item = list.item().ok_or(StrategicError::NotAList)?;
    if matches!(item.ty(), Type::List(_)) {
        return Err(StrategicError::SliceOfSlice);
    }
    Ok((item, how))
}
