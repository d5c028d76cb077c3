//! What the API server knows of its kinds: one table of types and resources, made at build time.
//!
//! Everything generic (field validation, pruning, defaults, patches, apply, protobuf, discovery, OpenAPI) is a walk over
//! this table; nothing has code for a kind. Custom resources have a table of the same form, made while the server runs.
#![forbid(unsafe_code)]

mod builtin;
mod bytes;
pub mod check;
pub mod defaults;
pub mod json;
mod model;
pub mod openapi;
pub mod quantity;
mod scan;
pub mod time;

pub use builtin::{Group, Table, builtin};
pub use model::{
    Column, Field, Format, Go, List, ListKind, Map, Node, Object, Patch, Resource, Rest, Subresource, Text,
    Type, TypeId, Types, Verb, Width, Wire,
};
