//! Network configuration: the first `.conf`, `.conflist` or `.json` in name order, as containerd chooses.

use std::path::{Path, PathBuf};

use serde::{Deserialize, Serialize};
use serde_json::{Map, Value};

/// A configuration file may not be larger than this.
const FILE_LIMIT_BYTES: u64 = 1 << 20;

/// Versions of the CNI specification that are spoken, newest last.
const VERSIONS: &[&str] = &["0.1.0", "0.2.0", "0.3.0", "0.3.1", "0.4.0", "1.0.0", "1.1.0"];

/// A network: its name, its version, its plugins as they stand in the file.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct NetworkList {
    pub name: String,
    pub cni_version: String,
    /// Each has a `type`.
    pub plugins: Vec<Map<String, Value>>,
}

#[derive(Debug, thiserror::Error)]
pub enum ConfigError {
    #[error("no CNI configuration (.conf, .conflist, .json) in {0}; has the network been installed?")]
    None(PathBuf),
    #[error("CNI configuration {path}: {}", crate::error::io_text(source))]
    Read { path: PathBuf, source: std::io::Error },
    #[error("CNI configuration {path}: {why}")]
    Invalid { path: PathBuf, why: String },
}

/// Reads the network of `dir`.
pub fn load(dir: &Path) -> Result<NetworkList, ConfigError> {
    let read = |path: &Path| {
        let path = path.to_path_buf();
        move |source| ConfigError::Read { path, source }
    };
    let mut files: Vec<PathBuf> = match std::fs::read_dir(dir) {
        Ok(entries) => entries.filter_map(Result::ok).map(|e| e.path()).filter(|p| is_config(p)).collect(),
        Err(e) if e.kind() == std::io::ErrorKind::NotFound => Vec::new(),
        Err(e) => return Err(read(dir)(e)),
    };
    files.sort();
    let path = files.into_iter().next().ok_or_else(|| ConfigError::None(dir.into()))?;
    let size = std::fs::metadata(&path).map_err(read(&path))?.len();
    if size > FILE_LIMIT_BYTES {
        return Err(ConfigError::Invalid { why: format!("{size} bytes, the limit is 1 MiB"), path });
    }
    let text = std::fs::read_to_string(&path).map_err(read(&path))?;
    let is_list = path.extension().is_some_and(|e| e == "conflist");
    parse(&text, is_list).map_err(|why| ConfigError::Invalid { path, why })
}

fn is_config(path: &Path) -> bool {
    path.extension().is_some_and(|e| e == "conf" || e == "conflist" || e == "json")
}

/// A list, or a single plugin's configuration, which becomes a list of one.
pub fn parse(text: &str, is_list: bool) -> Result<NetworkList, String> {
    let value: Value = serde_json::from_str(text).map_err(|e| format!("not JSON: {e}"))?;
    let Value::Object(object) = value else { return Err("not a JSON object".into()) };
    let name = object.get("name").and_then(Value::as_str).unwrap_or_default();
    if name.is_empty() || !name.bytes().all(|b| b.is_ascii_alphanumeric() || b"_.-".contains(&b)) {
        return Err(format!("name {name:?}: letters, digits and _.- are needed"));
    }
    let name = name.to_owned();
    let cni_version = version(&object)?;
    let plugins = if is_list { plugins(&object)? } else { vec![plugin(Value::Object(object))?] };
    if plugins.is_empty() {
        return Err("no plugins".into());
    }
    Ok(NetworkList { name, cni_version, plugins })
}

/// `cniVersion`, or the newest of `cniVersions` that is spoken (specification 1.1).
fn version(object: &Map<String, Value>) -> Result<String, String> {
    let one = match object.get("cniVersion") {
        None => "0.1.0",
        Some(value) => value.as_str().ok_or("cniVersion is not a string")?,
    };
    let many = object.get("cniVersions").and_then(Value::as_array).map_or(&[][..], Vec::as_slice);
    let offered = many.iter().filter_map(Value::as_str).chain([one]);
    let newest = offered.filter_map(|v| VERSIONS.iter().position(|known| *known == v)).max();
    let newest = newest.ok_or_else(|| format!("cniVersion {one:?} is not one of {}", VERSIONS.join(", ")))?;
    Ok(VERSIONS[newest].to_owned())
}

fn plugins(object: &Map<String, Value>) -> Result<Vec<Map<String, Value>>, String> {
    match object.get("plugins") {
        Some(Value::Array(list)) => list.iter().cloned().map(plugin).collect(),
        _ => Err("`plugins` is not a list".into()),
    }
}

fn plugin(value: Value) -> Result<Map<String, Value>, String> {
    let Value::Object(object) = value else { return Err("a plugin is not a JSON object".into()) };
    match object.get("type").and_then(Value::as_str) {
        // It becomes a file name in a plugin directory.
        Some(kind) if !kind.is_empty() && !kind.contains('/') && kind != "." && kind != ".." => Ok(object),
        other => Err(format!("plugin type {other:?}: the name of a program is needed")),
    }
}

impl NetworkList {
    /// Whether this network's version is at least `wanted` (one of the known ones).
    pub fn at_least(&self, wanted: &str) -> bool {
        let place = |v: &str| VERSIONS.iter().position(|known| *known == v);
        place(&self.cni_version) >= place(wanted)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_first_file_in_name_order_is_the_network() {
        let dir = tempfile::tempdir().unwrap();
        let write = |name: &str, text: &str| std::fs::write(dir.path().join(name), text).unwrap();
        assert!(matches!(load(dir.path()), Err(ConfigError::None(_))));
        write("20-b.conf", r#"{"name":"b","cniVersion":"1.0.0","type":"bridge"}"#);
        write(
            "10-a.conflist",
            r#"{"name":"a","cniVersion":"1.0.0","plugins":[{"type":"bridge"},{"type":"portmap"}]}"#,
        );
        write("05-not.txt", "junk");
        let list = load(dir.path()).unwrap();
        assert_eq!((list.name.as_str(), list.plugins.len()), ("a", 2));
        std::fs::remove_file(dir.path().join("10-a.conflist")).unwrap();
        assert_eq!(load(dir.path()).unwrap().plugins[0]["type"], "bridge");
    }

    #[test]
    fn what_cannot_be_run_is_refused_with_its_reason() {
        for (text, is_list, reason) in [
            ("{", true, "not JSON"),
            ("[]", true, "object"),
            (r#"{"cniVersion":"1.0.0","plugins":[{"type":"x"}]}"#, true, "name"),
            (r#"{"name":"../a","plugins":[{"type":"x"}]}"#, true, "name"),
            (r#"{"name":"a","cniVersion":"9.0.0","plugins":[{"type":"x"}]}"#, true, "9.0.0"),
            (r#"{"name":"a","plugins":[]}"#, true, "no plugins"),
            (r#"{"name":"a","plugins":[{}]}"#, true, "type"),
            (r#"{"name":"a","plugins":[{"type":"../sh"}]}"#, true, "../sh"),
            (r#"{"name":"a"}"#, false, "type"),
        ] {
            let why = parse(text, is_list).unwrap_err();
            assert!(why.contains(reason), "{text}: {why}");
        }
    }

    #[test]
    fn the_newest_offered_version_is_taken() {
        let list = |text| parse(text, true).unwrap().cni_version;
        assert_eq!(
            list(
                r#"{"name":"a","cniVersion":"1.0.0","cniVersions":["1.1.0","2.0.0"],"plugins":[{"type":"x"}]}"#
            ),
            "1.1.0"
        );
        assert_eq!(list(r#"{"name":"a","plugins":[{"type":"x"}]}"#), "0.1.0");
    }
}
