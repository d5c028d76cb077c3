//! The paths of an OpenAPI document: what may be asked of a resource. Shared with `build/`, which makes the documents of
//! built-in kinds.

use serde_json::{Map, Value, json};

/// A resource, as far as its paths tell of it.
pub struct Row {
    pub group: String,
    pub version: String,
    pub kind: String,
    pub plural: String,
    pub namespaced: bool,
    pub verbs: Vec<String>,
    pub subresources: Vec<Sub>,
    /// It can be patched strategically; custom resources cannot.
    pub strategic: bool,
}

pub struct Sub {
    pub name: String,
    pub group: String,
    pub version: String,
    pub kind: String,
    pub verbs: Vec<String>,
}

/// The name of a kind's schema by its group, version and kind; `None`: it has none (options of streams).
pub type NameOf<'a> = &'a dyn Fn(&str, &str, &str) -> Option<String>;

const META: &str = "io.k8s.apimachinery.pkg.apis.meta.v1";

pub fn base(group: &str, version: &str) -> String {
    if group.is_empty() { format!("/api/{version}") } else { format!("/apis/{group}/{version}") }
}

/// All paths of `row`.
pub fn paths(row: &Row, name_of: NameOf<'_>) -> Map<String, Value> {
    let mut paths = Map::new();
    let base = base(&row.group, &row.version);
    let collection = if row.namespaced {
        format!("{base}/namespaces/{{namespace}}/{}", row.plural)
    } else {
        format!("{base}/{}", row.plural)
    };
    let has = |verb: &str| row.verbs.iter().any(|known| known == verb);
    let whole = Target { row, sub: None, name_of };
    let of_list = [("list", "get"), ("create", "post"), ("deletecollection", "delete")];
    let operations: Map<String, Value> = of_list
        .into_iter()
        .filter(|(verb, _)| has(verb))
        .map(|(verb, method)| (method.to_owned(), whole.operation(verb, false)))
        .collect();
    put(&mut paths, collection.clone(), operations, &[("namespace", row.namespaced)]);
    if row.namespaced && has("list") {
        let operations = Map::from_iter([("get".to_owned(), whole.operation("list", true))]);
        put(&mut paths, format!("{base}/{}", row.plural), operations, &[]);
    }
    let item = format!("{collection}/{{name}}");
    let of_item = |target: &Target<'_>, verbs: &[String]| -> Map<String, Value> {
        [("get", "get"), ("update", "put"), ("patch", "patch"), ("delete", "delete"), ("create", "post")]
            .into_iter()
            .filter(|(verb, _)| verbs.iter().any(|known| known == verb))
            .filter(|(verb, _)| target.sub.is_some() || *verb != "create")
            .map(|(verb, method)| (method.to_owned(), target.operation(verb, false)))
            .collect()
    };
    let parameters = [("name", true), ("namespace", row.namespaced)];
    put(&mut paths, item.clone(), of_item(&whole, &row.verbs), &parameters);
    for sub in &row.subresources {
        let target = Target { row, sub: Some(sub), name_of };
        put(&mut paths, format!("{item}/{}", sub.name), of_item(&target, &sub.verbs), &parameters);
    }
    paths
}

fn put(
    paths: &mut Map<String, Value>,
    path: String,
    mut operations: Map<String, Value>,
    named: &[(&str, bool)],
) {
    if operations.is_empty() {
        return;
    }
    let parameters: Vec<Value> = named
        .iter()
        .filter(|(_, there)| *there)
        .map(|(name, _)| {
            json!({"name": name, "in": "path", "required": true, "schema": {"type": "string", "uniqueItems": true}})
        })
        .collect();
    if !parameters.is_empty() {
        operations.insert("parameters".to_owned(), parameters.into());
    }
    paths.insert(path, Value::Object(operations));
}

/// A resource or a subresource of one.
struct Target<'a> {
    row: &'a Row,
    sub: Option<&'a Sub>,
    name_of: NameOf<'a>,
}

