//! Values walked by their types: which fields they have, how two differ, how one is laid over another.

mod compare;
mod item;
mod merge;
mod paths;
mod reconcile;
mod remove;
mod shape;
mod validate;
mod zero;

pub(crate) use compare::{Comparison, compare};
pub(crate) use item::ItemError;
pub(crate) use merge::merge;
pub(crate) use paths::{mark_named, paths};
pub(crate) use reconcile::reconcile;
pub(crate) use remove::remove_fields;
pub(crate) use shape::{Free, Schema, Shape};
pub(crate) use validate::validate;
pub use validate::{Invalid, InvalidField};
pub(crate) use zero::zero;
