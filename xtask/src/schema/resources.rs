//! `facts/resources.json` (what discovery says), `facts/columns.json` (what tables have) and `facts/rbac.json` (the roles
//! and bindings that are there from the start).

use anyhow::{Context, Result};
use serde_json::{Map, Value, json};

use super::{file, server::Server};

pub fn record(server: &Server) -> Result<()> {
    let accept = "application/json;g=apidiscovery.k8s.io;v=v2;as=APIGroupDiscoveryList";
    let (core, groups) = (server.get_as("/api", accept)?, server.get_as("/apis", accept)?);
    let (mut resources, mut columns, mut order) = (Vec::new(), Map::new(), Vec::new());
    for item in core["items"].as_array().into_iter().chain(groups["items"].as_array()).flatten() {
        let group = item["metadata"]["name"].as_str().unwrap_or_default();
        let versions = item["versions"].as_array().with_context(|| format!("{group} has no versions"))?;
        order.push(json!([group, versions.iter().map(|version| &version["version"]).collect::<Vec<_>>()]));
        for version in versions {
            let name = version["version"].as_str().context("a version has a name")?;
            for row in version["resources"].as_array().into_iter().flatten() {
                let row = resource(group, name, row);
                if row["verbs"].as_array().is_some_and(|verbs| verbs.iter().any(|verb| verb == "list")) {
                    let key = format!("{group}/{name}/{}", row["plural"].as_str().unwrap_or_default());
                    columns.insert(key, table(server, group, name, &row)?);
                }
                resources.push(row);
            }
        }
    }
    resources
        .sort_by_key(|row| ["group", "version", "plural"].map(|key| row[key].as_str().map(str::to_owned)));
    file::write("resources", &Value::Array(resources), 1)?;
    file::write("groups", &Value::Array(order), 1)?;
    file::write("columns", &Value::Object(columns), 2)?;
    rbac(server)
}

fn resource(group: &str, version: &str, row: &Value) -> Value {
    let kind = |row: &Value| {
        let own = row["responseKind"]["version"].as_str().unwrap_or_default().is_empty();
        let part = |name: &str, other: &str| match row["responseKind"][name].as_str() {
            Some(text) if !own => text.to_owned(),
            _ => other.to_owned(),
        };
        (part("group", group), part("version", version), row["responseKind"]["kind"].clone())
    };
    let subresources: Vec<Value> = row["subresources"]
        .as_array()
        .into_iter()
        .flatten()
        .map(|row| {
            let (group, version, kind) = kind(row);
            json!({ "name": row["subresource"], "group": group, "version": version, "kind": kind, "verbs": row["verbs"] })
        })
        .collect();
    let texts = |name: &str| row[name].as_array().cloned().unwrap_or_default();
    json!({
        "group": group,
        "version": version,
        "kind": row["responseKind"]["kind"],
        "plural": row["resource"],
        "singular": row["singularResource"],
        "shortNames": texts("shortNames"),
        "categories": texts("categories"),
        "namespaced": row["scope"] == "Namespaced",
        "verbs": row["verbs"],
        "subresources": subresources,
    })
}

/// Its columns; a list of nothing has them too.
fn table(server: &Server, group: &str, version: &str, row: &Value) -> Result<Value> {
    let base = if group.is_empty() { format!("/api/{version}") } else { format!("/apis/{group}/{version}") };
    let path = format!("{base}/{}?limit=1", row["plural"].as_str().unwrap_or_default());
    let table = server.get_as(&path, "application/json;as=Table;v=v1;g=meta.k8s.io")?;
    let columns = table["columnDefinitions"].as_array().with_context(|| format!("{path} is no table"))?;
    let column = |column: &Value| {
        let names = ["name", "type", "format", "priority"];
        Value::Object(names.into_iter().map(|name| (name.to_owned(), column[name].clone())).collect())
    };
    Ok(columns.iter().map(column).collect())
}

fn rbac(server: &Server) -> Result<()> {
    let mut objects = Vec::new();
    for plural in ["clusterroles", "clusterrolebindings", "roles", "rolebindings"] {
        let list = server.get(&format!("/apis/rbac.authorization.k8s.io/v1/{plural}"))?;
        let kind = list["kind"].as_str().unwrap_or_default().trim_end_matches("List").to_owned();
        for item in list["items"].as_array().context("a list has items")? {
            let mut object = item.clone();
            object["apiVersion"] = json!("rbac.authorization.k8s.io/v1");
            object["kind"] = json!(kind);
            let metadata = object["metadata"].as_object_mut().context("an object has metadata")?;
            metadata
                .retain(|name, _| matches!(name.as_str(), "name" | "namespace" | "labels" | "annotations"));
            objects.push(object);
        }
    }
    file::write("rbac", &Value::Array(objects), 2)
}
