//! The behaviour of kinds beside that of a stock API server: the same manifests, the same answers.
//!
//! `corpus/*.yaml` has manifests (`bases`) and `cases`: a base, what is changed in it (by JSON pointer), what an update
//! changes then, and the subresource of the update. `corpus/*.json` has what a stock server answered: facts, recorded
//! with `CORTEN_STOCK=https://host:port CORTEN_STOCK_TOKEN=...`. Of an answer, what differs from run to run is left out.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};

use corten_apiserver::auth::User;
use corten_apiserver::kinds::{self, Preparing};
use corten_apiserver::meta;
use corten_apiserver::object::Object;
use corten_apiserver::status::{Cause, Status};
use corten_schema::{Resource, builtin, check, defaults};
use serde_json::{Map, Value, json};

#[derive(serde::Deserialize)]
struct Corpus {
    bases: BTreeMap<String, Value>,
    cases: Vec<Vec<Value>>,
    /// Cases that differ, and why.
    #[serde(default)]
    different: BTreeMap<String, String>,
}

/// One case, ready to be sent.
struct Case {
    key: String,
    manifest: Value,
    update: Option<Map<String, Value>>,
    subresource: String,
}

fn files() -> Vec<PathBuf> {
    let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/corpus");
    let entries = std::fs::read_dir(folder).expect("the corpus is there");
    let mut files: Vec<PathBuf> = entries.map(|entry| entry.expect("an entry").path()).collect();
    files.retain(|path| path.extension().is_some_and(|extension| extension == "yaml"));
    files.sort();
    files
}

fn read(path: &Path) -> Corpus {
    let text = std::fs::read_to_string(path).expect("a file of the corpus");
    serde_yaml_ng::from_str(&text).unwrap_or_else(|error| panic!("{}: {error}", path.display()))
}

fn cases(corpus: &Corpus) -> Vec<Case> {
    let object = |value: Option<&Value>| value.and_then(Value::as_object).cloned();
    corpus
        .cases
        .iter()
        .map(|case| {
            let base = case[0].as_str().expect("a case begins with its base");
            let mut manifest = corpus.bases.get(base).unwrap_or_else(|| panic!("no base {base}")).clone();
            change(&mut manifest, &object(case.get(1)).unwrap_or_default());
            Case {
                key: serde_json::to_string(case).expect("a case is JSON"),
                manifest,
                update: object(case.get(2)),
                subresource: case.get(3).and_then(Value::as_str).unwrap_or_default().to_owned(),
            }
        })
        .collect()
}

/// Sets values by JSON pointer; null removes, `-` is behind the last.
fn change(object: &mut Value, changes: &Map<String, Value>) {
    for (pointer, value) in changes {
        let steps: Vec<String> =
            pointer.split('/').skip(1).map(|step| step.replace("~1", "/").replace("~0", "~")).collect();
        set(object, &steps, value);
    }
}

fn set(at: &mut Value, steps: &[String], value: &Value) {
    let Some((step, rest)) = steps.split_first() else {
        *at = value.clone();
        return;
    };
    if let Value::Array(list) = at {
        let index = step.parse().unwrap_or(list.len());
        if index >= list.len() {
            list.push(Value::Null);
        }
        if rest.is_empty() && value.is_null() {
            list.remove(index);
        } else {
            set(&mut list[index], rest, value);
        }
        return;
    }
    if !at.is_object() {
        *at = json!({});
    }
    let map = at.as_object_mut().expect("an object, see above");
    if rest.is_empty() && value.is_null() {
        map.remove(step);
    } else {
        set(map.entry(step.clone()).or_insert(Value::Null), rest, value);
    }
}

/// The row of a manifest's kind.
fn row(manifest: &Value) -> &'static Resource {
    let (version, kind) = (manifest["apiVersion"].as_str(), manifest["kind"].as_str());
    let mut rows = builtin().resources.iter();
    rows.find(|row| Some(&*row.api_version()) == version && Some(&*row.kind) == kind)
        .unwrap_or_else(|| panic!("no such kind: {version:?} {kind:?}"))
}

