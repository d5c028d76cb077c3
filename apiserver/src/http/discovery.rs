//! What there is: the legacy documents (`/api`, `/apis/<group>/<version>`) and the aggregated one.
//! Source: apiserver `pkg/endpoints/discovery`, `pkg/endpoints/discovery/aggregated`.

use std::fmt::Write;

use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use corten_schema::{Resource, Subresource};
use http::{HeaderMap, HeaderValue, Response, StatusCode, header};
use serde_json::{Map, Value, json};
use sha2::{Digest, Sha256, Sha512};

use crate::api::{Api, Body};
use crate::registry::Served;
use crate::request::{Accept, bytes_response, value_response};

/// A group and its versions, preferred first.
struct Group<'a> {
    name: &'a str,
    versions: Vec<(&'a str, Vec<&'a Resource>)>,
}

/// Groups in upstream's order of preference; others (custom resources) follow by name.
/// Source: kubernetes `pkg/controlplane/apiserver/aggregator.go`.
const ORDER: [&str; 21] = [
    "",
    "apiregistration.k8s.io",
    "apps",
    "events.k8s.io",
    "authentication.k8s.io",
    "authorization.k8s.io",
    "autoscaling",
    "batch",
    "certificates.k8s.io",
    "networking.k8s.io",
    "policy",
    "rbac.authorization.k8s.io",
    "storage.k8s.io",
    "admissionregistration.k8s.io",
    "apiextensions.k8s.io",
    "scheduling.k8s.io",
    "coordination.k8s.io",
    "node.k8s.io",
    "discovery.k8s.io",
    "resource.k8s.io",
    "flowcontrol.apiserver.k8s.io",
];

fn groups(all: &[std::sync::Arc<Served>]) -> Vec<Group<'_>> {
    let mut groups: Vec<Group<'_>> = Vec::new();
    for Served { resource, .. } in all.iter().map(AsRef::as_ref) {
        let at = groups.iter().position(|group| group.name == resource.group).unwrap_or_else(|| {
            groups.push(Group { name: &resource.group, versions: Vec::new() });
            groups.len() - 1
        });
        let versions = &mut groups[at].versions;
        match versions.iter_mut().find(|(version, _)| *version == resource.version) {
            Some((_, resources)) => resources.push(resource),
            None => versions.push((&resource.version, vec![resource])),
        }
    }
    let order = |name: &str| ORDER.iter().position(|one| *one == name).unwrap_or(ORDER.len());
    groups.sort_by(|a, b| (order(a.name), a.name).cmp(&(order(b.name), b.name)));
    for group in &mut groups {
        group.versions.sort_by(|a, b| priority(b.0).cmp(&priority(a.0)).then(a.0.cmp(b.0)));
        for (_, resources) in &mut group.versions {
            resources.sort_by(|a, b| a.plural.cmp(&b.plural));
        }
    }
    groups
}

/// `v2` above `v1` above `v1beta1`; other names last. Source: apimachinery `pkg/version/helpers.go`.
fn priority(version: &str) -> Option<(u8, u32, u32)> {
    let rest = version.strip_prefix('v')?;
    let digits = rest.find(|c: char| !c.is_ascii_digit()).unwrap_or(rest.len());
    let major = rest[..digits].parse().ok()?;
    let (stability, minor) = match &rest[digits..] {
        "" => (2, ""),
        rest => match (rest.strip_prefix("beta"), rest.strip_prefix("alpha")) {
            (Some(minor), _) => (1, minor),
            (_, Some(minor)) => (0, minor),
            _ => return None,
        },
    };
    let minor = if stability == 2 { 0 } else { minor.parse().ok()? };
    Some((stability, major, minor))
}

/// `path` without slashes at its ends. `None`: no document of discovery.
pub fn serve(api: &Api, headers: &HeaderMap, path: &str, accept: Accept) -> Option<Response<Body>> {
    let all = api.registry.all();
    let groups = groups(&all);
    if let ("api" | "apis", Some(version)) = (path, aggregated(headers)) {
        let wanted = |group: &&Group<'_>| group.name.is_empty() == (path == "api");
        let items: Vec<Value> = groups.iter().filter(wanted).map(aggregated_group).collect();
        return Some(aggregated_response(headers, version, &items));
    }
    let parts: Vec<&str> = path.split('/').collect();
    let find = |name: &str| groups.iter().find(|group| group.name == name && !name.is_empty());
    let document = match *parts {
        ["api"] => json!({
            "kind": "APIVersions", "versions": ["v1"],
            "serverAddressByClientCIDRs": [{"clientCIDR": "0.0.0.0/0", "serverAddress": api.config.advertised}],
        }),
        ["api", version] => resources(groups.iter().find(|group| group.name.is_empty())?, version)?,
        ["apis"] => {
            let named = groups.iter().filter(|group| !group.name.is_empty());
            let list: Vec<Value> = named.map(legacy_group).collect();
            json!({"kind": "APIGroupList", "apiVersion": "v1", "groups": list})
        }
        ["apis", group] => {
            let mut group = legacy_group(find(group)?);
            group["kind"] = "APIGroup".into();
            group["apiVersion"] = "v1".into();
            group
        }
        ["apis", group, version] => resources(find(group)?, version)?,
        _ => return None,
    };
    Some(value_response(StatusCode::OK, &document, accept))
}

