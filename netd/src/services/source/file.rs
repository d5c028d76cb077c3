//! Services from a file, or from the files of a directory (`*.yaml`, `*.yml`, `*.json`, none hidden), watched.
//!
//! The objects are an apiserver's: Service, EndpointSlice, and lists of them, as `kubectl get -o yaml` writes them; YAML
//! may hold several documents. Files that cannot be understood change nothing: the last good objects stay, and
//! [`Snapshot::fault`] names file and place.

use std::collections::BTreeSet;
use std::hash::{DefaultHasher, Hash, Hasher};
use std::io::Read;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use k8s_openapi::api::core::v1::Service;
use k8s_openapi::api::discovery::v1::EndpointSlice;
use serde::Deserialize;
use serde_json::Value;
use tokio::sync::watch;
use tracing::{info, warn};

use super::Snapshot;
use crate::services::model::{Objects, Place};
use crate::services::object::ObjectName;
use crate::watched::Watched;

/// All files together. 10,000 Services with their slices have about 20 MB.
const MAX_BYTES: u64 = 64 << 20;

#[derive(Debug, thiserror::Error)]
pub enum FileError {
    #[error("read {}: {source}", file.display())]
    Read { file: PathBuf, source: std::io::Error },
    #[error("Services in {}: larger than {MAX_BYTES} bytes together", place.display())]
    TooLarge { place: PathBuf },
    #[error("{}: {problem}", file.display())]
    Invalid { file: PathBuf, problem: String },
}

/// Reads now, then whenever something changes.
pub fn watch(path: &Path, place: Place) -> watch::Receiver<Snapshot> {
    let path = path.to_owned();
    let mut watched = if path.is_dir() { Watched::directory(&path) } else { Watched::around(&path) };
    let mut seen = None;
    let mut first = Snapshot::default();
    look(&path, &place, &mut seen, &mut first);
    let sender = watch::Sender::new(first);
    let receiver = sender.subscribe();
    tokio::spawn(async move {
        loop {
            tokio::select! {
                () = watched.changed() => {}
                () = sender.closed() => return,
            }
            sender.send_if_modified(|snapshot| look(&path, &place, &mut seen, snapshot));
        }
    });
    receiver
}

/// `seen`: a digest of the texts that were read last. Returns whether there is anything new.
fn look(path: &Path, place: &Place, seen: &mut Option<u64>, snapshot: &mut Snapshot) -> bool {
    let read = texts(path).and_then(|texts| {
        let mut hasher = DefaultHasher::new();
        texts.hash(&mut hasher);
        let digest = hasher.finish();
        if *seen == Some(digest) {
            return Ok(None);
        }
        *seen = Some(digest);
        parse(&texts).map(Some)
    });
    match read {
        Ok(None) => return false,
        Ok(Some(objects)) => {
            let model = Arc::new(objects.model(place));
            info!(
                services = model.service_count(),
                refused = model.refusals.len(),
                "read {}",
                path.display()
            );
            *snapshot = Snapshot { model: Some(model), fault: None };
        }
        Err(error) => {
            let fault = Some(error.to_string());
            // Of a text that cannot be understood it is known already; one that cannot be read is read again.
            if matches!(error, FileError::Read { .. }) {
                *seen = None;
            }
            if snapshot.fault == fault {
                return false;
            }
            warn!("{error}; the last good Services stay in force");
            snapshot.fault = fault;
        }
    }
    true
}

/// Every file's text, in the order of their names.
fn texts(path: &Path) -> Result<Vec<(PathBuf, String)>, FileError> {
    let failed = |file: &Path| {
        let file = file.to_owned();
        move |source| FileError::Read { file, source }
    };
    let files = if std::fs::metadata(path).map_err(failed(path))?.is_dir() {
        let entries = std::fs::read_dir(path).and_then(Iterator::collect::<Result<Vec<_>, _>>);
        let mut files: Vec<_> = entries.map_err(failed(path))?.iter().map(std::fs::DirEntry::path).collect();
        files.retain(|file| is_manifest(file));
        files.sort();
        files
    } else {
        vec![path.to_owned()]
    };
    let mut left = MAX_BYTES;
    let mut texts = Vec::with_capacity(files.len());
    for file in files {
        let mut text = String::new();
        let opened = std::fs::File::open(&file).map_err(failed(&file))?;
        opened.take(left + 1).read_to_string(&mut text).map_err(failed(&file))?;
        left = left
            .checked_sub(text.len() as u64)
            .ok_or_else(|| FileError::TooLarge { place: path.to_owned() })?;
        texts.push((file, text));
    }
    Ok(texts)
}

