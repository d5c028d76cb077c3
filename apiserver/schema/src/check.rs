//! Is a value what its type says? Unknown fields are taken out, `null` counts as absence, and values that upstream
//! rewrites as it reads them (quantities, times, base64) are rewritten; type errors are told in Go's words.
//! Source: Go `encoding/json/decode.go`, sigs.k8s.io/json, apimachinery `meta/v1/{time,micro_time}.go`.

use serde_json::{Map, Value};

use crate::json::{push_index, push_key};
use crate::model::{Field, List, Node, Object, Rest, Type, Width};
use crate::quantity::Quantity;
use crate::time::{self, Precision};

/// What was found.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Checked {
    /// Paths of fields that were taken out: `spec.containers[0].imagee`.
    pub unknown: Vec<String>,
    /// What does not have its type; upstream tells the first.
    pub errors: Vec<String>,
}

/// Checks an object of a built-in kind.
pub fn check(node: Node<'_>, value: &mut Value) -> Checked {
    let mut walk =
        Walk { found: Checked::default(), path: String::new(), fields: String::new(), owner: String::new() };
    walk.value(node, value, None);
    walk.found
}

/// Takes unknown fields out of a custom resource and says which; types are for its validation to check.
pub fn prune(node: Node<'_>, value: &mut Value) -> Vec<String> {
    let mut unknown = Vec::new();
    prune_at(node, value, &mut String::new(), &mut unknown);
    unknown
}

fn prune_at(node: Node<'_>, value: &mut Value, path: &mut String, unknown: &mut Vec<String>) {
    let length = path.len();
    match (node.ty(), value) {
        (Type::Object(object), Value::Object(map)) => {
            take_unknown(object, map, path, unknown);
            for (name, value) in map.iter_mut() {
                if let Some(child) = node.child(name) {
                    push_key(path, name);
                    prune_at(child, value, path, unknown);
                    path.truncate(length);
                }
            }
        }
        (Type::Map(kind), Value::Object(map)) => {
            for (name, value) in map.iter_mut() {
                push_key(path, name);
                prune_at(node.at(kind.value), value, path, unknown);
                path.truncate(length);
            }
        }
        (Type::List(list), Value::Array(items)) => {
            for (index, item) in items.iter_mut().enumerate() {
                push_index(path, index);
                prune_at(node.at(list.item), item, path, unknown);
                path.truncate(length);
            }
        }
        _ => {}
    }
}

/// Go's, as upstream calls it: what would be an attack is not to be answered with megabytes.
const MOST: usize = 100;

fn take_unknown(object: &Object, map: &mut Map<String, Value>, path: &mut String, unknown: &mut Vec<String>) {
    if object.rest != Rest::Unknown {
        return;
    }
    let length = path.len();
    map.retain(|name, _| {
        let known = object.field(name).is_some();
        if !known && unknown.len() < MOST {
            push_key(path, name);
            unknown.push(path.clone());
            path.truncate(length);
        }
        known
    });
}

struct Walk {
    found: Checked,
    /// As strict errors name it: with indices and keys.
    path: String,
    /// As type errors name it: fields alone.
    fields: String,
    /// The Go structure whose field we are in.
    owner: String,
}

impl Walk {
    /// `go`: what Go calls the type, where the schema does not tell it.
    fn value(&mut self, node: Node<'_>, value: &mut Value, go: Option<&str>) {
        let wrong = match (node.ty(), &mut *value) {
            (Type::Object(object), Value::Object(map)) => {
                self.object(node, object, map);
                return;
            }
            (Type::Map(kind), Value::Object(map)) => {
                let length = self.path.len();
                for (name, value) in map.iter_mut() {
                    push_key(&mut self.path, name);
                    self.element(
                        node.at(kind.value),
                        value,
                        go.and_then(|go| go.strip_prefix("map[string]")),
                    );
                    self.path.truncate(length);
                }
                return;
            }
            (Type::List(list), Value::Array(items)) => {
                self.items(node, list, items, go.and_then(|go| go.strip_prefix("[]")));
                return;
            }
            // The value of FieldsV1 is kept as it is, whatever that is; upstream takes only an object in practice.
            (Type::Any, _)
            | (Type::Bool, Value::Bool(_))
            | (Type::String(_) | Type::IntOrString, Value::String(_))
            | (Type::Number, Value::Number(_))
            | (Type::Quantity, Value::Null)
            | (Type::FieldsV1, Value::Object(_)) => None,
            (Type::Integer(width), Value::Number(number)) => {
                (!fits(number, *width)).then(|| self.cannot(node, &format!("number {number}"), go))
            }
            (Type::IntOrString, Value::Number(number)) => {
                (!fits(number, Width::I32)).then(|| self.cannot_type(&format!("number {number}"), "int32"))
            }
            (Type::IntOrString, other) => Some(self.cannot_type(kind_of(other), "int32")),
            (Type::Quantity, other) => quantity(other),
            (Type::Time, Value::String(text)) => rewrite(text, time::rewrite(text, Precision::Seconds)),
            (Type::MicroTime, Value::String(text)) => rewrite(text, time::rewrite(text, Precision::Micros)),
            (Type::Time | Type::MicroTime | Type::Duration, other) => {
                // Read as a string of its own; null was taken care of.
                Some(self.cannot_type(kind_of(other), "string"))
            }
            (Type::Bytes, Value::String(text)) => rewrite(text, crate::bytes::rewrite(text)),
            (_, other) => Some(self.cannot(node, kind_of(other), go)),
        };
        self.found.errors.extend(wrong);
    }

