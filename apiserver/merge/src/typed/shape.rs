//! How apply takes a type: as a scalar, a list or a map, and whether as one value.

use corten_schema::{Format, ListKind, Node, Object, Rest, Text, Type};
use serde_json::Value;

#[derive(Debug, Clone, Copy)]
pub(crate) enum Schema<'a> {
    Typed(Node<'a>, Free),
    /// Anything: maps by their fields, lists as one value.
    Deduced,
    /// Anything, as one value.
    Untyped,
}

/// How what may be anything ([`Type::Any`]) is taken.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Free {
    /// Built-in kinds: `RawExtension`.
    AsOneValue,
    /// Custom resources: `x-kubernetes-preserve-unknown-fields`.
    ByFields,
}

#[derive(Debug, Clone, Copy)]
pub(crate) enum Shape<'a> {
    Scalar(Scalar),
    List(Items<'a>),
    Map(Fields<'a>),
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Scalar {
    Numeric,
    String,
    Boolean,
    Untyped,
}

#[derive(Debug, Clone, Copy)]
pub(crate) enum Items<'a> {
    Atomic(Schema<'a>),
    Set(Schema<'a>),
    Map(&'a [Text], Schema<'a>),
}

#[derive(Debug, Clone, Copy)]
pub(crate) enum Fields<'a> {
    Object(Node<'a>, &'a Object, Free),
    Map { value: Schema<'a>, atomic: bool },
}

impl<'a> Schema<'a> {
    /// What `value` is taken as; of types that take several, null and nothing are maps.
    pub fn shape(self, value: Option<&Value>) -> Shape<'a> {
        let (node, free) = match self {
            Self::Typed(node, free) => (node, free),
            Self::Deduced => return any(value, Fields::Map { value: self, atomic: false }),
            Self::Untyped => return any(value, Fields::Map { value: self, atomic: true }),
        };
        match node.ty() {
            Type::Any | Type::FieldsV1 if free == Free::AsOneValue => Self::Untyped.shape(value),
            Type::Any | Type::FieldsV1 => Self::Deduced.shape(value),
            Type::Bool => Shape::Scalar(Scalar::Boolean),
            Type::String(Format::Plain) | Type::Bytes | Type::Duration => Shape::Scalar(Scalar::String),
            Type::Integer(_) | Type::Number => Shape::Scalar(Scalar::Numeric),
            Type::String(Format::DateTime)
            | Type::IntOrString
            | Type::Quantity
            | Type::Time
            | Type::MicroTime => Shape::Scalar(Scalar::Untyped),
            Type::Object(object) => Shape::Map(Fields::Object(node, object, free)),
            Type::Map(map) => {
                Shape::Map(Fields::Map { value: Self::Typed(node.at(map.value), free), atomic: map.atomic })
            }
            Type::List(list) => {
                let item = Self::Typed(node.at(list.item), free);
                Shape::List(match &list.kind {
                    ListKind::Atomic => Items::Atomic(item),
                    ListKind::Set => Items::Set(item),
                    ListKind::Map(keys) => Items::Map(keys, item),
                })
            }
        }
    }

    /// Whether values of several shapes are of this type.
    pub fn is_any(self) -> bool {
        match self {
            Self::Typed(node, _) => matches!(node.ty(), Type::Any | Type::FieldsV1),
            Self::Deduced | Self::Untyped => true,
        }
    }
}

fn any<'a>(value: Option<&Value>, map: Fields<'a>) -> Shape<'a> {
    match value {
        None | Some(Value::Null | Value::Object(_)) => Shape::Map(map),
        Some(Value::Array(_)) => Shape::List(Items::Atomic(Schema::Untyped)),
        Some(_) => Shape::Scalar(Scalar::Untyped),
    }
}

impl<'a> Fields<'a> {
    pub fn is_atomic(self) -> bool {
        match self {
            Self::Object(_, object, _) => object.atomic,
            Self::Map { atomic, .. } => atomic,
        }
    }

    /// The type of a field, and whether it is declared; `None`: there is no such field.
    pub fn get(self, name: &str) -> Option<(Schema<'a>, bool)> {
        match self {
            Self::Object(node, object, free) => match (object.field(name), object.rest) {
                (Some(field), _) => Some((Schema::Typed(node.at(field.ty), free), true)),
                (None, Rest::Typed(id)) => Some((Schema::Typed(node.at(id), free), false)),
                (None, Rest::Kept) => Some((Schema::Deduced, false)),
                (None, Rest::Unknown) => None,
            },
            Self::Map { value, .. } => Some((value, false)),
        }
    }

    /// The same for walks that have no errors: what is not declared is taken as it is.
    pub fn get_or_deduced(self, name: &str) -> (Schema<'a>, bool) {
        self.get(name).unwrap_or((Schema::Deduced, false))
    }
}

impl<'a> Items<'a> {
    pub fn is_atomic(self) -> bool {
        matches!(self, Self::Atomic(_))
    }

    pub fn item(self) -> Schema<'a> {
        match self {
            Self::Atomic(item) | Self::Set(item) | Self::Map(_, item) => item,
        }
    }
}