/// What our side answers: `Ok`: the object.
fn answer(case: &Case) -> (Result<Object, Status>, Vec<String>) {
    let row = row(&case.manifest);
    let kind = kinds::of(&row.group, &row.kind);
    let user = User {
        name: "admin".to_owned(),
        uid: "1".to_owned(),
        groups: vec!["system:masters".to_owned(), "system:authenticated".to_owned()],
        ..User::default()
    };
    let preparing = Preparing { user: &user, now: "2026-01-01T00:00:00Z" };
    let refuse = |name: &str, causes: Vec<Cause>| {
        if causes.is_empty() {
            Ok(())
        } else {
            let mut once: Vec<Cause> = Vec::new();
            causes.into_iter().for_each(|cause| {
                if !once.contains(&cause) {
                    once.push(cause);
                }
            });
            Err(Status::invalid(row, name, once))
        }
    };
    let allocator = kinds::services::Allocator::new(
        kinds::services::Ranges {
            clusters: ["10.96.0.0/16", "fd00:96::/112"]
                .map(|text| kinds::validate::ip::Network::parse(text).expect("a network"))
                .to_vec(),
            node_ports: 30000..=32767,
        },
        [],
    );
    let allocate = |new: &mut Object, old: Option<&Object>| {
        if !kind.allocates {
            return Ok(());
        }
        match allocator.allocate(new, old, case.update.is_none()) {
            Ok(allocation) => {
                allocation.keep(new);
                Ok(())
            }
            Err(kinds::services::Refusal::Invalid(causes)) => Err(Status::invalid(row, new.name(), causes)),
            Err(kinds::services::Refusal::Full(why)) => Err(Status::internal(why)),
        }
    };
    let create = || {
        let mut object = decode(row, case.manifest.clone())?;
        object.set_meta("uid", UID);
        if row.namespaced {
            object.set_meta("namespace", "default");
        }
        object.set_meta("creationTimestamp", preparing.now);
        (kind.default)(&mut object);
        allocate(&mut object, None)?;
        if row.subresource("status").is_some()
            && !matches!(&*row.kind, "Node" | "APIService" | "VolumeAttachment")
        {
            object.0.remove("status");
        }
        (kind.prepare_create)(&mut object, &preparing);
        meta::tidy(&mut object);
        let mut causes = meta::validate(&object, row, kind.name);
        causes.extend((kind.validate)(&object));
        refuse(object.name(), causes)?;
        Ok(object)
    };
    let created: Result<Object, Status> = create();
    let Some(changes) = &case.update else {
        let warnings = created.as_ref().map(|object| (kind.warn)(object)).unwrap_or_default();
        return (created.map(|object| served(row, object)), warnings);
    };
    let update = || {
        let old = created?;
        let mut value = Value::Object(served(row, old.clone()).0);
        change(&mut value, changes);
        let mut new = decode(row, value)?;
        (kind.default)(&mut new);
        if case.subresource.is_empty() {
            allocate(&mut new, Some(&old))?;
            if row.subresource("status").is_some() {
                keep(&mut new, &old, |key| key == "status");
            }
            (kind.prepare_update)(&mut new, &old, &preparing);
        } else {
            if case.subresource == "status" {
                keep(&mut new, &old, |key| !matches!(key, "kind" | "apiVersion" | "metadata" | "status"));
            }
            (kind.prepare_subresource)(&case.subresource, &mut new, &old, &preparing);
        }
        meta::tidy(&mut new);
        let mut causes = meta::validate_update(&new, &old, row, kind.name);
        if case.subresource.is_empty() {
            causes.extend((kind.validate_update)(&new, &old));
        } else {
            causes.extend((kind.validate_subresource)(&case.subresource, &new, &old));
        }
        refuse(new.name(), causes)?;
        Ok(new)
    };
    (update().map(|object| served(row, object)), Vec::new())
}

const UID: &str = "00000000-0000-4000-8000-000000000000";

fn keep(new: &mut Object, old: &Object, is: impl Fn(&str) -> bool) {
    new.0.retain(|key, _| !is(key));
    new.0.extend(old.0.iter().filter(|(key, _)| is(key)).map(|(key, value)| (key.clone(), value.clone())));
}

fn decode(row: &'static Resource, mut value: Value) -> Result<Object, Status> {
    let node = corten_schema::Node { types: &builtin().types, id: row.ty };
    let checked = check::check(node, &mut value);
    if let Some(error) = checked.errors.first() {
        return Err(Status::bad_request(format!("{error:?}")));
    }
    defaults::apply(node, &mut value);
    Ok(Object::of(value).expect("an object"))
}