    fn object(&mut self, node: Node<'_>, object: &Object, map: &mut Map<String, Value>) {
        take_unknown(object, map, &mut self.path, &mut self.found.unknown);
        map.retain(|name, value| !value.is_null() || object.field(name).is_none_or(|field| field.nullable));
        let (path, fields) = (self.path.len(), self.fields.len());
        let owner = std::mem::replace(&mut self.owner, go_name(&object.name).to_owned());
        for (name, value) in map.iter_mut() {
            let Some(field) = object.field(name) else { continue };
            push_key(&mut self.path, name);
            if !field.go.embedded.is_empty() {
                push_key(&mut self.fields, &field.go.embedded);
            }
            push_key(&mut self.fields, name);
            self.value(node.at(field.ty), value, field.go.ty.as_deref());
            self.path.truncate(path);
            self.fields.truncate(fields);
        }
        self.owner = owner;
        map.retain(|name, value| {
            object.field(name).is_none_or(|field| !left_out(node.at(field.ty), field, value))
        });
    }

    fn items(&mut self, node: Node<'_>, list: &List, items: &mut [Value], go: Option<&str>) {
        let length = self.path.len();
        for (index, item) in items.iter_mut().enumerate() {
            push_index(&mut self.path, index);
            self.element(node.at(list.item), item, go);
            self.path.truncate(length);
        }
    }

    /// `null` as an element is Go's zero value.
    fn element(&mut self, node: Node<'_>, value: &mut Value, go: Option<&str>) {
        if value.is_null() {
            *value = match node.ty() {
                Type::Object(_) => Value::Object(Map::new()),
                Type::Bool => Value::Bool(false),
                Type::String(_) => Value::String(String::new()),
                Type::Integer(_) | Type::Number | Type::IntOrString => Value::from(0),
                Type::Quantity => Value::String("0".to_owned()),
                _ => return,
            };
        }
        self.value(node, value, go);
    }

    fn cannot(&self, node: Node<'_>, what: &str, go: Option<&str>) -> String {
        go.map_or_else(|| self.cannot_type(what, &go_type(node)), |go| self.cannot_type(what, go))
    }

    fn cannot_type(&self, what: &str, go: &str) -> String {
        if self.owner.is_empty() {
            format!("json: cannot unmarshal {what} into Go value of type {go}")
        } else {
            format!(
                "json: cannot unmarshal {what} into Go struct field {}.{} of type {go}",
                self.owner, self.fields
            )
        }
    }
}

fn rewrite(text: &mut String, rewritten: Result<Option<String>, String>) -> Option<String> {
    match rewritten {
        Ok(new) => {
            if let Some(new) = new {
                *text = new;
            }
            None
        }
        Err(error) => Some(error),
    }
}

/// Whether upstream, which reads an object into Go and writes it again, leaves a field out: `omitempty`.
fn left_out(node: Node<'_>, field: &Field, value: &Value) -> bool {
    let is_zero = match (node.ty(), value) {
        (Type::Bool, Value::Bool(is)) => !is,
        (Type::String(_) | Type::Bytes, Value::String(text)) => text.is_empty(),
        (Type::Integer(_) | Type::Number, Value::Number(number)) => number.as_f64() == Some(0.0),
        (Type::List(_), Value::Array(items)) => items.is_empty(),
        (Type::Map(_), Value::Object(map)) => map.is_empty(),
        _ => false,
    };
    is_zero && field.wire.number != 0 && !field.wire.keeps_zero
}

fn fits(number: &serde_json::Number, width: Width) -> bool {
    number.as_i64().is_some_and(|number| width == Width::I64 || i32::try_from(number).is_ok())
}

