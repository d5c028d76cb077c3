//! Who gets which name: two definitions of one group cannot both have a plural, a kind or a short name.
//! Source: apiextensions `pkg/controller/status/naming_controller.go`.

use std::collections::BTreeSet;

use serde_json::{Value, json};

use crate::object::Object;

/// What a definition's status should be, given all others.
#[derive(Debug, PartialEq)]
pub struct Named {
    pub accepted: Value,
    /// NamesAccepted, and Established where it is not yet.
    pub conditions: Vec<Condition>,
}

#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Condition {
    pub ty: &'static str,
    pub status: &'static str,
    pub reason: &'static str,
    pub message: String,
}

impl Condition {
    pub fn new(ty: &'static str, status: bool, reason: &'static str, message: impl Into<String>) -> Self {
        Self { ty, status: if status { "True" } else { "False" }, reason, message: message.into() }
    }
}

/// Decides for `definition`; `all` may contain it.
pub fn decide<'a>(definition: &Object, all: impl Iterator<Item = &'a Object>) -> Named {
    let group = definition.text(&["spec", "group"]);
    let (mut resources, mut kinds) = (BTreeSet::new(), BTreeSet::new());
    for other in all.filter(|other| other.text(&["spec", "group"]) == group) {
        let names = |path: &str| other.text(&["status", "acceptedNames", path]).to_owned();
        resources.extend([names("plural"), names("singular")]);
        resources.extend(texts(other.get(&["status", "acceptedNames", "shortNames"])));
        kinds.extend([names("kind"), names("listKind")]);
    }
    let empty = json!({});
    let wanted = definition.get(&["spec", "names"]).unwrap_or(&empty);
    let had = definition.get(&["status", "acceptedNames"]).unwrap_or(&empty);
    let mut accepted = had.clone();
    let mut refused = None;
    let text = |of: &Value, name: &str| of.get(name).and_then(Value::as_str).unwrap_or_default().to_owned();
    let free = |name: &str, used: &BTreeSet<String>| !used.contains(name);
    for (name, reason, used) in
        [("plural", "PluralConflict", &resources), ("singular", "SingularConflict", &resources)]
    {
        take(name, reason, used, &text, (wanted, had), &mut accepted, &mut refused);
    }
    let (short, short_had) = (texts(wanted.get("shortNames")), texts(had.get("shortNames")));
    let taken: Vec<_> = short
        .iter()
        .filter(|name| !short_had.contains(name) && !free(name, &resources))
        .map(|name| format!("{name:?} is already in use"))
        .collect();
    match &*taken {
        [] => set(&mut accepted, wanted, "shortNames"),
        [one] => refused = Some(("ShortNamesConflict", one.clone())),
        more => refused = Some(("ShortNamesConflict", format!("[{}]", more.join(", ")))),
    }
    for (name, reason) in [("kind", "KindConflict"), ("listKind", "ListKindConflict")] {
        take(name, reason, &kinds, &text, (wanted, had), &mut accepted, &mut refused);
    }
    set(&mut accepted, wanted, "categories");

    let was_established = is(definition, "Established");
    let mut conditions = Vec::new();
    if let Some((reason, message)) = refused {
        conditions.push(Condition::new("NamesAccepted", false, reason, message));
        if !was_established {
            let message = "not all names are accepted";
            conditions.push(Condition::new("Established", false, "NotAccepted", message));
        }
    } else {
        conditions.push(Condition::new("NamesAccepted", true, "NoConflicts", "no conflicts found"));
        if !was_established {
            let message = "the initial names have been accepted";
            conditions.push(Condition::new("Established", true, "InitialNamesAccepted", message));
        }
    }
    Named { accepted, conditions }
}

