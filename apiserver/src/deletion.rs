//! What a deletion does to an object: pure. Source: apiserver `pkg/registry/rest/delete.go` (BeforeDelete) and
//! `pkg/registry/generic/registry/store.go` (deletionFinalizersForGarbageCollection, markAsDeleting).

use k8s_openapi::jiff::{SignedDuration, Timestamp};
use serde_json::Value;

use crate::fresh;
use crate::kinds::Kind;
use crate::meta::{FOREGROUND, ORPHAN};
use crate::object::Object;

/// How a deletion was asked for: `DeleteOptions`, or its fields in the query.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Asked {
    pub grace_period_seconds: Option<i64>,
    /// Deletes this object only, not one that came behind it with the same name.
    pub uid: Option<String>,
    /// Deletes this version only.
    pub resource_version: Option<String>,
    pub propagation: Option<Propagation>,
    /// The older form of `propagation`.
    pub orphan_dependents: Option<bool>,
    pub dry_run: bool,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Propagation {
    Orphan,
    Background,
    Foreground,
}

/// What becomes of dependents where nobody says.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub enum Dependents {
    #[default]
    Delete,
    Orphan,
    /// The kind has none: neither finalizer is ever set.
    Unsupported,
}

#[derive(Debug, Clone, PartialEq)]
pub enum Decision {
    /// It waits already, and no shorter than asked for.
    Pending,
    /// Nothing holds it.
    Now,
    /// It is written so; then deleted, where `gone`.
    Mark { object: Object, gone: bool },
}

/// `now`: of the clock.
pub fn decide(kind: &Kind, dependents: Dependents, old: &Object, asked: &Asked, now: Timestamp) -> Decision {
    let mut object = old.clone();
    let graceful = match graceful(kind, &mut object, asked, now) {
        Grace::Pending => return Decision::Pending,
        Grace::None => None,
        Grace::Seconds(seconds) => Some(seconds),
    };
    let begins = old.deletion_timestamp().is_none();
    let own = kind.finalizer.filter(|own| begins && !old.finalizers().any(|had| had == *own));
    let held = take_finalizers(&mut object, dependents, asked, own);
    match graceful {
        Some(seconds) => Decision::Mark { object, gone: !held && seconds == 0 },
        None if held => {
            mark(&mut object, now);
            Decision::Mark { object, gone: false }
        }
        None => Decision::Now,
    }
}

enum Grace {
    None,
    Pending,
    Seconds(i64),
}

fn graceful(kind: &Kind, object: &mut Object, asked: &Asked, now: Timestamp) -> Grace {
    let asked = asked.grace_period_seconds.map(|seconds| if seconds < 0 { 1 } else { seconds });
    let as_asked = asked.map(|seconds| u32::try_from(seconds).unwrap_or(u32::MAX));
    let Some(seconds) = (kind.grace)(object, as_asked) else { return Grace::None };
    let seconds = asked.filter(|_| seconds != 0).unwrap_or(i64::from(seconds));
    if let Some(until) = object.deletion_timestamp().map(fresh::parse_time) {
        let had =
            object.get(&["metadata", "deletionGracePeriodSeconds"]).and_then(Value::as_i64).unwrap_or(0);
        let had = if had < 0 { 1 } else { had };
        return match asked {
            _ if had == 0 => Grace::None,
            // Grace only ever becomes shorter.
            Some(asked) if asked < had => {
                let until = until.unwrap_or(now) - SignedDuration::from_secs(had);
                let until = until + SignedDuration::from_secs(asked);
                // All of it has passed: the one who waits for it is given the shortest.
                let late = until < now;
                let left = if late && asked != 0 { 1 } else { asked };
                object.set_meta("deletionTimestamp", fresh::time(if late { now } else { until }));
                object.set_meta("deletionGracePeriodSeconds", left);
                Grace::Seconds(left)
            }
            _ => Grace::Pending,
        };
    }
    let until = now.checked_add(SignedDuration::from_secs(seconds)).unwrap_or(Timestamp::MAX);
    object.set_meta("deletionTimestamp", fresh::time(until));
    object.set_meta("deletionGracePeriodSeconds", seconds);
    count(object);
    Grace::Seconds(seconds)
}

