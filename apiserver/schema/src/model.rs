//! The form of the table. The built-in table lies in read-only memory; a custom resource's owns its parts: hence `Cow`.

use std::borrow::Cow;

pub type Text = Cow<'static, str>;

/// An index into [`Types`].
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub struct TypeId(pub u32);

/// Types that refer to each other.
#[derive(Debug, Clone, Default)]
pub struct Types {
    pub types: Cow<'static, [Type]>,
}

#[derive(Debug, Clone)]
pub enum Type {
    /// Anything: `RawExtension`, `JSON`, a custom resource's schema without a type.
    Any,
    Bool,
    String(Format),
    Integer(Width),
    Number,
    IntOrString,
    Quantity,
    /// RFC 3339, seconds.
    Time,
    /// RFC 3339, microseconds.
    MicroTime,
    /// Go's `1h2m3s`.
    Duration,
    /// Base64 in JSON.
    Bytes,
    /// A set of fields, kept as it is.
    FieldsV1,
    Object(Object),
    Map(Map),
    List(List),
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Format {
    Plain,
    DateTime,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Width {
    I32,
    I64,
}

#[derive(Debug, Clone)]
pub struct Object {
    /// The name in OpenAPI (`io.k8s.api.core.v1.PodSpec`); empty for an object within a custom resource.
    pub name: Text,
    /// In order of their names.
    pub fields: Cow<'static, [Field]>,
    /// Fields that are not in `fields`.
    pub rest: Rest,
    /// Apply takes it as one value (`x-kubernetes-map-type: atomic`).
    pub atomic: bool,
    /// It is an object with apiVersion, kind and metadata of its own (`x-kubernetes-embedded-resource`).
    pub embedded: bool,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Rest {
    /// Unknown: dropped, or an error when validation is strict.
    Unknown,
    /// `x-kubernetes-preserve-unknown-fields`.
    Kept,
    /// `additionalProperties` beside `properties`.
    Typed(TypeId),
}

#[derive(Debug, Clone)]
pub struct Field {
    pub name: Text,
    pub ty: TypeId,
    pub required: bool,
    /// `null` is a value, not the absence of one (custom resources only).
    pub nullable: bool,
    /// As JSON.
    pub default: Option<Text>,
    pub patch: Patch,
    pub wire: Wire,
    pub go: Go,
}

/// What messages of upstream name a field's Go code by.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Go {
    /// Its type, where that cannot be told from the schema: `v1.Protocol`.
    pub ty: Option<Text>,
    /// The structures it is embedded by, with dots between them (`VolumeSource`); mostly empty.
    pub embedded: Text,
}

/// Where a field lies in protobuf. Source: the tags in upstream's types.go.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Wire {
    /// 0: it is not there.
    pub number: u32,
    /// Numbers of the messages around it that JSON does not have, outermost first: what is embedded without a name of
    /// its own upstream is a message here (`hostPath` of a Volume: `[2]`).
    pub within: Cow<'static, [u32]>,
    /// JSON has it even when it is zero or empty: it is a pointer upstream, or has no `omitempty`.
    pub keeps_zero: bool,
}

/// How a strategic merge patch treats a field (`x-kubernetes-patch-strategy`, `x-kubernetes-patch-merge-key`).
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Patch {
    /// A list is merged by `key`, or as a set of primitives; otherwise it is replaced.
    pub merge: bool,
    pub retain_keys: bool,
    pub key: Option<Text>,
}

#[derive(Debug, Clone)]
pub struct Map {
    pub value: TypeId,
    pub atomic: bool,
}

#[derive(Debug, Clone)]
pub struct List {
    pub item: TypeId,
    pub kind: ListKind,
}

/// `x-kubernetes-list-type`.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum ListKind {
    Atomic,
    Set,
    /// By the values of these fields.
    Map(Cow<'static, [Text]>),
}

/// A type and the table it is of: what walks take.
#[derive(Debug, Clone, Copy)]
pub struct Node<'a> {
    pub types: &'a Types,
    pub id: TypeId,
}

