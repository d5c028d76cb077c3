//! Rows of the registry out of definitions.

use std::sync::Arc;

use corten_schema::{Column, Resource, Subresource, Text, Verb};
use serde_json::Value;

use super::definition::{parsed, versions};
use super::names::is;
use super::rules::Rules;
use super::{Custom, Scale, types};
use crate::kinds::Kind;
use crate::object::Object;
use crate::registry::{Served, TypesOf};

const VERBS: [Verb; 8] = [
    Verb::Delete,
    Verb::DeleteCollection,
    Verb::Get,
    Verb::List,
    Verb::Patch,
    Verb::Create,
    Verb::Update,
    Verb::Watch,
];
const OF_SUBRESOURCES: [Verb; 3] = [Verb::Get, Verb::Patch, Verb::Update];

/// Custom resources with a status of its own, and without.
static WITH_STATUS: Kind = Kind {
    prepare_create: |object, _| {
        object.0.remove("status");
    },
    prepare_update: |new, old, _| {
        match old.0.get("status") {
            Some(status) => new.0.insert("status".into(), status.clone()),
            None => new.0.remove("status"),
        };
    },
    prepare_subresource: |subresource, new, old, _| keep_all_but_status(subresource, new, old),
    counts_generations: true,
    unconditional_update: false,
    ..Kind::PLAIN
};
static PLAIN: Kind = Kind { counts_generations: true, unconditional_update: false, ..Kind::PLAIN };

fn keep_all_but_status(subresource: &str, new: &mut Object, old: &Object) {
    if subresource != "status" {
        return;
    }
    let status = new.0.remove("status");
    let managed = new.meta().and_then(|meta| meta.get("managedFields")).cloned();
    new.0.clone_from(&old.0);
    if let Some(managed) = managed {
        new.set_meta("managedFields", managed);
    }
    match status {
        Some(status) => new.0.insert("status".into(), status),
        None => new.0.remove("status"),
    };
}

/// What a definition lets be served: nothing before its names are accepted. `root`: what all keys begin with.
pub fn rows(definition: &Object, root: &str) -> Vec<Arc<Served>> {
    if !is(definition, "Established") {
        return Vec::new();
    }
    versions(definition)
        .filter(|version| version["served"] == true)
        .filter_map(|version| row(definition, version, root))
        .map(Arc::new)
        .collect()
}

fn row(definition: &Object, version: &Value, root: &str) -> Option<Served> {
    // A schema that cannot be read was never accepted.
    let schema = parsed(version).ok()?.unwrap_or_default();
    let name = version["name"].as_str()?;
    let group = definition.text(&["spec", "group"]);
    let of = |name: &str| -> Text { definition.text(&["status", "acceptedNames", name]).to_owned().into() };
    let list = |name: &str| -> Vec<Text> {
        let list = definition.get(&["status", "acceptedNames", name]).and_then(Value::as_array);
        list.into_iter().flatten().filter_map(Value::as_str).map(|one| one.to_owned().into()).collect()
    };
    let (kind, api_version) = (of("kind"), format!("{group}/{name}"));
    let (types, ty) = types::types(&schema);
    let scale = scale(version);
    let status = version["subresources"]["status"].is_object();
    let raw_schema = version["schema"]["openAPIV3Schema"].clone();
    let rules = Rules::of(&schema, &raw_schema, &api_version, &kind);
    let subresource = |is: bool, name: &'static str, group: Text, version: Text, kind: Text| {
        is.then(|| Subresource {
            name: name.into(),
            group,
            version,
            kind,
            verbs: OF_SUBRESOURCES.to_vec().into(),
        })
    };
    let subresources = [
        subresource(scale.is_some(), "scale", "autoscaling".into(), "v1".into(), "Scale".into()),
        subresource(status, "status", group.to_owned().into(), name.to_owned().into(), kind.clone()),
    ];
    let stored = versions(definition).find(|version| version["storage"] == true)?["name"].as_str()?;
    let plural = of("plural");
    let ends = definition.deletion_timestamp().is_some();
    let resource = Resource {
        group: group.to_owned().into(),
        version: name.to_owned().into(),
        kind: kind.clone(),
        singular: of("singular"),
        short_names: list("shortNames").into(),
        categories: list("categories").into(),
        namespaced: definition.text(&["spec", "scope"]) == "Namespaced",
        // One that ends takes nothing new.
        verbs: VERBS.iter().copied().filter(|verb| *verb != Verb::Create || !ends).collect(),
        subresources: subresources.into_iter().flatten().collect(),
        ty,
        prefix: format!("{root}/{group}/{plural}/").into(),
        stored: (group.to_owned().into(), stored.to_owned().into()),
        columns: columns(version).into(),
        plural,
    };
    let deprecated = (version["deprecated"] == true).then(|| {
        let said = version["deprecationWarning"].as_str().map(str::to_owned);
        said.unwrap_or_else(|| format!("{api_version} {kind} is deprecated"))
    });
    let selectable = version["selectableFields"].as_array().into_iter().flatten();
    let selectable = selectable.filter_map(|field| field["jsonPath"].as_str());
    let custom = Custom {
        types,
        schema,
        raw_schema,
        status,
        scale,
        selectable: selectable.map(|path| path.trim_start_matches('.').to_owned()).collect(),
        deprecated,
        rules,
    };
    let kind = if status { &WITH_STATUS } else { &PLAIN };
    Some(Served { resource, types: TypesOf::Custom(Arc::new(custom)), kind })
}

fn scale(version: &Value) -> Option<Scale> {
    let scale = version["subresources"]["scale"].as_object()?;
    let text = |name: &str| scale.get(name).and_then(Value::as_str).unwrap_or_default().to_owned();
    Some(Scale {
        spec_replicas: text("specReplicasPath"),
        status_replicas: text("statusReplicasPath"),
        label_selector: text("labelSelectorPath"),
    })
}

/// Name and the definition's; age where it has none. Source: apiextensions `pkg/registry/customresource/tableconvertor`.
fn columns(version: &Value) -> Vec<Column> {
    let column = |name: &str, ty: &str, format: &str, description: &str, priority: i32, path: &str| Column {
        name: name.to_owned().into(),
        ty: ty.to_owned().into(),
        format: format.to_owned().into(),
        description: description.to_owned().into(),
        priority,
        path: path.to_owned().into(),
    };
    let mut columns = vec![column("Name", "string", "name", "Name of the object", 0, ".metadata.name")];
    let given = version["additionalPrinterColumns"].as_array().filter(|given| !given.is_empty());
    match given {
        None => columns.push(column(
            "Age",
            "date",
            "",
            "Time since it was made",
            0,
            ".metadata.creationTimestamp",
        )),
        Some(given) => columns.extend(given.iter().map(|one| {
            let text = |name: &str| one[name].as_str().unwrap_or_default();
            let said = text("description");
            let path = text("jsonPath");
            let said = match said {
                "" => format!("Custom resource definition column (in JSONPath format): {path}"),
                said => said.to_owned(),
            };
            let priority = one["priority"].as_i64().unwrap_or_default() as i32;
            column(text("name"), text("type"), text("format"), &said, priority, path)
        })),
    }
    columns
}
