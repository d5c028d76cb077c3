//! Reads `facts/`: see `cargo xtask schema record`, which writes it.

use std::collections::BTreeMap;
use std::error::Error;
use std::path::Path;

use serde_json::{Map, Value};

pub struct Facts {
    /// By OpenAPI name.
    types: Map<String, Value>,
    pub resources: Vec<Value>,
    /// By `group/version/plural`.
    pub columns: BTreeMap<String, Value>,
}

impl Facts {
    pub fn read() -> Result<Self, Box<dyn Error>> {
        let object = |name| match read(name)? {
            Value::Object(map) => Ok(map),
            _ => Err(format!("facts/{name} is no object")),
        };
        let Value::Array(resources) = read("resources.json")? else {
            return Err("facts/resources.json is no list".into());
        };
        Ok(Self {
            types: object("types.json")?,
            resources,
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
