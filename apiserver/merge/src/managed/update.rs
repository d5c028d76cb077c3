//! Who manages what after a write that is no apply.

use std::borrow::Cow;
use std::collections::BTreeMap;

use serde_json::{Map, Value};

use super::entries::{self, Entries, Entry, Id, Operation};
use super::{Conflict, Conflicts, EntriesError, Write, ancient, never_owned};
use crate::fields::{Element, Set};
use crate::typed::{Comparison, ItemError, compare, reconcile};

#[derive(Debug, thiserror::Error)]
pub(super) enum UpdateError {
    #[error(transparent)]
    Entries(#[from] EntriesError),
    #[error("failed to compare objects: {0}")]
    Compare(#[from] ItemError),
}

impl Write<'_> {
    /// Brings `new`'s managedFields up to date; `live` is what is stored, `None` for a new object. Before defaults that
    /// the server adds and before admission, as upstream does.
    ///
    /// What cannot be made sense of is dropped: a write never fails for its managedFields.
    pub fn update(&self, live: Option<&Map<String, Value>>, new: &mut Map<String, Value>) {
        let managed = self.updated(live, new).unwrap_or_default();
        entries::put(new, managed);
    }

    fn updated(
        &self,
        live: Option<&Map<String, Value>>,
        new: &mut Map<String, Value>,
    ) -> Result<Option<Value>, UpdateError> {
        let sent = entries::take(new);
        let stored = live.and_then(entries::of);
        let old = live.map_or_else(|| Cow::Owned(self.nothing()), Cow::Borrowed);
        let old = old.as_ref();
        let comparison = self.comparison(old, new)?;
        let sent = if self.subresource.is_empty() { sent } else { None };
        if comparison.is_empty() && sent.as_ref().is_none_or(|sent| Some(sent) == stored) {
            return Ok(sent.or_else(|| stored.cloned()));
        }
        let mut managers = managers(sent, stored);
        // Who never was tracked is not tracked from some time on: only from its creation, or its first apply.
        if managers.is_empty() && live.is_some() {
            return Ok(None);
        }
        self.record(&mut managers, old, new, comparison, self.manager)?;
        ancient::cap(&mut managers);
        Ok(entries::encode(managers))
    }

    /// Gives what differs between two states of the object to a manager.
    pub(super) fn record(
        &self,
        managers: &mut Entries,
        old: &Map<String, Value>,
        new: &Map<String, Value>,
        comparison: Comparison,
        manager: &str,
    ) -> Result<(), UpdateError> {
        self.reconcile(managers);
        let mut own = comparison.modified.clone().union(comparison.added.clone());
        self.give_way(managers, None, old, new, comparison)?.take_from(managers);
        own.subtract(never_owned());
        if own.is_empty() {
            return Ok(());
        }
        let time = Some(self.now.to_owned());
        let entry = managers
            .entry(self.id(manager, Operation::Update))
            .or_insert_with(|| Entry::new(self.api_version, Set::default(), None));
        entry.add(own);
        entry.time = time;
        Ok(())
    }

    /// How the object differs, but for what this write cannot change.
    pub(super) fn comparison(
        &self,
        old: &Map<String, Value>,
        new: &Map<String, Value>,
    ) -> Result<Comparison, ItemError> {
        let mut comparison = compare(self.schema(), old, new)?;
        let mut managed = Set::default();
        managed.insert(&[Element::field("metadata"), Element::field("managedFields")]);
        comparison.removed.subtract(&managed);
        comparison.modified.subtract(&managed);
        comparison.filter(self.ignored);
        Ok(comparison)
    }

    /// Drops managers of versions that are not served any more, and brings the others' sets to today's types.
    pub(super) fn reconcile(&self, managers: &mut Entries) {
        managers.retain(|_, entry| match self.schema_in(&entry.api_version) {
            None => false,
            Some(schema) => {
                if reconcile(&mut entry.set, schema) {
                    entry.written = None;
                }
                true
            }
        });
    }

    /// What the other managers (all but `own`) lose by a change: to who makes it, and because it is gone.
    pub(super) fn give_way(
        &self,
        managers: &Entries,
        own: Option<&Id>,
        old: &Map<String, Value>,
        new: &Map<String, Value>,
        comparison: Comparison,
    ) -> Result<Losses, UpdateError> {
        let mut comparisons = BTreeMap::from([(self.api_version.to_owned(), comparison)]);
        let mut losses = Losses::default();
        for (id, entry) in managers.iter().filter(|(id, _)| own != Some(*id)) {
            if !comparisons.contains_key(&entry.api_version) {
                let converted = self.versions.convert(old, &entry.api_version);
                let converted = converted.zip(self.versions.convert(new, &entry.api_version));
                let (Some((old, new)), Some(schema)) = (converted, self.schema_in(&entry.api_version)) else {
                    losses.unserved.push(id.clone());
                    continue;
                };
                let mut comparison = compare(schema, &old, &new)?;
                comparison.filter(self.ignored);
                comparisons.insert(entry.api_version.clone(), comparison);
            }
            let comparison = &comparisons[&entry.api_version];
            let conflicts =
                entry.set.intersection(&comparison.modified).union(entry.set.intersection(&comparison.added));
            if !conflicts.is_empty() {
                losses.conflicts.insert(id.clone(), conflicts);
            }
            let removed = entry.set.intersection(&comparison.removed);
            if !removed.is_empty() {
                losses.removed.insert(id.clone(), removed);
            }
        }
        Ok(losses)
    }
}

/// What managers lose.
#[derive(Debug, Default)]
pub(super) struct Losses {
    pub conflicts: BTreeMap<Id, Set>,
    removed: BTreeMap<Id, Set>,
    unserved: Vec<Id>,
}

impl Losses {
    pub fn conflicts(&self) -> Option<Conflicts> {
        let conflicts: Vec<Conflict> = self
            .conflicts
            .iter()
            .flat_map(|(id, set)| set.paths().into_iter().map(|path| Conflict { manager: id.clone(), path }))
            .collect();
        (!conflicts.is_empty()).then_some(Conflicts(conflicts))
    }

    pub fn take_from(self, managers: &mut Entries) {
        for (id, set) in self.conflicts.into_iter().chain(self.removed) {
            if let Some(entry) = managers.get_mut(&id) {
                entry.subtract(&set);
            }
        }
        managers.retain(|id, entry| !entry.set.is_empty() && !self.unserved.contains(id));
    }
}

/// Those that the request sent, where it makes sense; else those that are stored.
fn managers(sent: Option<Value>, stored: Option<&Value>) -> Entries {
    if sent.as_ref().is_some_and(entries::is_reset) {
        return Entries::new();
    }
    match entries::decode(sent) {
        Ok(managers) if !managers.is_empty() => managers,
        _ => entries::decode(stored.cloned()).unwrap_or_default(),
    }
}