/// Sets the finalizers of the garbage collector and the kind's own; does any finalizer hold the object?
fn take_finalizers(
    object: &mut Object,
    dependents: Dependents,
    asked: &Asked,
    own: Option<&'static str>,
) -> bool {
    let had: Vec<String> = object.finalizers().map(str::to_owned).collect();
    let has = |name: &str| had.iter().any(|finalizer| finalizer == name);
    let (orphan, foreground) = if dependents == Dependents::Unsupported {
        (false, false)
    } else {
        match (asked.orphan_dependents, asked.propagation) {
            (Some(orphan), _) => (orphan, false),
            (None, Some(policy)) => (policy == Propagation::Orphan, policy == Propagation::Foreground),
            (None, None) if has(ORPHAN) => (true, false),
            (None, None) if has(FOREGROUND) => (false, true),
            (None, None) => (dependents == Dependents::Orphan, false),
        }
    };
    let mut finalizers: Vec<String> =
        had.iter().filter(|finalizer| ![ORPHAN, FOREGROUND].contains(&finalizer.as_str())).cloned().collect();
    finalizers.extend(orphan.then(|| ORPHAN.to_owned()));
    finalizers.extend(foreground.then(|| FOREGROUND.to_owned()));
    finalizers.extend(own.map(str::to_owned));
    let held = !finalizers.is_empty();
    let same = finalizers.len() == had.len() && finalizers.iter().all(|finalizer| has(finalizer));
    if !same {
        if held {
            object.set_meta("finalizers", finalizers);
        } else {
            object.meta_mut().remove("finalizers");
        }
    }
    held
}

/// It is deleted as soon as its finalizers are gone.
fn mark(object: &mut Object, now: Timestamp) {
    let until = object.deletion_timestamp().map(fresh::parse_time);
    if until.is_none() {
        count(object);
    }
    if until.flatten().is_none_or(|until| until > now) {
        object.set_meta("deletionTimestamp", fresh::time(now));
    }
    object.set_meta("deletionGracePeriodSeconds", 0);
}

fn count(object: &mut Object) {
    let generation = object.generation();
    if generation > 0 {
        object.set_meta("generation", generation + 1);
    }
}

/// The last finalizer of an object that waited for it only has been taken away.
pub fn done_by_update(new: &Object, old: &Object) -> bool {
    let grace = old.get(&["metadata", "deletionGracePeriodSeconds"]).and_then(Value::as_i64).unwrap_or(0);
    // A namespace has finalizers of its own kind.
    let own = new.kind() == "Namespace"
        && new.api_version() == "v1"
        && new.get(&["spec", "finalizers"]).and_then(Value::as_array).is_some_and(|list| !list.is_empty());
    new.finalizers().next().is_none() && old.deletion_timestamp().is_some() && grace == 0 && !own
}

/// What becomes of a kind's dependents where nobody says.
pub fn dependents(group: &str, kind: &str) -> Dependents {
    match (group, kind) {
        ("", "ReplicationController") | ("batch", "Job") => Dependents::Orphan,
        ("" | "events.k8s.io", "Event") => Dependents::Unsupported,
        _ => Dependents::Delete,
    }
}