fn is_manifest(file: &Path) -> bool {
    let hidden = file.file_name().is_none_or(|name| name.as_encoded_bytes().starts_with(b"."));
    let known = file.extension().is_some_and(|e| e == "yaml" || e == "yml" || e == "json");
    known && !hidden
}

fn parse(texts: &[(PathBuf, String)]) -> Result<Objects, FileError> {
    let mut gathered = Gathered::default();
    for (file, text) in texts {
        let invalid = |problem| FileError::Invalid { file: file.clone(), problem };
        // Truncated by who is about to write it: taken at its word it would end every Service for a moment.
        if text.trim().is_empty() {
            return Err(invalid(
                "is empty; `{kind: List, apiVersion: v1, items: []}` says that there are no Services".into(),
            ));
        }
        for value in documents(text).map_err(invalid)? {
            gathered.add(value).map_err(invalid)?;
        }
    }
    Ok(gathered.objects)
}

/// JSON when it begins as such (it is ten times faster), else YAML.
fn documents(text: &str) -> Result<Vec<Value>, String> {
    if text.trim_start().starts_with('{') {
        return serde_json::from_str(text).map(|value| vec![value]).map_err(|error| error.to_string());
    }
    let documents = serde_yaml_ng::Deserializer::from_str(text);
    documents.map(|document| Value::deserialize(document).map_err(|error| error.to_string())).collect()
}

#[derive(Default)]
struct Gathered {
    objects: Objects,
    names: BTreeSet<(&'static str, ObjectName)>,
}

impl Gathered {
    fn add(&mut self, value: Value) -> Result<(), String> {
        let text = |key: &str| value.get(key).and_then(Value::as_str).unwrap_or_default().to_owned();
        let (version, kind) = (text("apiVersion"), text("kind"));
        match (version.as_str(), kind.as_str()) {
            _ if value.is_null() => Ok(()),
            ("v1", "Service") => {
                let service: Service = typed(value, "Service")?;
                self.once("Service", ObjectName::of(&service.metadata))?;
                self.objects.put_service(&service);
                Ok(())
            }
            ("discovery.k8s.io/v1", "EndpointSlice") => {
                let slice: EndpointSlice = typed(value, "EndpointSlice")?;
                self.once("EndpointSlice", ObjectName::of(&slice.metadata))?;
                self.objects.put_slice(&slice);
                Ok(())
            }
            ("v1", "List" | "ServiceList") | ("discovery.k8s.io/v1", "EndpointSliceList") => {
                let Value::Object(mut list) = value else { return Ok(()) };
                let Some(Value::Array(items)) = list.remove("items") else { return Ok(()) };
                // Items of a typed list need not say again what they are.
                let item = kind.strip_suffix("List").filter(|item| !item.is_empty());
                items.into_iter().try_for_each(|mut value| {
                    if let (Some(item), Value::Object(fields)) = (item, &mut value) {
                        fields.entry("apiVersion").or_insert_with(|| version.clone().into());
                        fields.entry("kind").or_insert_with(|| item.into());
                    }
                    self.add(value)
                })
            }
            _ => Err(format!(
                "{version:?} {kind:?} is neither a v1 Service nor a discovery.k8s.io/v1 EndpointSlice, nor a list of them"
            )),
        }
    }

