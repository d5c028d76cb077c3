//! `scale`: how many there shall be and are, in the same form for every kind. Source: kubernetes
//! `pkg/registry/apps/deployment/storage/storage.go` (ScaleREST), apiextensions `pkg/registry/customresource/etcd.go`.

use std::sync::Arc;

use corten_merge::managed::{Ignored, Write, replicas_from_scale, replicas_to_scale};
use corten_schema::{Node, Verb};
use http::StatusCode;
use serde_json::{Map, Value, json};

use crate::api::Api;
use crate::crd::Scale;
use crate::decode::{self, Expected};
use crate::fresh;
use crate::managed;
use crate::meta;
use crate::object::Object;
use crate::registry::Served;
use crate::request::{Answer, Call, Content, WriteOptions};
use crate::status::{Cause, Details, Result, Status};
use crate::verbs::patch::{self, Patch};
use crate::write::{Change, Path, Writing};

const API_VERSION: &str = "autoscaling/v1";
const KIND: &str = "Scale";

/// # Errors
/// 404; as an update or a patch of the object that is scaled.
pub async fn scale(
    api: &Arc<Api>,
    call: &Call,
    served: &Arc<Served>,
    verb: Verb,
    content: &Content,
) -> Result<Answer> {
    let info = &call.info;
    let node = corten_schema::builtin()
        .of_api_version(API_VERSION, KIND)
        .ok_or_else(|| Status::internal("the table has no Scale"))?;
    let options = match verb {
        Verb::Update => WriteOptions::of(&call.query, "UpdateOptions", false)?,
        Verb::Patch => patch::options(call, content, !served.is_custom())?,
        _ => WriteOptions::default(),
    };
    let writing = Writing {
        api,
        call,
        served,
        subresource: "scale",
        namespace: &info.namespace,
        name: &info.name,
        options: &options,
    };
    let at = paths(served);
    let scaled = match verb {
        Verb::Get => writing.object().await?,
        Verb::Update => {
            let expected =
                Expected { api_version: API_VERSION, kind: KIND, node, any_version: false, custom: None };
            let mut sent = decode::body(call, content, expected, options.validation)?;
            meta::take_namespace(&mut sent, &info.namespace)?;
            meta::check_name(&sent, &info.name)?;
            let uid = Some(sent.uid().to_owned()).filter(|uid| !uid.is_empty());
            change(&writing, node, &at, uid, |_| Ok((sent.clone(), true))).await?
        }
        _ => {
            let patch = Patch::read(content, options.validation)?;
            change(&writing, node, &at, None, |old| {
                if let Some(config) = patch.applied() {
                    return Ok((applied(node, old, config, &options)?, false));
                }
                let patched = Object::of(patch.apply(call, node, old)?).unwrap_or_default();
                let mut sent = patch.check_fields(call, node, None, patched)?;
                meta::take_namespace(&mut sent, &info.namespace)?;
                meta::check_name(&sent, &info.name)?;
                Ok((sent, true))
            })
            .await?
        }
    };
    Ok(Answer::of(StatusCode::OK, &of(&scaled, served, &at)?, None))
}

/// Where a kind has its numbers.
fn paths(served: &Served) -> Scale {
    served.custom().and_then(|custom| custom.scale.clone()).unwrap_or_else(|| Scale {
        spec_replicas: ".spec.replicas".to_owned(),
        status_replicas: ".status.replicas".to_owned(),
        label_selector: String::new(),
    })
}

fn steps(path: &str) -> Vec<&str> {
    path.split('.').filter(|step| !step.is_empty()).collect()
}

/// The Scale of an object.
fn of(object: &Object, served: &Served, at: &Scale) -> Result<Object> {
    let mut meta = Map::new();
    for key in ["name", "namespace", "uid", "resourceVersion", "creationTimestamp"] {
        if let Some(value) = object.meta().and_then(|meta| meta.get(key)) {
            meta.insert(key.to_owned(), value.clone());
        }
    }
    let managers = object.get(&["metadata", "managedFields"]);
    let managers = replicas_to_scale(managers, |_| Some(&*at.spec_replicas)).map_err(Status::internal)?;
    if let Some(managers) = managers {
        meta.insert("managedFields".to_owned(), managers);
    }
    let number = |path: &str| object.get(&steps(path)).and_then(Value::as_i64).unwrap_or(0);
    let mut spec = Map::new();
    if number(&at.spec_replicas) != 0 {
        spec.insert("replicas".to_owned(), number(&at.spec_replicas).into());
    }
    let mut status = json!({"replicas": number(&at.status_replicas)});
    let selector = if served.is_custom() {
        object.text(&steps(&at.label_selector)).to_owned()
    } else {
        selector(object.get(&["spec", "selector"]))
    };
    if !selector.is_empty() {
        status["selector"] = selector.into();
    }
    let scale =
        json!({"kind": KIND, "apiVersion": API_VERSION, "metadata": meta, "spec": spec, "status": status});
    Ok(Object::of(scale).unwrap_or_default())
}