impl Target<'_> {
    fn gvk(&self) -> (&str, &str, &str) {
        match self.sub {
            Some(sub) => (&sub.group, &sub.version, &sub.kind),
            None => (&self.row.group, &self.row.version, &self.row.kind),
        }
    }

    fn operation(&self, verb: &str, everywhere: bool) -> Value {
        let (group, version, kind) = self.gvk();
        let (action, word) = match verb {
            "create" => ("post", "create"),
            "update" => ("put", "replace"),
            "get" => ("get", "read"),
            "deletecollection" => ("deletecollection", "deleteCollection"),
            verb => (verb, verb),
        };
        let mut operation = json!({
            "tags": [camel(&self.row.group, &self.row.version, "_")],
            "operationId": self.id(word, everywhere),
            "responses": self.responses(verb),
            "x-kubernetes-action": action,
            "x-kubernetes-group-version-kind": {"group": group, "kind": kind, "version": version},
        });
        let parameters = parameters(verb);
        if !parameters.is_empty() {
            operation["parameters"] = parameters.into();
        }
        if let Some(body) = self.body(verb) {
            operation["requestBody"] = body;
        }
        operation
    }

    fn id(&self, word: &str, everywhere: bool) -> String {
        let (row, sub) = (self.row, self.sub.map(|sub| upper(&sub.name)).unwrap_or_default());
        let namespaced = if row.namespaced && !everywhere { "Namespaced" } else { "" };
        let rest = if everywhere { "ForAllNamespaces" } else { "" };
        format!("{word}{}{namespaced}{}{sub}{rest}", camel(&row.group, &row.version, ""), row.kind)
    }

    fn responses(&self, verb: &str) -> Value {
        let (group, version, kind) = self.gvk();
        let name = match verb {
            "list" => (self.name_of)(group, version, &format!("{kind}List")),
            "delete" | "deletecollection" => Some(format!("{META}.Status")),
            _ => (self.name_of)(group, version, kind),
        };
        let answer = |description: &str| match &name {
            Some(name) => json!({
                "description": description,
                "content": {"application/json": reference(name), "application/yaml": reference(name)},
            }),
            None => json!({"description": description, "content": {"*/*": {"schema": {"type": "string"}}}}),
        };
        let mut responses = json!({"200": answer("OK"), "401": {"description": "Unauthorized"}});
        if matches!(verb, "create" | "update" | "patch") {
            responses["201"] = answer("Created");
        }
        if matches!(verb, "create" | "delete") {
            responses["202"] = answer("Accepted");
        }
        responses
    }

    fn body(&self, verb: &str) -> Option<Value> {
        let (group, version, kind) = self.gvk();
        match verb {
            "create" | "update" => {
                let name = (self.name_of)(group, version, kind)?;
                Some(json!({"content": {"*/*": reference(&name)}, "required": true}))
            }
            "delete" | "deletecollection" => {
                Some(json!({"content": {"*/*": reference(&format!("{META}.DeleteOptions"))}}))
            }
            "patch" => {
                let mut types = vec![
                    "application/apply-patch+yaml",
                    "application/json-patch+json",
                    "application/merge-patch+json",
                ];
                types.extend(self.row.strategic.then_some("application/strategic-merge-patch+json"));
                let patch = format!("{META}.Patch");
                let content: Map<String, Value> =
                    types.into_iter().map(|name| (name.to_owned(), reference(&patch))).collect();
                Some(json!({"content": content, "required": true}))
            }
            _ => None,
        }
    }
}

fn reference(name: &str) -> Value {
    json!({"schema": {"$ref": format!("#/components/schemas/{name}")}})
}

/// Options in the query. Source: apiserver `pkg/endpoints/installer.go`.
fn parameters(verb: &str) -> Vec<Value> {
    let of_list = [
        ("allowWatchBookmarks", "boolean"),
        ("continue", "string"),
        ("fieldSelector", "string"),
        ("labelSelector", "string"),
        ("limit", "integer"),
        ("resourceVersion", "string"),
        ("resourceVersionMatch", "string"),
        ("sendInitialEvents", "boolean"),
        ("timeoutSeconds", "integer"),
        ("watch", "boolean"),
    ];
    let of_write = [("dryRun", "string"), ("fieldManager", "string"), ("fieldValidation", "string")];
    let of_delete = [
        ("dryRun", "string"),
        ("gracePeriodSeconds", "integer"),
        ("orphanDependents", "boolean"),
        ("propagationPolicy", "string"),
    ];
    let names: Vec<(&str, &str)> = match verb {
        "list" => of_list.to_vec(),
        "create" | "update" => of_write.to_vec(),
        "patch" => of_write.into_iter().chain([("force", "boolean")]).collect(),
        "delete" => of_delete.to_vec(),
        "deletecollection" => {
            let selects =
                of_list.into_iter().filter(|(name, _)| !matches!(*name, "watch" | "allowWatchBookmarks"));
            of_delete.into_iter().chain(selects).collect()
        }
        _ => Vec::new(),
    };
    let parameter =
        |(name, ty)| json!({"name": name, "in": "query", "schema": {"type": ty, "uniqueItems": true}});
    names.into_iter().map(parameter).collect()
}

/// `AppsV1`, `apps_v1`, `CoreV1`, `RbacAuthorizationV1`: the group without upstream's domain.
fn camel(group: &str, version: &str, separator: &str) -> String {
    let group = if group.is_empty() { "core" } else { group.strip_suffix(".k8s.io").unwrap_or(group) };
    let parts = group.split(['.', '-']).chain([version]);
    if separator.is_empty() {
        parts.map(upper).collect()
    } else {
        let parts: Vec<&str> = parts.collect();
        let (version, group) = parts.split_last().expect("a version is there");
        let mut name = String::new();
        for (at, part) in group.iter().enumerate() {
            name += &if at == 0 { (*part).to_owned() } else { upper(part) };
        }
        format!("{name}{separator}{version}")
    }
}

fn upper(word: &str) -> String {
    let mut letters = word.chars();
    letters.next().map(|first| first.to_uppercase().chain(letters).collect()).unwrap_or_default()
}