fn take(
    name: &str,
    reason: &'static str,
    used: &BTreeSet<String>,
    text: &dyn Fn(&Value, &str) -> String,
    (wanted, had): (&Value, &Value),
    accepted: &mut Value,
    refused: &mut Option<(&'static str, String)>,
) {
    let name_wanted = text(wanted, name);
    if name_wanted == text(had, name) || !used.contains(&name_wanted) {
        set(accepted, wanted, name);
    } else {
        *refused = Some((reason, format!("{name_wanted:?} is already in use")));
    }
}

fn set(accepted: &mut Value, wanted: &Value, name: &str) {
    let Some(accepted) = accepted.as_object_mut() else { return };
    match wanted.get(name) {
        Some(value) => accepted.insert(name.to_owned(), value.clone()),
        None => accepted.remove(name),
    };
}

fn texts(list: Option<&Value>) -> Vec<String> {
    let list = list.and_then(Value::as_array).into_iter().flatten();
    list.filter_map(Value::as_str).map(str::to_owned).collect()
}

/// Has it this condition?
pub fn is(definition: &Object, condition: &str) -> bool {
    let list = definition.get(&["status", "conditions"]).and_then(Value::as_array);
    list.into_iter().flatten().any(|one| one["type"] == condition && one["status"] == "True")
}

/// Puts conditions into a status; the time of those whose status changed is `now`. Did anything change?
pub fn set_conditions(definition: &mut Object, conditions: &[Condition], now: &str) -> bool {
    let status = definition.0.entry("status").or_insert_with(|| json!({}));
    if !status.is_object() {
        *status = json!({});
    }
    if !status["conditions"].is_array() {
        status["conditions"] = json!([]);
    }
    let status = definition.0.get_mut("status").expect("made above");
    let list = status["conditions"].as_array_mut().expect("made above");
    let mut changed = false;
    for condition in conditions {
        let at = list.iter().position(|one| one["type"] == condition.ty);
        let since = match at.map(|at| &list[at]) {
            Some(old) if old["status"] == condition.status => old["lastTransitionTime"].clone(),
            _ => now.into(),
        };
        let new = json!({"type": condition.ty, "status": condition.status, "lastTransitionTime": since,
            "reason": condition.reason, "message": condition.message});
        match at {
            Some(at) if same(&list[at], &new) => {}
            Some(at) => {
                list[at] = new;
                changed = true;
            }
            None => {
                list.push(new);
                changed = true;
            }
        }
    }
    changed
}

fn same(old: &Value, new: &Value) -> bool {
    ["status", "reason", "message"].iter().all(|key| old[*key] == new[*key])
}

#[cfg(test)]
mod tests {
    use super::*;

    fn definition(plural: &str, kind: &str, short: &[&str]) -> Object {
        let spec = json!({"group": "example.org", "names": {"plural": plural, "singular": kind.to_lowercase(),
            "kind": kind, "listKind": format!("{kind}List"), "shortNames": short}});
        Object::of(json!({"metadata": {"name": format!("{plural}.example.org")}, "spec": spec}))
            .expect("an object")
    }

    #[test]
    fn the_first_gets_the_name_the_second_is_told() {
        let mut first = definition("things", "Thing", &["th"]);
        let named = decide(&first, std::iter::empty());
        assert_eq!(named.conditions.iter().map(|one| one.status).collect::<Vec<_>>(), ["True", "True"]);
        first.0.insert("status".into(), json!({"acceptedNames": named.accepted}));
        assert!(set_conditions(&mut first, &named.conditions, "now"));
        assert!(!set_conditions(&mut first, &named.conditions, "later"));
        assert!(is(&first, "Established"));

        let second = definition("others", "Thing", &["th"]);
        let named = decide(&second, [&first, &second].into_iter());
        assert_eq!(named.conditions[0].reason, "ListKindConflict");
        assert_eq!(named.conditions[1].reason, "NotAccepted");
        assert_eq!(named.accepted["plural"], "others");
        assert!(named.accepted.get("kind").is_none());
        // Its own names do not stand in its way.
        assert_eq!(decide(&first, [&first].into_iter()).conditions.len(), 1);
    }
}
