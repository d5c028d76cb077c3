//! What an applier said last time and does not say any more goes, where nobody else owns it.

use serde_json::{Map, Value};

use super::Write;
use super::entries::{Entries, Entry, Id};
use crate::fields::Set;
use crate::typed::{Schema, Shape, mark_named, paths, remove_fields};

impl Write<'_> {
    /// `merged`: the object with the new configuration laid over it; `managers` has the applier's new set.
    pub(super) fn prune(
        &self,
        merged: Map<String, Value>,
        managers: &Entries,
        applier: &Id,
        last: &Entry,
    ) -> Map<String, Value> {
        let new = &managers[applier];
        let nothing_left_out = last.api_version == new.api_version && last.set.is_subset(&new.set);
        if last.set.is_empty() || nothing_left_out {
            return merged;
        }
        let Some((merged_then, schema)) = self.in_version(&merged, &last.api_version) else { return merged };
        let mut pruned = merged_then.clone();
        cut(schema, &mut pruned, &named(last.set.clone(), schema));
        let pruned = self.add_back_owned(&merged_then, pruned, &last.api_version, managers);
        let Some((pruned, _)) = self.in_version(&pruned, &last.api_version) else { return merged };

        let mut gone = named(paths(schema, &merged_then), schema);
        gone.subtract(&named(paths(schema, &pruned), schema));
        let gone = gone.intersection(&named(last.set.clone(), schema));
        let mut result = merged_then;
        cut(schema, &mut result, &gone);
        self.in_version(&result, &new.api_version).map_or(merged, |(result, _)| result)
    }

    /// What went with something that others own parts of, or what they own, comes back.
    fn add_back_owned(
        &self,
        merged: &Map<String, Value>,
        pruned: Map<String, Value>,
        first: &str,
        managers: &Entries,
    ) -> Map<String, Value> {
        let mut versions: Vec<&str> = managers.values().map(|entry| entry.api_version.as_str()).collect();
        versions.sort_unstable();
        versions.dedup();
        // Without what only this version needs, conversion could fail.
        versions.sort_by_key(|version| *version != first);
        let mut pruned = pruned;
        for version in versions {
            let both = self.in_version(merged, version).zip(self.in_version(&pruned, version));
            let Some(((mut merged, schema), (left, _))) = both else { continue };
            let mut kept = paths(schema, &left);
            for entry in managers.values().filter(|entry| entry.api_version == version) {
                kept = kept.union(entry.set.clone());
            }
            let mut gone = named(paths(schema, &merged), schema);
            gone.subtract(&named(kept, schema));
            cut(schema, &mut merged, &gone);
            pruned = merged;
        }
        pruned
    }

    fn in_version(
        &self,
        object: &Map<String, Value>,
        api_version: &str,
    ) -> Option<(Map<String, Value>, Schema<'_>)> {
        let schema = self.schema_in(api_version)?;
        let own = object.get("apiVersion").and_then(Value::as_str).unwrap_or(self.api_version);
        let object =
            if own == api_version { object.clone() } else { self.versions.convert(object, api_version)? };
        Some((object, schema))
    }
}

fn named(mut set: Set, schema: Schema<'_>) -> Set {
    mark_named(&mut set, Some(schema));
    set
}

fn cut(schema: Schema<'_>, object: &mut Map<String, Value>, gone: &Set) {
    if let Shape::Map(fields) = schema.shape(None) {
        remove_fields(fields, object, gone);
    }
}