/// A label selector, or the labels themselves, as text: in the order of the keys.
pub fn selector(selector: Option<&Value>) -> String {
    let Some(selector) = selector.and_then(Value::as_object) else { return String::new() };
    let text = |value: &Value| value.as_str().unwrap_or_default().to_owned();
    let whole = selector.contains_key("matchLabels") || selector.contains_key("matchExpressions");
    let labels = if whole { selector.get("matchLabels").and_then(Value::as_object) } else { Some(selector) };
    let labels = labels.into_iter().flatten();
    let mut terms: Vec<(String, String)> =
        labels.map(|(key, value)| (key.clone(), format!("{key}={}", text(value)))).collect();
    let expressions = selector.get("matchExpressions").and_then(Value::as_array).filter(|_| whole);
    for expression in expressions.into_iter().flatten() {
        let key = text(&expression["key"]);
        let mut values: Vec<String> =
            expression["values"].as_array().into_iter().flatten().map(text).collect();
        values.sort_unstable();
        let values = values.join(",");
        let term = match expression["operator"].as_str().unwrap_or_default() {
            "In" => format!("{key} in ({values})"),
            "NotIn" => format!("{key} notin ({values})"),
            "DoesNotExist" => format!("!{key}"),
            _ => key.clone(),
        };
        terms.push((key, term));
    }
    terms.sort_by(|one, other| one.0.cmp(&other.0));
    terms.into_iter().map(|(_, term)| term).collect::<Vec<_>>().join(",")
}

/// Writes another number. `sent`: the Scale as it is to what it shall be, and whether its managers are to be told.
async fn change<F>(
    writing: &Writing<'_>,
    node: Node<'_>,
    at: &Scale,
    uid: Option<String>,
    mut sent: F,
) -> Result<Object>
where
    F: FnMut(&Object) -> Result<(Object, bool)> + Send,
{
    let served = writing.served;
    let asked = Change { uid, track: false, ..Change::of(Path::Main) };
    let manager = writing.manager();
    let written = writing
        .update(&asked, |object| {
            let object = object.ok_or_else(|| Status::not_found(&served.resource, writing.name))?;
            let old = of(object, served, at)?;
            let (mut new, track) = sent(&old)?;
            if track {
                with(node, &manager, |write| write.update(Some(&old.0), &mut new.0));
            }
            let replicas = new.get(&["spec", "replicas"]).and_then(Value::as_i64).unwrap_or(0);
            refuse(writing.name, replicas)?;
            let mut object = object.clone();
            object.set_meta("resourceVersion", new.resource_version());
            let managers = replicas_from_scale(
                object.get(&["metadata", "managedFields"]),
                new.get(&["metadata", "managedFields"]),
                &served.resource.api_version(),
                |_| Some(&*at.spec_replicas),
            );
            match managers.map_err(Status::internal)? {
                Some(managers) => object.set_meta("managedFields", managers),
                None => drop(object.meta_mut().remove("managedFields")),
            }
            put(&mut object.0, &steps(&at.spec_replicas), replicas);
            Ok(object)
        })
        .await?;
    Ok(written.object)
}

fn applied(
    node: Node<'_>,
    old: &Object,
    config: &Map<String, Value>,
    options: &WriteOptions,
) -> Result<Object> {
    let applied = with(node, &options.manager, |write| write.apply(Some(&old.0), config, options.force));
    applied.map(|applied| Object(applied.object)).map_err(|error| managed::refused(&error))
}

fn with<T>(node: Node<'_>, manager: &str, write: impl FnOnce(Write<'_>) -> T) -> T {
    write(Write {
        node,
        api_version: API_VERSION,
        kind: KIND,
        subresource: "scale",
        manager,
        now: &fresh::now(),
        is_custom: false,
        ignored: &Ignored::Nothing,
        versions: &(),
    })
}

fn put(map: &mut Map<String, Value>, steps: &[&str], number: i64) {
    match steps {
        [] => {}
        [last] => drop(map.insert((*last).to_owned(), number.into())),
        [first, rest @ ..] => {
            let within = map.entry((*first).to_owned()).or_insert_with(|| json!({}));
            if let Some(within) = within.as_object_mut() {
                put(within, rest, number);
            }
        }
    }
}

fn refuse(name: &str, replicas: i64) -> Result<()> {
    if replicas >= 0 {
        return Ok(());
    }
    let cause = Cause::invalid("spec.replicas", &replicas.into(), "must be greater than or equal to 0");
    let message = format!("Scale.autoscaling \"{name}\" is invalid: {cause}");
    let details = Details {
        group: "autoscaling".to_owned(),
        kind: KIND.to_owned(),
        name: name.to_owned(),
        causes: vec![cause],
        ..Details::default()
    };
    Err(Status::new(StatusCode::UNPROCESSABLE_ENTITY, "Invalid", message).with(details))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn selectors_are_text_in_the_order_of_their_keys() {
        for (value, expected) in [
            (json!({"matchLabels": {"b": "1", "a": "2"}}), "a=2,b=1"),
            (json!({"b": "1"}), "b=1"),
            (
                json!({"matchLabels": {"x": "y"}, "matchExpressions": [
                    {"key": "a", "operator": "In", "values": ["2", "1"]}, {"key": "z", "operator": "DoesNotExist"}]}),
                "a in (1,2),x=y,!z",
            ),
            (json!(null), ""),
        ] {
            assert_eq!(selector(Some(&value)), expected);
        }
    }
}