/// The paths of all groups and versions, for the index.
pub fn paths(api: &Api) -> Vec<String> {
    let all = api.registry.all();
    let mut paths = vec!["/api".to_owned(), "/apis".to_owned(), "/apis/".to_owned()];
    for group in groups(&all) {
        let base = if group.name.is_empty() { "/api".to_owned() } else { format!("/apis/{}", group.name) };
        paths.extend(group.versions.iter().map(|(version, _)| format!("{base}/{version}")));
        paths.push(base);
    }
    paths
}

/// `v2` or `v2beta1`: the client wants everything in one document.
fn aggregated(headers: &HeaderMap) -> Option<&'static str> {
    let accept = headers.get(header::ACCEPT)?.to_str().ok()?;
    // As upstream: the first alternative that can be had.
    let first = accept.split(',').map(|clause| clause.split(';').map(str::trim).collect::<Vec<_>>());
    let mut first = first.filter(|parts| matches!(parts[0], "application/json" | "*/*" | "application/*"));
    let parts = first.find(|parts| {
        let has = |part: &str| parts.contains(&part);
        !parts.iter().any(|part| part.starts_with("as="))
            || (has("as=APIGroupDiscoveryList")
                && has("g=apidiscovery.k8s.io")
                && (has("v=v2") || has("v=v2beta1")))
    })?;
    let version = |version: &str| parts.contains(&version);
    if version("v=v2") {
        Some("v2")
    } else if version("v=v2beta1") {
        Some("v2beta1")
    } else {
        None
    }
}

fn aggregated_response(headers: &HeaderMap, version: &'static str, items: &[Value]) -> Response<Body> {
    let document = json!({
        "kind": "APIGroupDiscoveryList", "apiVersion": format!("apidiscovery.k8s.io/{version}"),
        "metadata": {}, "items": items,
    });
    let bytes = serde_json::to_vec(&document).expect("a value is JSON");
    let hash = Sha512::digest(&bytes).iter().fold(String::new(), |mut hash, byte| {
        let _ = write!(hash, "{byte:02X}");
        hash
    });
    let etag = HeaderValue::from_str(&format!("\"{hash}\"")).expect("hex");
    let mut response = bytes_response(StatusCode::OK, bytes.into(), Accept::default());
    if headers.get(header::IF_NONE_MATCH) == Some(&etag) {
        response = Response::new(Body::default());
        *response.status_mut() = StatusCode::NOT_MODIFIED;
    } else {
        let content_type =
            format!("application/json;g=apidiscovery.k8s.io;v={version};as=APIGroupDiscoveryList");
        let content_type = HeaderValue::from_str(&content_type).expect("ASCII");
        response.headers_mut().insert(header::CONTENT_TYPE, content_type);
    }
    let headers = response.headers_mut();
    headers.insert(header::ETAG, etag);
    headers.insert(header::VARY, HeaderValue::from_static("Accept"));
    headers.insert(header::CACHE_CONTROL, HeaderValue::from_static("public"));
    response
}

fn aggregated_group(group: &Group<'_>) -> Value {
    let metadata = if group.name.is_empty() { json!({}) } else { json!({"name": group.name}) };
    let versions: Vec<Value> = group
        .versions
        .iter()
        .map(|(version, resources)| {
            let resources: Vec<Value> = resources.iter().map(|one| aggregated_resource(one)).collect();
            json!({"version": version, "resources": resources, "freshness": "Current"})
        })
        .collect();
    json!({"metadata": metadata, "versions": versions})
}

fn aggregated_resource(resource: &Resource) -> Value {
    let mut out = json!({
        "resource": resource.plural,
        "responseKind": {"group": "", "version": "", "kind": resource.kind},
        "scope": if resource.namespaced { "Namespaced" } else { "Cluster" },
        "singularResource": resource.singular,
        "verbs": resource.verbs.iter().map(|verb| verb.name()).collect::<Vec<_>>(),
    });
    insert_names(&mut out, resource);
    if !resource.subresources.is_empty() {
        out["subresources"] = resource
            .subresources
            .iter()
            .map(|subresource| {
                let (group, version) = of_another_group(resource, subresource).unwrap_or_default();
                json!({
                    "subresource": subresource.name,
                    "responseKind": {"group": group, "version": version, "kind": subresource.kind},
                    "verbs": subresource.verbs.iter().map(|verb| verb.name()).collect::<Vec<_>>(),
                })
            })
            .collect();
    }
    out
}