/// A deletion is answered with the object as it was, not with a Status.
pub fn answers_object(group: &str, kind: &str) -> bool {
    matches!(
        (group, kind),
        (
            "",
            "ResourceQuota"
                | "PersistentVolume"
                | "ServiceAccount"
                | "PersistentVolumeClaim"
                | "Namespace"
                | "Pod"
                | "Service"
                | "PodTemplate"
        ) | (
            "storage.k8s.io",
            "CSIDriver" | "StorageClass" | "VolumeAttachment" | "CSINode" | "VolumeAttributesClass"
        ) | ("resource.k8s.io", _)
    )
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    const GRACEFUL: Kind = Kind { grace: |_, asked| Some(asked.unwrap_or(30)), ..Kind::PLAIN };

    fn now() -> Timestamp {
        fresh::parse_time("2026-01-01T00:01:00Z").expect("a time")
    }

    fn after(kind: &Kind, meta: Value, asked: &Asked) -> (Value, Option<bool>) {
        let old = Object::of(json!({ "metadata": meta })).expect("an object");
        match decide(kind, Dependents::Delete, &old, asked, now()) {
            Decision::Pending => (json!("pending"), None),
            Decision::Now => (json!("now"), None),
            Decision::Mark { object, gone } => (object.0["metadata"].clone(), Some(gone)),
        }
    }

    #[test]
    fn an_object_that_nothing_holds_goes_at_once() {
        assert_eq!(after(&Kind::PLAIN, json!({}), &Asked::default()), (json!("now"), None));
        let background = Asked { propagation: Some(Propagation::Background), ..Asked::default() };
        assert_eq!(after(&Kind::PLAIN, json!({"finalizers": ["orphan"]}), &background).0, json!("now"));
    }

    #[test]
    fn finalizers_hold_it_and_propagation_sets_them() {
        let marked = |finalizers: Value, asked: &Asked| {
            let (meta, gone) = after(&Kind::PLAIN, json!({"finalizers": finalizers, "generation": 1}), asked);
            assert_eq!(gone, Some(false));
            assert_eq!(meta["deletionGracePeriodSeconds"], 0);
            assert_eq!(meta["generation"], 2);
            assert_eq!(meta["deletionTimestamp"], "2026-01-01T00:01:00Z");
            meta["finalizers"].clone()
        };
        let by = |propagation| Asked { propagation: Some(propagation), ..Asked::default() };
        assert_eq!(marked(json!(["a/b"]), &Asked::default()), json!(["a/b"]));
        assert_eq!(marked(json!(["a/b"]), &by(Propagation::Orphan)), json!(["a/b", "orphan"]));
        assert_eq!(marked(json!(["orphan"]), &by(Propagation::Foreground)), json!(["foregroundDeletion"]));
        assert_eq!(marked(json!(["foregroundDeletion"]), &Asked::default()), json!(["foregroundDeletion"]));
        let orphan = Asked { orphan_dependents: Some(true), ..Asked::default() };
        assert_eq!(marked(json!([]), &orphan), json!(["orphan"]));
    }

    #[test]
    fn grace_is_set_once_and_only_becomes_shorter() {
        let (meta, gone) = after(&GRACEFUL, json!({}), &Asked::default());
        assert_eq!(gone, Some(false));
        assert_eq!(
            (&meta["deletionTimestamp"], &meta["deletionGracePeriodSeconds"]),
            (&json!("2026-01-01T00:01:30Z"), &json!(30))
        );
        let asked = |seconds| Asked { grace_period_seconds: Some(seconds), ..Asked::default() };
        assert_eq!(after(&GRACEFUL, meta.clone(), &Asked::default()).0, "pending");
        assert_eq!(after(&GRACEFUL, meta.clone(), &asked(60)).0, "pending");
        let (shorter, gone) = after(&GRACEFUL, meta.clone(), &asked(5));
        assert_eq!((gone, &shorter["deletionTimestamp"]), (Some(false), &json!("2026-01-01T00:01:05Z")));
        assert_eq!(after(&GRACEFUL, meta, &asked(0)).1, Some(true));
        let late = json!({"deletionTimestamp": "2026-01-01T00:00:10Z", "deletionGracePeriodSeconds": 30});
        assert_eq!(after(&GRACEFUL, late, &asked(5)).0["deletionGracePeriodSeconds"], 1);
        assert_eq!(after(&GRACEFUL, json!({}), &asked(-7)).0["deletionGracePeriodSeconds"], 1);
        assert_eq!(after(&GRACEFUL, json!({}), &asked(i64::MAX)).1, Some(false));
    }

    #[test]
    fn grace_of_nothing_deletes_unless_a_finalizer_holds() {
        let zero = Asked { grace_period_seconds: Some(0), ..Asked::default() };
        assert_eq!(after(&GRACEFUL, json!({}), &zero).1, Some(true));
        assert_eq!(after(&GRACEFUL, json!({"finalizers": ["a/b"]}), &zero).1, Some(false));
    }

    #[test]
    fn the_last_finalizer_gone_deletes() {
        let object = |value| Object::of(value).expect("an object");
        let old =
            object(json!({"metadata": {"deletionTimestamp": "2026-01-01T00:00:00Z", "finalizers": ["a/b"]}}));
        assert!(done_by_update(&object(json!({"metadata": {}})), &old));
        assert!(!done_by_update(&old, &old));
        let living = object(json!({"metadata": {"finalizers": ["a/b"]}}));
        assert!(!done_by_update(&object(json!({"metadata": {}})), &living));
        let namespace =
            object(json!({"kind": "Namespace", "apiVersion": "v1", "spec": {"finalizers": ["kubernetes"]}}));
        assert!(!done_by_update(&namespace, &old));
    }
}