    fn once(&mut self, kind: &'static str, name: ObjectName) -> Result<(), String> {
        let text = format!("{kind} {name}");
        if name.name.is_empty() {
            return Err(format!("a {kind} without metadata.name"));
        }
        if self.names.insert((kind, name)) { Ok(()) } else { Err(format!("{text} stands there twice")) }
    }
}

fn typed<T: for<'de> Deserialize<'de>>(value: Value, kind: &str) -> Result<T, String> {
    let name = value.pointer("/metadata/name").and_then(Value::as_str).unwrap_or_default().to_owned();
    serde_json::from_value(value).map_err(|error| format!("{kind} {name}: {error}"))
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::*;

    fn service(name: &str, address: &str) -> String {
        format!(
            "apiVersion: v1\nkind: Service\nmetadata: {{name: {name}}}\nspec: {{clusterIP: {address}, ports: [{{port: 80}}]}}\n"
        )
    }

    const SLICES: &str = r#"{"apiVersion": "discovery.k8s.io/v1", "kind": "EndpointSliceList", "items": [
        {"metadata": {"name": "a-1", "labels": {"kubernetes.io/service-name": "a"}}, "addressType": "IPv4",
         "ports": [{"port": 8080}], "endpoints": [{"addresses": ["10.0.0.1"]}]}]}"#;

    async fn next(receiver: &mut watch::Receiver<Snapshot>) -> Snapshot {
        tokio::time::timeout(Duration::from_secs(10), receiver.changed())
            .await
            .expect("in time")
            .expect("alive");
        receiver.borrow_and_update().clone()
    }

    fn counts(snapshot: &Snapshot) -> (usize, usize) {
        let model = snapshot.model.as_ref().expect("a model");
        (model.service_count(), model.endpoint_count())
    }

    #[tokio::test]
    async fn the_files_of_a_directory_are_followed_and_a_bad_edit_keeps_the_last_good() {
        let directory = tempfile::tempdir().expect("a directory");
        let put = |name: &str, text: &str| {
            std::fs::write(directory.path().join(".new"), text).expect("written");
            std::fs::rename(directory.path().join(".new"), directory.path().join(name)).expect("renamed");
        };
        put("a.yaml", &format!("{}---\n{}---\n", service("a", "10.96.0.1"), service("b", "10.96.0.2")));
        put("slices.json", SLICES);
        put("readme.txt", "not an object");
        put(".hidden.yaml", "not an object");
        let mut receiver = watch(directory.path(), Place::default());
        assert_eq!(counts(&receiver.borrow_and_update()), (2, 1));
        put("c.yaml", &service("c", "10.96.0.3"));
        assert_eq!(counts(&next(&mut receiver).await), (3, 1));
        put("c.yaml", "kind: [");
        let bad = next(&mut receiver).await;
        assert_eq!(counts(&bad), (3, 1));
        assert!(bad.fault.expect("said").contains("c.yaml: "));
        std::fs::remove_file(directory.path().join("c.yaml")).expect("removed");
        let mended = next(&mut receiver).await;
        assert_eq!((counts(&mended), mended.fault), ((2, 1), None));
    }

    #[tokio::test]
    async fn one_file_that_comes_later_is_read_then() {
        let directory = tempfile::tempdir().expect("a directory");
        let file = directory.path().join("services.yaml");
        let mut receiver = watch(&file, Place::default());
        let missing = receiver.borrow_and_update().clone();
        assert!(missing.model.is_none() && missing.fault.expect("said").contains("No such file"));
        std::fs::write(&file, service("a", "10.96.0.1")).expect("written");
        // The file may be seen empty first.
        let snapshot = loop {
            let snapshot = next(&mut receiver).await;
            if snapshot.model.as_ref().is_some_and(|model| model.service_count() > 0) {
                break snapshot;
            }
        };
        assert_eq!((counts(&snapshot), snapshot.fault), ((1, 0), None));
    }

    #[test]
    fn what_is_no_object_of_ours_is_named() {
        let twice = format!("{}---\n{}", service("a", "10.96.0.1"), service("a", "10.96.0.2"));
        let table = [
            ("apiVersion: v1\nkind: Pod\nmetadata: {name: a}", "\"v1\" \"Pod\" is neither"),
            ("apiVersion: v1\nkind: Service", "a Service without metadata.name"),
            ("apiVersion: v1\nkind: Service\nmetadata: {name: a}\nspec: {ports: 7}", "Service a: "),
            (&twice, "Service default/a stands there twice"),
            ("{\"kind\": ", "EOF"),
            ("\n", "is empty"),
        ];
        for (text, problem) in table {
            let error = parse(&[("f".into(), text.to_owned())]).expect_err(text).to_string();
            assert!(error.starts_with("f: ") && error.contains(problem), "{error}");
        }
        let listed = "apiVersion: v1\nkind: List\nitems:\n- ".to_owned()
            + &service("a", "10.96.0.1").trim().replace('\n', "\n  ");
        assert_eq!(parse(&[("f".into(), listed)]).expect("a list").services.len(), 1);
    }
}