fn of_another_group<'a>(resource: &Resource, subresource: &'a Subresource) -> Option<(&'a str, &'a str)> {
    let same = subresource.group == resource.group && subresource.version == resource.version;
    (!same).then_some((&*subresource.group, &*subresource.version))
}

fn insert_names(out: &mut Value, resource: &Resource) {
    if !resource.short_names.is_empty() {
        out["shortNames"] = resource.short_names.iter().map(|name| Value::from(&**name)).collect();
    }
    if !resource.categories.is_empty() {
        out["categories"] = resource.categories.iter().map(|name| Value::from(&**name)).collect();
    }
}

fn legacy_group(group: &Group<'_>) -> Value {
    let version =
        |version: &str| json!({"groupVersion": format!("{}/{version}", group.name), "version": version});
    let versions: Vec<Value> = group.versions.iter().map(|(name, _)| version(name)).collect();
    let preferred = versions.first().cloned().unwrap_or_default();
    json!({"name": group.name, "versions": versions, "preferredVersion": preferred})
}

fn resources(group: &Group<'_>, version: &str) -> Option<Value> {
    let (_, resources) = group.versions.iter().find(|(name, _)| *name == version)?;
    let list: Vec<Value> = resources.iter().flat_map(|resource| legacy_resource(resource)).collect();
    let mut document = Map::new();
    document.insert("kind".to_owned(), "APIResourceList".into());
    let name = if group.name.is_empty() {
        version.to_owned()
    } else {
        document.insert("apiVersion".to_owned(), "v1".into());
        format!("{}/{version}", group.name)
    };
    document.insert("groupVersion".to_owned(), name.into());
    document.insert("resources".to_owned(), list.into());
    Some(document.into())
}

fn legacy_resource(resource: &Resource) -> Vec<Value> {
    let verbs = |verbs: &[corten_schema::Verb]| verbs.iter().map(|verb| verb.name()).collect::<Vec<_>>();
    let mut out = json!({
        "name": resource.plural, "singularName": resource.singular, "namespaced": resource.namespaced,
        "kind": resource.kind, "verbs": verbs(&resource.verbs),
    });
    insert_names(&mut out, resource);
    if resource.verbs.contains(&corten_schema::Verb::List) {
        out["storageVersionHash"] = storage_hash(resource).into();
    }
    let subresources = resource.subresources.iter().map(|subresource| {
        let mut out = json!({
            "name": format!("{}/{}", resource.plural, subresource.name), "singularName": "",
            "namespaced": resource.namespaced, "kind": subresource.kind, "verbs": verbs(&subresource.verbs),
        });
        if let Some((group, version)) = of_another_group(resource, subresource) {
            // The core group has no name to say.
            if !group.is_empty() {
                out["group"] = group.into();
            }
            out["version"] = version.into();
        }
        out
    });
    let mut all = vec![out];
    all.extend(subresources);
    all
}

/// Source: apiserver `pkg/endpoints/discovery/storageversionhash.go`.
fn storage_hash(resource: &Resource) -> String {
    let (group, version) = &resource.stored;
    let digest = Sha256::digest(format!("{group}/{version}/{}", resource.kind));
    STANDARD.encode(&digest[..8])
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn versions_are_preferred_as_upstream_prefers_them() {
        let mut versions = ["v1beta1", "foo", "v1", "v12alpha1", "v2", "v11beta2", "v10"];
        versions.sort_by_key(|version| std::cmp::Reverse(priority(version)));
        assert_eq!(versions, ["v10", "v2", "v1", "v11beta2", "v1beta1", "v12alpha1", "foo"]);
    }

    #[test]
    fn one_document_is_for_those_who_ask_for_it() {
        let asked = |accept: &'static str| {
            aggregated(&HeaderMap::from_iter([(header::ACCEPT, HeaderValue::from_static(accept))]))
        };
        assert_eq!(
            asked(
                "application/json;g=apidiscovery.k8s.io;v=v2;as=APIGroupDiscoveryList;profile=nopeer,application/json"
            ),
            Some("v2")
        );
        assert_eq!(
            asked("application/json;g=apidiscovery.k8s.io;v=v2beta1;as=APIGroupDiscoveryList"),
            Some("v2beta1")
        );
        assert_eq!(asked("application/json, */*"), None);
    }
}