impl<'a> Node<'a> {
    pub fn ty(self) -> &'a Type {
        &self.types.types[self.id.0 as usize]
    }

    #[must_use]
    pub fn at(self, id: TypeId) -> Self {
        Self { types: self.types, id }
    }

    /// The named field of an object, declared or by its `rest`; the value of a map.
    pub fn child(self, name: &str) -> Option<Self> {
        match self.ty() {
            Type::Object(object) => match (object.field(name), object.rest) {
                (Some(field), _) => Some(self.at(field.ty)),
                (None, Rest::Typed(id)) => Some(self.at(id)),
                (None, Rest::Unknown | Rest::Kept) => None,
            },
            Type::Map(map) => Some(self.at(map.value)),
            _ => None,
        }
    }

    pub fn field(self, name: &str) -> Option<&'a Field> {
        match self.ty() {
            Type::Object(object) => object.field(name),
            _ => None,
        }
    }

    /// What a list is of.
    pub fn item(self) -> Option<Self> {
        match self.ty() {
            Type::List(list) => Some(self.at(list.item)),
            _ => None,
        }
    }
}

impl Object {
    pub fn field(&self, name: &str) -> Option<&Field> {
        let at = self.fields.binary_search_by(|field| field.name.as_ref().cmp(name)).ok()?;
        Some(&self.fields[at])
    }
}

/// A served resource: one row of the table.
#[derive(Debug, Clone)]
pub struct Resource {
    /// Empty for the core group.
    pub group: Text,
    pub version: Text,
    pub kind: Text,
    pub plural: Text,
    pub singular: Text,
    pub short_names: Cow<'static, [Text]>,
    pub categories: Cow<'static, [Text]>,
    pub namespaced: bool,
    pub verbs: Cow<'static, [Verb]>,
    pub subresources: Cow<'static, [Subresource]>,
    /// The type of its objects.
    pub ty: TypeId,
    /// Where upstream keeps its objects, with a slash at the end: `/registry/pods/`.
    pub prefix: Text,
    /// The version that objects are stored in (group, version); another than its own where two versions are served.
    pub stored: (Text, Text),
    pub columns: Cow<'static, [Column]>,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Verb {
    Create,
    Delete,
    DeleteCollection,
    Get,
    List,
    Patch,
    Update,
    Watch,
}

#[derive(Debug, Clone)]
pub struct Subresource {
    pub name: Text,
    /// Of what is sent and answered; not the resource's own for `scale`, `binding`, `eviction`, `token`.
    pub group: Text,
    pub version: Text,
    pub kind: Text,
    pub verbs: Cow<'static, [Verb]>,
}

/// A column of a Table.
#[derive(Debug, Clone)]
pub struct Column {
    pub name: Text,
    /// `string`, `integer`, `number`, `boolean`, `date`.
    pub ty: Text,
    pub format: Text,
    pub description: Text,
    /// Above 0: shown with `-o wide` only.
    pub priority: i32,
    /// Of a custom resource: where its cell comes from (JSONPath); empty for a built-in column.
    pub path: Text,
}

impl Verb {
    pub fn name(self) -> &'static str {
        match self {
            Self::Create => "create",
            Self::Delete => "delete",
            Self::DeleteCollection => "deletecollection",
            Self::Get => "get",
            Self::List => "list",
            Self::Patch => "patch",
            Self::Update => "update",
            Self::Watch => "watch",
        }
    }
}

impl Resource {
    /// `apps/v1`, `v1`.
    pub fn api_version(&self) -> String {
        if self.group.is_empty() {
            self.version.to_string()
        } else {
            format!("{}/{}", self.group, self.version)
        }
    }

    /// As messages name it: `deployments.apps`, `pods`.
    pub fn group_resource(&self) -> String {
        if self.group.is_empty() {
            self.plural.to_string()
        } else {
            format!("{}.{}", self.plural, self.group)
        }
    }

    /// As messages name it: `Deployment.apps`, `Pod`.
    pub fn group_kind(&self) -> String {
        if self.group.is_empty() { self.kind.to_string() } else { format!("{}.{}", self.kind, self.group) }
    }

    pub fn subresource(&self, name: &str) -> Option<&Subresource> {
        self.subresources.iter().find(|subresource| subresource.name == name)
    }
}
