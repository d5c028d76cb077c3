//! Writes the table as Rust.

use std::collections::BTreeMap;
use std::fmt::Write;

use serde_json::Value;

use crate::facts::Facts;
use crate::kinds::Roots;
use crate::lower::Lowered;

pub fn table(roots: &Roots, lowered: &Lowered, facts: &Facts) -> String {
    let mut rust = String::new();
    let ids: BTreeMap<(&str, &str, &str), usize> = roots
        .kinds
        .iter()
        .map(|kind| {
            ((kind.group.as_str(), kind.version.as_str(), kind.kind.as_str()), lowered.named[&kind.name])
        })
        .collect();
    let _ = writeln!(rust, "static TYPES: [Type; {}] = [", lowered.types.len());
    for ty in &lowered.types {
        let _ = writeln!(rust, "{ty},");
    }
    let _ = writeln!(rust, "];\nstatic KINDS: [KindRow; {}] = [", ids.len());
    for ((group, version, kind), id) in &ids {
        let _ = writeln!(rust, "({group:?}, {version:?}, {kind:?}, TypeId({id})),");
    }
    let rows: Vec<String> = facts.resources.iter().filter_map(|row| resource(row, &ids, facts)).collect();
    let _ = writeln!(rust, "];\nstatic RESOURCES: [Resource; {}] = [", rows.len());
    for row in rows {
        let _ = writeln!(rust, "{row},");
    }
    let _ = writeln!(rust, "];\nstatic GROUPS: [Group; {}] = [", facts.groups.len());
    for group in &facts.groups {
        let versions: Vec<String> =
            group[1].as_array().into_iter().flatten().map(std::string::ToString::to_string).collect();
        let _ = writeln!(rust, "Group {{ name: {}, versions: &[{}] }},", group[0], versions.join(", "));
    }
    rust.push_str("];\n");
    rust
}

fn resource(row: &Value, ids: &BTreeMap<(&str, &str, &str), usize>, facts: &Facts) -> Option<String> {
    let text = |name: &str| row[name].as_str().unwrap_or_default();
    let (group, version, kind, plural) = (text("group"), text("version"), text("kind"), text("plural"));
    let id = ids.get(&(group, version, kind))?;
    let columns = facts.columns.get(&format!("{group}/{version}/{plural}"));
    let subresources: Vec<String> =
        row["subresources"].as_array().into_iter().flatten().map(subresource).collect();
    let columns: Vec<String> = columns.and_then(Value::as_array).into_iter().flatten().map(column).collect();
    let (stored_group, stored_version) = stored(group, version, kind);
    Some(format!(
        "Resource {{ group: t({group:?}), version: t({version:?}), kind: t({kind:?}), plural: t({plural:?}), \
         singular: t({:?}), short_names: {}, categories: {}, namespaced: {}, verbs: {}, \
         subresources: Cow::Borrowed(&[{}]), ty: TypeId({id}), prefix: t({:?}), \
         stored: (t({stored_group:?}), t({stored_version:?})), columns: Cow::Borrowed(&[{}]) }}",
        text("singular"),
        texts(&row["shortNames"]),
        texts(&row["categories"]),
        row["namespaced"] == true,
        verbs(&row["verbs"]),
        subresources.join(", "),
        format!("/registry/{}/", prefix(group, plural)),
        columns.join(", "),
    ))
}

fn texts(value: &Value) -> String {
    let texts: Vec<String> =
        value.as_array().into_iter().flatten().map(|text| format!("t({text})")).collect();
    format!("Cow::Borrowed(&[{}])", texts.join(", "))
}

fn verbs(value: &Value) -> String {
    let verb = |name: &str| match name {
        "create" => "Verb::Create",
        "delete" => "Verb::Delete",
        "deletecollection" => "Verb::DeleteCollection",
        "get" => "Verb::Get",
        "list" => "Verb::List",
        "patch" => "Verb::Patch",
        "update" => "Verb::Update",
        "watch" => "Verb::Watch",
        other => panic!("facts/resources.json has an unknown verb {other}"),
    };
    let verbs: Vec<&str> =
        value.as_array().into_iter().flatten().filter_map(Value::as_str).map(verb).collect();
    format!("Cow::Borrowed(&[{}])", verbs.join(", "))
}

fn subresource(row: &Value) -> String {
    let text = |name: &str| row[name].as_str().unwrap_or_default();
    format!(
        "Subresource {{ name: t({:?}), group: t({:?}), version: t({:?}), kind: t({:?}), verbs: {} }}",
        text("name"),
        text("group"),
        text("version"),
        text("kind"),
        verbs(&row["verbs"])
    )
}

fn column(row: &Value) -> String {
    let text = |name: &str| row[name].as_str().unwrap_or_default();
    format!(
        "Column {{ name: t({:?}), ty: t({:?}), format: t({:?}), description: t({:?}), priority: {}, path: t(\"\") }}",
        text("name"),
        text("type"),
        text("format"),
        text("description"),
        row["priority"].as_i64().unwrap_or_default()
    )
}

/// Where upstream's keys are other than the plural's. Source: kubernetes pkg/kubeapiserver
/// default_storage_factory_builder.go; apiextensions and kube-aggregator keep theirs under their group.
fn prefix(group: &str, plural: &str) -> String {
    match (group, plural) {
        ("", "replicationcontrollers") => "controllers".to_owned(),
        ("", "endpoints") => "services/endpoints".to_owned(),
        ("", "nodes") => "minions".to_owned(),
        ("", "services") => "services/specs".to_owned(),
        ("networking.k8s.io", "ingresses") => "ingress".to_owned(),
        ("apiextensions.k8s.io" | "apiregistration.k8s.io", _) => format!("{group}/{plural}"),
        _ => plural.to_owned(),
    }
}

/// Where two versions of one object are served, both are stored as one of them.
fn stored<'a>(group: &'a str, version: &'a str, kind: &str) -> (&'a str, &'a str) {
    match (group, kind) {
        ("events.k8s.io", "Event") => ("", "v1"),
        ("autoscaling", "HorizontalPodAutoscaler") => ("autoscaling", "v2"),
        _ => (group, version),
    }
}
