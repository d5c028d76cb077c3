//! A custom resource's schema in the form of the schema table, so that checks, pruning, defaults and merges treat it as
//! a built-in type. Source: apiextensions `pkg/apiserver/schema`.

use std::borrow::Cow;

use corten_schema::{
    Field, Format, Go, List, ListKind, Map, Node, Object, Patch, Rest, Text, Type, TypeId, Types, Width, Wire,
};

use super::schema::{Schema, SchemaOrBool};

/// The types of one version of a custom resource; the last one is the object's own.
pub fn types(schema: &Schema) -> (Types, TypeId) {
    let mut build = Build { types: Vec::new(), meta: None };
    let root = build.resource(schema, String::new());
    (Types { types: Cow::Owned(build.types) }, root)
}

struct Build {
    types: Vec<Type>,
    /// ObjectMeta, once somebody needs it.
    meta: Option<TypeId>,
}

impl Build {
    fn add(&mut self, ty: Type) -> TypeId {
        self.types.push(ty);
        TypeId(self.types.len() as u32 - 1)
    }

    /// An object with apiVersion, kind and metadata: the root, or one within.
    fn resource(&mut self, schema: &Schema, name: String) -> TypeId {
        let text = self.add(Type::String(Format::Plain));
        let meta = self.meta();
        let mut fields = self.fields(schema);
        fields.retain(|field| !matches!(&*field.name, "apiVersion" | "kind" | "metadata"));
        fields.extend([("apiVersion", text), ("kind", text), ("metadata", meta)].map(|(name, ty)| Field {
            name: name.into(),
            ty,
            required: false,
            nullable: false,
            default: None,
            patch: Patch::default(),
            wire: Wire::default(),
            go: Go::default(),
        }));
        fields.sort_by(|a, b| a.name.cmp(&b.name));
        let rest = self.rest(schema);
        self.add(Type::Object(Object {
            name: name.into(),
            fields: fields.into(),
            rest,
            atomic: schema.map_type.as_deref() == Some("atomic"),
            embedded: schema.embedded,
        }))
    }

    fn ty(&mut self, schema: &Schema) -> TypeId {
        if schema.embedded {
            return self.resource(schema, String::new());
        }
        let ty = match &*schema.ty {
            _ if schema.int_or_string => Type::IntOrString,
            "object" => return self.object(schema),
            "array" => {
                let item = match schema.item() {
                    Some(item) => self.ty(item),
                    None => self.add(Type::Any),
                };
                let kind = match schema.list_type.as_deref() {
                    Some("set") => ListKind::Set,
                    Some("map") => ListKind::Map(
                        schema.list_map_keys.iter().map(|key| Text::from(key.clone())).collect(),
                    ),
                    _ => ListKind::Atomic,
                };
                Type::List(List { item, kind })
            }
            "string" => Type::String(Format::Plain),
            // What does not fit is the validation's to say.
            "integer" => Type::Integer(Width::I64),
            "number" => Type::Number,
            "boolean" => Type::Bool,
            _ => Type::Any,
        };
        self.add(ty)
    }

    fn object(&mut self, schema: &Schema) -> TypeId {
        let atomic = schema.map_type.as_deref() == Some("atomic");
        if schema.properties.is_empty() && !schema.preserves_unknown() {
            let value = match &schema.additional_properties {
                Some(SchemaOrBool::Schema(value)) => Some(self.ty(value)),
                Some(SchemaOrBool::Bool(true)) => Some(self.add(Type::Any)),
                _ => None,
            };
            if let Some(value) = value {
                return self.add(Type::Map(Map { value, atomic }));
            }
        }
        let fields = self.fields(schema);
        let rest = self.rest(schema);
        let object = Object { name: Text::default(), fields: fields.into(), rest, atomic, embedded: false };
        self.add(Type::Object(object))
    }

    fn fields(&mut self, schema: &Schema) -> Vec<Field> {
        let field = |(name, schema_of): (&String, &Schema)| Field {
            name: name.clone().into(),
            ty: self.ty(schema_of),
            required: schema.required.contains(name),
            nullable: schema_of.nullable,
            default: schema_of.default.as_ref().map(|value| value.to_string().into()),
            patch: Patch::default(),
            wire: Wire::default(),
            go: Go::default(),
        };
        schema.properties.iter().map(field).collect()
    }

    fn rest(&mut self, schema: &Schema) -> Rest {
        match &schema.additional_properties {
            _ if schema.preserves_unknown() => Rest::Kept,
            Some(SchemaOrBool::Schema(value)) => Rest::Typed(self.ty(value)),
            Some(SchemaOrBool::Bool(true)) => Rest::Kept,
            _ => Rest::Unknown,
        }
    }

    /// ObjectMeta out of the built-in table.
    fn meta(&mut self) -> TypeId {
        if let Some(id) = self.meta {
            return id;
        }
        let known = corten_schema::builtin().kind("", "v1", "ConfigMap");
        let id = match known.and_then(|node| node.child("metadata")) {
            Some(node) => self.copy(node),
            None => self.add(Type::Any),
        };
        self.meta = Some(id);
        id
    }

    /// A type of another table and all that it consists of. ObjectMeta refers to nothing that refers back to it.
    fn copy(&mut self, node: Node<'_>) -> TypeId {
        let ty = match node.ty() {
            Type::Object(object) => {
                let mut object = object.clone();
                for field in object.fields.to_mut() {
                    field.ty = self.copy(node.at(field.ty));
                }
                if let Rest::Typed(id) = object.rest {
                    object.rest = Rest::Typed(self.copy(node.at(id)));
                }
                Type::Object(object)
            }
            Type::Map(map) => Type::Map(Map { value: self.copy(node.at(map.value)), atomic: map.atomic }),
            Type::List(list) => {
                Type::List(List { item: self.copy(node.at(list.item)), kind: list.kind.clone() })
            }
            plain => plain.clone(),
        };
        self.add(ty)
    }
}