/// As it is stored and answered: with the zero values that Go writes.
fn served(row: &'static Resource, object: Object) -> Object {
    let node = corten_schema::Node { types: &builtin().types, id: row.ty };
    let mut value = Value::Object(object.0);
    defaults::finish(node, &mut value);
    Object::of(value).expect("an object")
}

/// What does not differ from run to run.
fn stable(mut object: Value, given: &Value) -> Value {
    let uid = object["metadata"]["uid"].as_str().map(str::to_owned);
    if let Some(meta) = object["metadata"].as_object_mut() {
        for field in ["uid", "creationTimestamp", "managedFields", "resourceVersion", "generation"] {
            meta.remove(field);
        }
    }
    if object["kind"] == "Service" {
        for field in ["clusterIP", "clusterIPs", "healthCheckNodePort"] {
            if given["spec"].get(field).is_none()
                && let Some(value) = object["spec"].get_mut(field)
            {
                *value = json!(value.as_array().map_or(1, Vec::len));
            }
        }
        for port in object["spec"]["ports"].as_array_mut().into_iter().flatten() {
            if port["nodePort"].as_i64().is_some_and(|port| port > 0) {
                port["nodePort"] = json!("given");
            }
        }
    }
    forget_times(&mut object);
    let text = object.to_string();
    let text = match uid {
        Some(uid) => text.replace(&uid, "UID"),
        None => text,
    };
    serde_json::from_str(&text).expect("JSON")
}

fn forget_times(value: &mut Value) {
    match value {
        Value::Object(map) => map.iter_mut().for_each(|(key, value)| {
            if matches!(&**key, "lastTransitionTime" | "lastPhaseTransitionTime" | "lastUpdateTime")
                && value.is_string()
            {
                *value = "TIME".into();
            } else {
                forget_times(value);
            }
        }),
        Value::Array(list) => list.iter_mut().for_each(forget_times),
        _ => {}
    }
}

/// An error without what is not promised: the order of causes, the form of differences.
fn stable_error(reason: &str, details: &[(String, String, String)]) -> Value {
    let mut causes: Vec<String> = details
        .iter()
        .map(|(reason, field, message)| {
            let head = message.split('\n').next().unwrap_or_default();
            format!("{reason} {field}: {}", without_ids(&without_structures(head)))
        })
        .collect();
    causes.sort();
    causes.dedup();
    json!({"reason": reason, "causes": causes})
}

/// A structure that is shown whole is upstream's internal one, of which nobody depends: left out where it is long.
fn without_structures(text: &str) -> String {
    const LONG: usize = 300;
    match (text.find(": {"), text.rfind("}: ")) {
        (Some(start), Some(end)) if end > start + LONG => {
            format!("{}: {{..}}{}", &text[..start], &text[end + 1..])
        }
        _ => text.to_owned(),
    }
}

/// UUIDs differ from run to run.
fn without_ids(text: &str) -> String {
    let is = |part: &str| {
        let lengths = part.split('-').map(str::len);
        lengths.eq([8, 4, 4, 4, 12]) && part.bytes().all(|byte| byte.is_ascii_hexdigit() || byte == b'-')
    };
    let mut text = text.to_owned();
    let mut at = 0;
    while at + 36 <= text.len() {
        if text.is_char_boundary(at) && text.is_char_boundary(at + 36) && is(&text[at..at + 36]) {
            text.replace_range(at..at + 36, "UID");
        }
        at += 1;
    }
    text
}

fn ours(case: &Case) -> Value {
    let (answer, warnings) = answer(case);
    match answer {
        Ok(object) => {
            json!({"object": stable(Value::Object(object.0), &case.manifest), "warnings": warnings})
        }
        Err(status) => {
            let causes = status.details().causes.iter();
            let causes: Vec<_> = causes
                .map(|cause| (cause.reason.to_owned(), cause.field.clone(), cause.message.clone()))
                .collect();
            json!({"error": stable_error(status.reason(), &causes)})
        }
    }
}