fn kind_of(value: &Value) -> &'static str {
    match value {
        Value::Null => "null",
        Value::Bool(_) => "bool",
        Value::Number(_) => "number",
        Value::String(_) => "string",
        Value::Array(_) => "array",
        Value::Object(_) => "object",
    }
}

/// `PodSpec` of `io.k8s.api.core.v1.PodSpec`.
fn go_name(name: &str) -> &str {
    name.rsplit('.').next().unwrap_or(name)
}

/// What Go calls the type.
pub fn go_type(node: Node<'_>) -> String {
    match node.ty() {
        Type::Any => "runtime.RawExtension".to_owned(),
        Type::Bool => "bool".to_owned(),
        Type::String(_) => "string".to_owned(),
        Type::Integer(Width::I32) => "int32".to_owned(),
        Type::Integer(Width::I64) => "int64".to_owned(),
        Type::Number => "float64".to_owned(),
        Type::IntOrString => "intstr.IntOrString".to_owned(),
        Type::Quantity => "resource.Quantity".to_owned(),
        Type::Time => "v1.Time".to_owned(),
        Type::MicroTime => "v1.MicroTime".to_owned(),
        Type::Duration => "v1.Duration".to_owned(),
        Type::Bytes => "[]uint8".to_owned(),
        Type::FieldsV1 => "v1.FieldsV1".to_owned(),
        Type::Object(object) => {
            let mut parts = object.name.rsplitn(3, '.');
            let (name, package) = (parts.next().unwrap_or_default(), parts.next().unwrap_or_default());
            format!("{package}.{name}")
        }
        Type::Map(map) => format!("map[string]{}", go_type(node.at(map.value))),
        Type::List(list) => format!("[]{}", go_type(node.at(list.item))),
    }
}

