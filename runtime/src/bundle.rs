//! Reading config.json and process.json: trusted files, tolerant where the specification is.

use std::path::Path;

use corten_sys::{Context, caps};
use oci_spec::runtime::{Process, Spec};
use serde::de::DeserializeOwned;
use serde_json::Value;

use crate::error::ConfigError;

/// A parsed file and what was left out of it.
#[derive(Debug)]
pub struct Loaded<T> {
    pub value: T,
    pub warnings: Vec<String>,
}

pub fn load_spec(path: &Path) -> Result<Loaded<Spec>, ConfigError> {
    parse(&read(path)?, "/process/capabilities")
}

pub fn load_process(path: &Path) -> Result<Loaded<Process>, ConfigError> {
    parse_process(&read(path)?)
}

pub fn parse_process(text: &[u8]) -> Result<Loaded<Process>, ConfigError> {
    parse(text, "/capabilities")
}

fn read(path: &Path) -> Result<Vec<u8>, ConfigError> {
    Ok(std::fs::read(path).tried(|| format!("open {}", path.display()))?)
}

/// Unknown capabilities are warned of and left out (runtime-spec, "Linux Process"), where the typed parser would
/// refuse the file: so it is parsed twice, but only then.
fn parse<T: DeserializeOwned>(text: &[u8], capabilities: &str) -> Result<Loaded<T>, ConfigError> {
    let first = match serde_json::from_slice(text) {
        Ok(value) => return Ok(Loaded { value, warnings: Vec::new() }),
        Err(error) => error,
    };
    let mut tree: Value = serde_json::from_slice(text)?;
    let unknown = tree.pointer_mut(capabilities).map(drop_unknown).unwrap_or_default();
    if unknown.is_empty() {
        return Err(first.into());
    }
    let value = serde_json::from_value(tree)?;
    let warnings = vec![format!("ignoring unknown or unavailable capabilities: {}", unknown.join(", "))];
    Ok(Loaded { value, warnings })
}

fn drop_unknown(sets: &mut Value) -> Vec<String> {
    let mut unknown = Vec::new();
    for set in sets.as_object_mut().into_iter().flat_map(|sets| sets.values_mut()) {
        let Some(names) = set.as_array_mut() else { continue };
        names.retain(|name| {
            let known = name.as_str().is_none_or(|name| caps::by_name(name).is_some());
            if !known {
                unknown.push(name.as_str().unwrap_or_default().to_owned());
            }
            known
        });
    }
    unknown.sort_unstable();
    unknown.dedup();
    unknown
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn unknown_capabilities_are_warned_of_and_left_out() {
        let text = br#"{"cwd":"/","user":{"uid":0,"gid":0},"args":["x"],
            "capabilities":{"bounding":["CAP_CHOWN","CAP_FLY"],"effective":["CAP_FLY"]}}"#;
        let loaded = parse_process(text).unwrap();
        assert_eq!(loaded.warnings, ["ignoring unknown or unavailable capabilities: CAP_FLY"]);
        let bounding = loaded.value.capabilities().as_ref().unwrap().bounding().as_ref().unwrap();
        assert_eq!(bounding.len(), 1);
    }

    #[test]
    fn a_malformed_file_says_where() {
        let error = parse_process(b"{\"cwd\": 7}").unwrap_err().to_string();
        assert!(error.contains("line 1"), "{error}");
        assert!(parse_process(b"{").is_err());
    }
}