fn differences(path: &str, ours: &Value, theirs: &Value, out: &mut Vec<String>) {
    match (ours, theirs) {
        (Value::Object(a), Value::Object(b)) => {
            for key in a.keys().chain(b.keys().filter(|key| !a.contains_key(*key))) {
                let null = Value::Null;
                let (ours, theirs) = (a.get(key), b.get(key));
                let inner = format!("{path}.{key}");
                if ours.is_some() && theirs.is_some() {
                    differences(&inner, ours.unwrap_or(&null), theirs.unwrap_or(&null), out);
                } else if let Some(ours) = ours {
                    out.push(format!("  {inner}: ours {ours}, theirs nothing"));
                } else if let Some(theirs) = theirs {
                    out.push(format!("  {inner}: ours nothing, theirs {theirs}"));
                }
            }
        }
        (Value::Array(a), Value::Array(b)) if a.len() == b.len() => {
            a.iter()
                .zip(b)
                .enumerate()
                .for_each(|(at, (a, b))| differences(&format!("{path}[{at}]"), a, b, out));
        }
        _ if ours == theirs => {}
        _ => out.push(format!("  {path}:\n    ours   {ours}\n    theirs {theirs}")),
    }
}

#[test]
fn kinds_answer_as_a_stock_server_does() {
    let (mut count, mut wrong) = (0, Vec::new());
    for path in files() {
        let corpus = read(&path);
        let recorded = path.with_extension("json");
        let Ok(text) = std::fs::read_to_string(&recorded) else { continue };
        let theirs: BTreeMap<String, Value> = serde_json::from_str(&text).expect("recorded answers");
        for case in cases(&corpus) {
            let Some(theirs) = theirs.get(&case.key) else {
                wrong.push(format!("{}: not recorded: {}", path.display(), case.key));
                continue;
            };
            count += 1;
            let ours = ours(&case);
            let mut found = Vec::new();
            differences("", &ours, theirs, &mut found);
            match (found.is_empty(), corpus.different.get(&case.key)) {
                (true, None) | (false, Some(_)) => {}
                (true, Some(_)) => wrong.push(format!("{}: no longer different", case.key)),
                (false, None) => wrong.push(format!("{}\n{}", case.key, found.join("\n"))),
            }
        }
    }
    assert!(wrong.is_empty(), "{} of {count} cases differ:\n{}", wrong.len(), wrong.join("\n"));
    println!("{count} cases");
}

/// Objects with every field set, published by upstream for the round trip of its codecs.
#[test]
fn upstreams_own_test_objects_are_defaulted_and_judged_without_a_panic() {
    let home = std::env::var("HOME").unwrap_or_default();
    let modules = std::env::var("GOMODCACHE").unwrap_or_else(|_| format!("{home}/go/pkg/mod"));
    let folder = Path::new(&modules).join("k8s.io/api@v0.36.3/testdata/HEAD");
    let Ok(entries) = std::fs::read_dir(&folder) else {
        println!("SKIP: the module k8s.io/api is not in the module cache");
        return;
    };
    let mut count = 0;
    for path in entries.map(|entry| entry.expect("an entry").path()) {
        if path.extension().is_none_or(|extension| extension != "json") {
            continue;
        }
        let bytes = std::fs::read(&path).expect("a test object");
        let Ok((value, _)) = corten_schema::json::parse(&bytes) else { continue };
        let (version, kind) = (value["apiVersion"].as_str(), value["kind"].as_str());
        let mut rows = builtin().resources.iter();
        let Some(row) = rows.find(|row| Some(&*row.api_version()) == version && Some(&*row.kind) == kind)
        else {
            continue;
        };
        let Ok(mut object) = decode(row, value) else { panic!("{}: not decoded", path.display()) };
        let special = kinds::of(&row.group, &row.kind);
        (special.default)(&mut object);
        let once = object.clone();
        (special.default)(&mut object);
        assert_eq!(object, once, "{}: defaults are not settled at once", path.display());
        let user = User::default();
        let preparing = Preparing { user: &user, now: "2026-01-01T00:00:00Z" };
        (special.prepare_create)(&mut object, &preparing);
        (special.validate)(&object);
        (special.validate_update)(&object, &once);
        for subresource in row.subresources.iter() {
            (special.prepare_subresource)(&subresource.name, &mut object, &once, &preparing);
            (special.validate_subresource)(&subresource.name, &object, &once);
        }
        (special.warn)(&object);
        count += 1;
    }
    assert!(count > 40, "{count} objects");
}

mod record {
    //! Asks a stock server.

    use http::Request;
    use http_body_util::BodyExt;
    use kube::client::Body;
    use kube::{Client, Config};

    use super::*;

    struct Answer {
        code: u16,
        body: Value,
        warnings: Vec<String>,
    }