fn quantity(value: &mut Value) -> Option<String> {
    let text = match *value {
        Value::String(ref text) => text.trim().to_owned(),
        ref other => other.to_string(),
    };
    match Quantity::parse(&text) {
        Ok(quantity) => {
            *value = Value::String(quantity.to_string());
            None
        }
        Err(error) => Some(error.to_string()),
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;
    use crate::{builtin, defaults};

    fn node(group: &str, kind: &str) -> Node<'static> {
        builtin().kind(group, "v1", kind).expect(kind)
    }

    #[test]
    fn unknown_fields_are_taken_out_and_named() {
        let mut pod = json!({"kind": "Pod", "spec": {"containers": [{"name": "a"}, {"name": "b", "imagee": "x"}]},
            "metadata": {"labels": {"any": "thing"}, "lables": {}}, "xyz": null});
        let checked = check(node("", "Pod"), &mut pod);
        assert_eq!(checked.unknown, ["xyz", "metadata.lables", "spec.containers[1].imagee"]);
        assert!(checked.errors.is_empty());
        let expected = json!({"kind": "Pod", "spec": {"containers": [{"name": "a"}, {"name": "b"}]},
            "metadata": {"labels": {"any": "thing"}}});
        assert_eq!(pod, expected);
    }

    #[test]
    fn what_upstream_leaves_out_is_left_out() {
        let mut pod = json!({"metadata": {"labels": {}, "generateName": "", "annotations": {"a": ""}},
            "spec": {"hostNetwork": false, "nodeSelector": {}, "tolerations": [], "terminationGracePeriodSeconds": 0,
                "containers": [{"name": "", "image": "", "env": [], "resources": {}, "stdin": false}],
                "volumes": [{"name": "v", "emptyDir": {}}]}});
        check(node("", "Pod"), &mut pod);
        let left = json!({"metadata": {"annotations": {"a": ""}}, "spec": {"terminationGracePeriodSeconds": 0,
            "containers": [{"name": "", "resources": {}}], "volumes": [{"name": "v", "emptyDir": {}}]}});
        assert_eq!(pod, left);
        // No pointers, no `omitempty`: they stay.
        let mut set =
            json!({"spec": {"serviceName": "", "replicas": 0, "template": {"spec": {"containers": []}}}});
        let kept = set.clone();
        check(node("apps", "StatefulSet"), &mut set);
        assert_eq!(set, kept);
    }

    #[test]
    fn null_is_absence_and_an_empty_element() {
        let mut pod =
            json!({"spec": {"nodeName": null, "containers": [null, {"args": [null], "env": null}]}});
        assert_eq!(check(node("", "Pod"), &mut pod), Checked::default());
        assert_eq!(pod, json!({"spec": {"containers": [{}, {"args": [""]}]}}));
    }

    #[test]
    fn types_are_told_in_gos_words() {
        for (kind, object, expected) in [
            (
                "Pod",
                json!({"metadata": {"name": 5}}),
                "json: cannot unmarshal number into Go struct field ObjectMeta.metadata.name of type string",
            ),
            (
                "Pod",
                json!({"spec": {"containers": {}}}),
                "json: cannot unmarshal object into Go struct field PodSpec.spec.containers of type []v1.Container",
            ),
            (
                "Pod",
                json!({"spec": {"containers": [{"ports": [{"containerPort": "80"}]}]}}),
                "json: cannot unmarshal string into Go struct field ContainerPort.spec.containers.ports.containerPort of type int32",
            ),
            (
                "Pod",
                json!({"spec": {"containers": [{"ports": [{"containerPort": 3_000_000_000_u64}]}]}}),
                "json: cannot unmarshal number 3000000000 into Go struct field ContainerPort.spec.containers.ports.containerPort of type int32",
            ),
            (
                "ConfigMap",
                json!({"data": {"a": true}}),
                "json: cannot unmarshal bool into Go struct field ConfigMap.data of type string",
            ),
            (
                "Pod",
                json!({"spec": {"containers": [{"ports": [{"protocol": 1}]}]}}),
                "json: cannot unmarshal number into Go struct field ContainerPort.spec.containers.ports.protocol of type v1.Protocol",
            ),
            (
                "Pod",
                json!({"spec": {"volumes": [{"emptyDir": []}]}}),
                "json: cannot unmarshal array into Go struct field Volume.spec.volumes.VolumeSource.emptyDir of type v1.EmptyDirVolumeSource",
            ),
            (
                "PersistentVolumeClaim",
                json!({"spec": {"accessModes": [true]}}),
                "json: cannot unmarshal bool into Go struct field PersistentVolumeClaimSpec.spec.accessModes of type v1.PersistentVolumeAccessMode",
            ),
            ("ConfigMap", json!([]), "json: cannot unmarshal array into Go value of type v1.ConfigMap"),
            ("Secret", json!({"data": {"a": "%"}}), "illegal base64 data at input byte 0"),
            (
                "Pod",
                json!({"metadata": {"creationTimestamp": 5}}),
                "json: cannot unmarshal number into Go struct field ObjectMeta.metadata.creationTimestamp of type string",
            ),
            (
                "Pod",
                json!({"metadata": {"creationTimestamp": "yesterday"}}),
                "parsing time \"yesterday\" as \"2006-01-02T15:04:05Z07:00\": cannot parse \"yesterday\" as \"2006\"",
            ),
            (
                "Service",
                json!({"spec": {"ports": [{"targetPort": true}]}}),
                "json: cannot unmarshal bool into Go struct field ServicePort.spec.ports.targetPort of type int32",
            ),
            (
                "Pod",
                json!({"spec": {"containers": [{"resources": {"limits": {"cpu": "1 x"}}}]}}),
                "quantities must match the regular expression '^([+-]?[0-9.]+)([eEinumkKMGTP]*[-+]?[0-9]*)$'",
            ),
        ] {
            let mut value = object.clone();
            assert_eq!(check(node("", kind), &mut value).errors, [expected], "{object}");
        }
    }

    #[test]
    fn values_are_written_as_upstream_writes_them() {
        let mut pod = json!({"metadata": {"creationTimestamp": "2020-01-01T02:00:00.5+02:00"},
            "spec": {"containers": [{"resources": {"limits": {"cpu": 0.5, "memory": "1024Mi"}}}]}});
        assert_eq!(check(node("", "Pod"), &mut pod), Checked::default());
        let expected = json!({"metadata": {"creationTimestamp": "2020-01-01T00:00:00Z"},
            "spec": {"containers": [{"resources": {"limits": {"cpu": "500m", "memory": "1Gi"}}}]}});
        assert_eq!(pod, expected);
    }

    #[test]
    fn defaults_fill_what_is_absent() {
        let mut service = json!({"spec": {"ports": [{"port": 80}, {"port": 81, "protocol": "UDP"}]}});
        defaults::apply(node("", "Service"), &mut service);
        assert_eq!(service["spec"]["ports"][0]["protocol"], "TCP");
        assert_eq!(service["spec"]["ports"][1]["protocol"], "UDP");
        assert_eq!(service["status"], json!({"loadBalancer": {}}));
    }

    #[test]
    fn kinds_of_meta_are_of_every_group() {
        for (group, kind) in
            [("apps", "DeleteOptions"), ("", "DeleteOptions"), ("", "Status"), ("apps", "DeploymentList")]
        {
            assert!(builtin().kind(group, "v1", kind).is_some(), "{group} {kind}");
        }
        assert!(builtin().kind("apps", "v2", "Deployment").is_none());
    }
}
