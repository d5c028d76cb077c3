//! What is special about a few kinds. Everything else about them is a row of the schema table.

use std::time::Duration;

use crate::auth::User;
use crate::object::Object;
use crate::status::Cause;

/// The special behaviour of a kind. Most have none: [`Kind::PLAIN`].
pub struct Kind {
    /// Defaults that depend on other fields; after the table's.
    pub default: fn(&mut Object),
    /// Makes a new object what it must be: clears status, sets what only the server may.
    pub prepare_create: fn(&mut Object, &Preparing<'_>),
    /// A new version of an object through its main path: keeps what it may not change.
    pub prepare_update: fn(new: &mut Object, old: &Object, &Preparing<'_>),
    /// The same through one of its subresources, by name.
    pub prepare_subresource: fn(subresource: &str, new: &mut Object, old: &Object, &Preparing<'_>),
    pub validate: fn(&Object) -> Vec<Cause>,
    pub validate_update: fn(new: &Object, old: &Object) -> Vec<Cause>,
    pub validate_subresource: fn(subresource: &str, new: &Object, old: &Object) -> Vec<Cause>,
    /// `Warning:` headers for what is accepted but unwise.
    pub warn: fn(&Object) -> Vec<String>,
    /// How long a deletion waits, given what was asked for; `None`: it happens at once.
    pub grace: fn(&Object, asked: Option<u32>) -> Option<u32>,
    /// The value of a field that can be selected (beside metadata.name and metadata.namespace); `None`: no such.
    pub field: fn(&Object, label: &str) -> Option<String>,
    /// Lives so long only.
    pub ttl: Option<Duration>,
    /// `generation` counts changes of everything but metadata and status.
    pub counts_generations: bool,
    /// An update of an object that is not there makes it.
    pub create_on_update: bool,
    /// An update without a resourceVersion overwrites.
    pub unconditional_update: bool,
}

/// What a preparation may know.
pub struct Preparing<'a> {
    pub user: &'a User,
    /// RFC 3339.
    pub now: &'a str,
}

impl Kind {
    pub const PLAIN: Self = Self {
        default: |_| {},
        prepare_create: |_, _| {},
        prepare_update: |_, _, _| {},
        prepare_subresource: |_, _, _, _| {},
        validate: |_| Vec::new(),
        validate_update: |_, _| Vec::new(),
        validate_subresource: |_, _, _| Vec::new(),
        warn: |_| Vec::new(),
        grace: |_, _| None,
        field: |_, _| None,
        ttl: None,
        counts_generations: false,
        create_on_update: false,
        unconditional_update: true,
    };
}

/// The behaviour of a built-in kind.
pub fn of(_group: &str, _kind: &str) -> &'static Kind {
    &Kind::PLAIN
}