    async fn ask(client: &Client, method: &str, path: &str, body: Option<&Value>) -> Answer {
        let body = body.map_or_else(Vec::new, |body| serde_json::to_vec(body).expect("JSON"));
        let request = Request::builder().method(method).uri(path).header("content-type", "application/json");
        let answer =
            client.send(request.body(Body::from(body)).expect("a request")).await.expect("an answer");
        let code = answer.status().as_u16();
        let warnings = answer.headers().get_all("warning").iter().filter_map(|value| {
            let text = value.to_str().ok()?.strip_prefix("299 - \"")?.strip_suffix('"')?;
            Some(text.replace("\\\"", "\"").replace("\\\\", "\\"))
        });
        let warnings = warnings.collect();
        let bytes = answer.into_body().collect().await.expect("a body").to_bytes();
        Answer { code, body: serde_json::from_slice(&bytes).unwrap_or_default(), warnings }
    }

    async fn theirs(client: &Client, case: &Case) -> Value {
        let row = row(&case.manifest);
        let prefix = if row.group.is_empty() {
            "/api/v1".to_owned()
        } else {
            format!("/apis/{}/{}", row.group, row.version)
        };
        let namespace = if row.namespaced { "/namespaces/default" } else { "" };
        let list = format!("{prefix}{namespace}/{}", row.plural);
        let answer = match &case.update {
            None => ask(client, "POST", &format!("{list}?dryRun=All"), Some(&case.manifest)).await,
            Some(changes) => {
                let path =
                    format!("{list}/{}", case.manifest["metadata"]["name"].as_str().unwrap_or_default());
                let mut created = ask(client, "POST", &list, Some(&case.manifest)).await;
                if created.code == 409 {
                    created = ask(client, "GET", &path, None).await;
                }
                assert!(created.code < 300, "{}: {}", case.key, created.body);
                let mut new = created.body;
                change(&mut new, changes);
                let sub = if case.subresource.is_empty() {
                    String::new()
                } else {
                    format!("/{}", case.subresource)
                };
                let answer = ask(client, "PUT", &format!("{path}{sub}?dryRun=All"), Some(&new)).await;
                let options = json!({"gracePeriodSeconds": 0, "propagationPolicy": "Background"});
                ask(client, "DELETE", &path, Some(&options)).await;
                if &*row.kind == "Namespace" {
                    let mut ending = ask(client, "GET", &path, None).await.body;
                    ending["spec"]["finalizers"] = json!([]);
                    ask(client, "PUT", &format!("{path}/finalize"), Some(&ending)).await;
                }
                Answer { warnings: Vec::new(), ..answer }
            }
        };
        if answer.code < 300 {
            return json!({"object": stable(answer.body, &case.manifest), "warnings": answer.warnings});
        }
        let text = |value: &Value| value.as_str().unwrap_or_default().to_owned();
        let causes = answer.body["details"]["causes"].as_array().cloned().unwrap_or_default();
        let causes: Vec<_> = causes
            .iter()
            .map(|cause| (text(&cause["reason"]), text(&cause["field"]), text(&cause["message"])))
            .collect();
        json!({"error": stable_error(&text(&answer.body["reason"]), &causes)})
    }

    #[tokio::test]
    async fn answers_of_a_stock_server() {
        let Ok(url) = std::env::var("CORTEN_STOCK") else {
            println!("SKIP: CORTEN_STOCK names no stock API server to record from");
            return;
        };
        let mut config = Config::new(url.parse().expect("CORTEN_STOCK is a URL"));
        config.accept_invalid_certs = true;
        config.auth_info.token = std::env::var("CORTEN_STOCK_TOKEN").ok().map(Into::into);
        let client = Client::try_from(config).expect("a client");
        let only = std::env::var("CORTEN_CORPUS").ok();
        for path in files() {
            if only.as_ref().is_some_and(|only| path.file_stem().is_some_and(|stem| stem != &**only)) {
                continue;
            }
            let mut answers = BTreeMap::new();
            for case in cases(&read(&path)) {
                let answer = theirs(&client, &case).await;
                answers.insert(case.key, answer);
            }
            let lines: Vec<String> =
                answers.iter().map(|(key, answer)| format!("{}: {answer}", json!(key))).collect();
            let text = format!("{{\n{}\n}}\n", lines.join(",\n"));
            std::fs::write(path.with_extension("json"), text).expect("the answers are written");
        }
    }
}
