//! Server-side apply: what a manager wants, laid over what is there.

use serde_json::{Map, Value};

use super::entries::{self, Entries, Entry, Operation};
use super::{Conflicts, EntriesError, Write, last_applied, never_owned};
use crate::Class;
use crate::fields::equal_maps;
use crate::typed::{Invalid, ItemError, merge, paths, validate};

/// What an apply makes of the object.
#[derive(Debug, Clone)]
pub struct Applied {
    /// With managedFields. Defaults are not yet there again where the apply took something away; it has nulls where the
    /// configuration has them and where the apply took all of something.
    pub object: Map<String, Value>,
    /// It differs from what is stored by more than managedFields.
    pub changed: bool,
}

#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum ApplyError {
    /// 409.
    #[error(transparent)]
    Conflicts(#[from] Conflicts),
    #[error("invalid object type: {0}")]
    Kind(String),
    #[error("metadata.managedFields must be nil")]
    ManagedFields,
    #[error("failed to decode managed fields: {0}")]
    Entries(#[from] EntriesError),
    #[error("failed to create typed patch object ({object}): {cause}")]
    Patch { object: String, cause: Invalid },
    #[error("failed to create typed live object ({object}): {cause}")]
    Live { object: String, cause: String },
}

impl ApplyError {
    /// `None`: 409 with causes.
    pub fn class(&self) -> Option<Class> {
        match self {
            Self::Conflicts(_) => None,
            Self::Kind(_) | Self::ManagedFields => Some(Class::BadRequest),
            Self::Entries(_) | Self::Patch { .. } | Self::Live { .. } => Some(Class::Internal),
        }
    }
}

/// kubectl's manager is the one whose client-side apply is taken over.
const KUBECTL: &str = "kubectl";

impl Write<'_> {
    /// Applies `config` to `live` (`None`: the object is made). `force` takes over what others own.
    pub fn apply(
        &self,
        live: Option<&Map<String, Value>>,
        config: &Map<String, Value>,
        force: bool,
    ) -> Result<Applied, ApplyError> {
        self.check(config)?;
        let mut managers = entries::decode(live.and_then(entries::of).cloned())?;
        let mut old = live.cloned().unwrap_or_default();
        entries::take(&mut old);
        if managers.is_empty() && live.is_some() {
            let nothing = self.nothing();
            let comparison = self.comparison(&nothing, &old).map_err(|cause| self.bad_live(&old, &cause))?;
            self.record(&mut managers, &nothing, &old, comparison, "before-first-apply")
                .map_err(|cause| self.bad_live(&old, &cause))?;
        }
        validate(self.schema(), config)
            .map_err(|cause| ApplyError::Patch { object: self.name(config), cause })?;

        let may_retry = !force && self.manager == KUBECTL;
        let before = may_retry.then(|| managers.clone());
        let mut applied = self.lay_over(&mut managers, &old, config, force);
        if let (Some(before), Err(ApplyError::Conflicts(conflicts))) = (before, &applied) {
            match last_applied::not_allowed(self, &old, conflicts) {
                None => {
                    managers = before;
                    applied = self.lay_over(&mut managers, &old, config, true);
                }
                Some(left) => return Err(left.into()),
            }
        }
        let (mut object, changed) = applied?;
        if self.manager == KUBECTL {
            last_applied::keep_up(&mut object, config);
        }
        entries::put(&mut object, entries::encode(managers));
        Ok(Applied { object, changed: changed || live.is_none() })
    }

    fn check(&self, config: &Map<String, Value>) -> Result<(), ApplyError> {
        let text = |key: &str| config.get(key).and_then(Value::as_str).unwrap_or_default();
        if text("apiVersion") != self.api_version || text("kind") != self.kind {
            return Err(ApplyError::Kind(kind_text(text("apiVersion"), text("kind"))));
        }
        if entries::of(config).is_some() { Err(ApplyError::ManagedFields) } else { Ok(()) }
    }

    fn lay_over(
        &self,
        managers: &mut Entries,
        old: &Map<String, Value>,
        config: &Map<String, Value>,
        force: bool,
    ) -> Result<(Map<String, Value>, bool), ApplyError> {
        let bad_merge = |cause: ItemError| self.bad_live(old, &cause);
        self.reconcile(managers);
        let mut new = old.clone();
        merge(self.schema(), &mut new, config).map_err(bad_merge)?;

        let mut set = paths(self.schema(), config);
        self.ignored.filter(&mut set);
        let id = self.id(self.manager, Operation::Apply);
        let last = managers.remove(&id);
        let time = last.as_ref().and_then(|last| last.time.clone());
        managers.insert(id.clone(), Entry::new(self.api_version, set, time));
        if let Some(last) = last {
            new = self.prune(new, managers, &id, &last);
        }

        let comparison = self.comparison(old, &new).map_err(bad_merge)?;
        let losses = self
            .give_way(managers, Some(&id), old, &new, comparison)
            .map_err(|cause| self.bad_live(old, &cause))?;
        if let (false, Some(conflicts)) = (force, losses.conflicts()) {
            return Err(conflicts.into());
        }
        losses.take_from(managers);
        let changed = !equal_maps(old, &new);
        if let Some(entry) = managers.get_mut(&id) {
            entry.subtract(never_owned());
            if changed {
                entry.time = Some(self.now.to_owned());
            }
            if entry.set.is_empty() {
                managers.remove(&id);
            }
        }
        Ok((new, changed))
    }

    fn bad_live(&self, live: &Map<String, Value>, cause: &dyn std::fmt::Display) -> ApplyError {
        ApplyError::Live { object: self.name(live), cause: cause.to_string() }
    }

    /// `default/web; apps/v1, Kind=Deployment`
    fn name(&self, object: &Map<String, Value>) -> String {
        let text = |key: &str| {
            object
                .get("metadata")
                .and_then(|metadata| metadata.get(key))
                .and_then(Value::as_str)
                .unwrap_or_default()
        };
        format!("{}/{}; {}", text("namespace"), text("name"), kind_text(self.api_version, self.kind))
    }
}

/// As Go prints a GroupVersionKind: `apps/v1, Kind=Deployment`, `/v1, Kind=Pod`.
fn kind_text(api_version: &str, kind: &str) -> String {
    let slash = if api_version.contains('/') { "" } else { "/" };
    format!("{slash}{api_version}, Kind={kind}")
}
