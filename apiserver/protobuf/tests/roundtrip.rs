//! The data that kubernetes/api publishes for decoders: each kind with every field set, as JSON and as protobuf.
//!
//! Nothing of it is in this repository: `go mod download` brings it.

use std::collections::BTreeSet;
use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;

use corten_schema::Node;
use serde_json::Value;

const MODULE: &str = "k8s.io/api@v0.36.3";

/// Where the module's data lie; `None` once it is said why they do not.
fn testdata() -> Option<PathBuf> {
    let installed = Path::new("/usr/local/go/bin/go");
    let mut download = Command::new(if installed.exists() { installed } else { Path::new("go") });
    download.args(["mod", "download", "-json", MODULE]).current_dir(std::env::temp_dir());
    let output = match download.output() {
        Ok(output) if output.status.success() => output,
        Ok(output) => {
            println!("SKIP: `go mod download {MODULE}`: {}", String::from_utf8_lossy(&output.stderr).trim());
            return None;
        }
        Err(error) => {
            println!("SKIP: {MODULE} is brought by Go, which cannot be started: {error}");
            return None;
        }
    };
    let said: Value = serde_json::from_slice(&output.stdout).expect("go answers in JSON");
    Some(Path::new(said["Dir"].as_str().expect("a directory")).join("testdata"))
}

fn node(api_version: &str, kind: &str) -> Option<Node<'static>> {
    corten_schema::builtin().of_api_version(api_version, kind)
}

/// Where two values differ first.
fn difference(got: &Value, wanted: &Value, path: &str) -> Option<String> {
    match (got, wanted) {
        (Value::Object(a), Value::Object(b)) => {
            let keys: BTreeSet<&String> = a.keys().chain(b.keys()).collect();
            keys.into_iter().find_map(|key| {
                let at = format!("{path}.{key}");
                match (a.get(key), b.get(key)) {
                    (Some(a), Some(b)) => difference(a, b, &at),
                    (a, b) => Some(format!("{at}: {a:?}, wanted {b:?}")),
                }
            })
        }
        (Value::Array(a), Value::Array(b)) if a.len() == b.len() => {
            let mut pairs = a.iter().zip(b).enumerate();
            pairs.find_map(|(at, (a, b))| difference(a, b, &format!("{path}[{at}]")))
        }
        _ => (got != wanted).then(|| format!("{path}: {got}, wanted {wanted}")),
    }
}

#[derive(Default)]
struct Counts {
    decoded: usize,
    same_bytes: usize,
    unknown: BTreeSet<String>,
    wrong: Vec<String>,
}

/// One file of protobuf and the JSON beside it.
fn check(pb: &Path, counts: &mut Counts) {
    let name = pb.file_stem().expect("a name").to_string_lossy().into_owned();
    let read = |path: &Path| fs::read(path).unwrap_or_else(|error| panic!("{}: {error}", path.display()));
    let bytes = read(pb);
    // What this release makes of an older one's object.
    let after = pb.with_file_name(format!("{name}.after_roundtrip.json"));
    let beside = pb.with_file_name(format!("{name}.json"));
    let wanted: Value =
        serde_json::from_slice(&read(if after.exists() { &after } else { &beside })).expect("JSON");
    let text = |key: &str| wanted[key].as_str().unwrap_or_default();
    let Some(of) = node(text("apiVersion"), text("kind")) else {
        counts.unknown.insert(name);
        return;
    };
    let same = |value: &Value, what: &str| match difference(value, &wanted, "") {
        Some(difference) => Err(format!("{what}: {difference}")),
        None => Ok(()),
    };
    let checked =
        corten_protobuf::decode(&bytes, node).map_err(|error| error.to_string()).and_then(|value| {
            same(&value, "decoded")?;
            let encoded = corten_protobuf::encode(of, &value).map_err(|error| format!("encoded: {error}"))?;
            let again = corten_protobuf::decode(&encoded, node).map_err(|error| format!("back: {error}"))?;
            same(&again, "back")?;
            Ok(encoded == bytes)
        });
    match checked {
        Ok(same) => {
            counts.decoded += 1;
            counts.same_bytes += usize::from(same);
        }
        Err(wrong) => counts.wrong.push(format!("{name}: {wrong}")),
    }
}

fn check_release(testdata: &Path, release: &str) {
    let mut counts = Counts::default();
    let entries = fs::read_dir(testdata.join(release)).expect("the release is there");
    let mut files: Vec<PathBuf> = entries.map(|entry| entry.expect("an entry").path()).collect();
    files.sort();
    let is_message = |path: &&PathBuf| {
        path.extension().is_some_and(|extension| extension == "pb")
            && !path.to_string_lossy().contains(".after_roundtrip.")
    };
    for pb in files.iter().filter(is_message) {
        check(pb, &mut counts);
    }
    println!(
        "{} kinds of {release} decoded to their JSON and back, {} of them to the same bytes; {} are not in the table",
        counts.decoded,
        counts.same_bytes,
        counts.unknown.len()
    );
    let is_stable = |name: &&String| !name.contains("alpha") && !name.contains("beta");
    println!(
        "not in the table and stable: {:?}",
        counts.unknown.iter().filter(is_stable).collect::<Vec<_>>()
    );
    assert!(counts.wrong.is_empty(), "{} are wrong:\n{}", counts.wrong.len(), counts.wrong.join("\n"));
    assert!(counts.decoded > 50, "only {} kinds are in the table", counts.decoded);
}

#[test]
fn every_published_object_of_this_release_decodes_to_its_json_and_back() {
    if let Some(testdata) = testdata() {
        check_release(&testdata, "HEAD");
    }
}

#[test]
fn every_published_object_of_older_releases_decodes_to_its_json_and_back() {
    let Some(testdata) = testdata() else { return };
    for release in ["v1.33.0", "v1.34.0", "v1.35.0"] {
        check_release(&testdata, release);
    }
}

#[test]
fn damaged_objects_of_every_kind_are_a_value_or_an_error() {
    let Some(testdata) = testdata() else { return };
    let mut tried = 0_u32;
    for entry in fs::read_dir(testdata.join("HEAD")).expect("the release is there") {
        let path = entry.expect("an entry").path();
        if path.extension().is_none_or(|extension| extension != "pb") {
            continue;
        }
        let mut bytes = fs::read(&path).expect("it can be read");
        let step = (bytes.len() / 60).max(1);
        for at in (0..bytes.len()).step_by(step) {
            let _ = corten_protobuf::decode(&bytes[..at], node);
            bytes[at] ^= 1 << (at % 8);
            let _ = corten_protobuf::decode(&bytes, node);
            bytes[at] ^= 1 << (at % 8);
            tried += 2;
        }
    }
    println!("{tried} damaged messages");
}
