//! Reads `facts/`: see `cargo xtask schema record`, which writes it.

use std::collections::BTreeMap;
use std::error::Error;
use std::path::Path;

use serde_json::{Map, Value};

pub struct Facts {
    /// By OpenAPI name.
    types: Map<String, Value>,
    pub resources: Vec<Value>,
    /// Groups with their versions, in upstream's order of preference.
    pub groups: Vec<Value>,
    /// By `group/version/plural`.
    pub columns: BTreeMap<String, Value>,
}

impl Facts {
    pub fn read() -> Result<Self, Box<dyn Error>> {
        let object = |name| match read(name)? {
            Value::Object(map) => Ok(map),
            _ => Err(format!("facts/{name} is no object")),
        };
        let list = |name| match read(name)? {
            Value::Array(list) => Ok(list),
            _ => Err(format!("facts/{name} is no list")),
        };
        Ok(Self {
            types: object("types.json")?,
            resources: list("resources.json")?,
            groups: list("groups.json")?,
            columns: object("columns.json")?.into_iter().collect(),
        })
    }

    pub fn of(&self, name: &str) -> &Value {
        self.types.get(name).unwrap_or(&Value::Null)
    }
}

fn read(name: &str) -> Result<Value, String> {
    let path = Path::new("facts").join(name);
    let text = std::fs::read(&path).map_err(|error| format!("cannot read {}: {error}", path.display()))?;
    serde_json::from_slice(&text).map_err(|error| format!("{} is no JSON: {error}", path.display()))
}
