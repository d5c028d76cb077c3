//! The form of a facts file: sorted, and few enough values on a line that a difference is read at a glance.

use std::fs;

use anyhow::{Context, Result};
use serde_json::Value;

use crate::{project, say};

/// Writes `facts/NAME.json`; values are broken into lines down to `depth` and stand on one line below it.
pub fn write(name: &str, value: &Value, depth: usize) -> Result<()> {
    let path = project::root().join("apiserver/schema/facts").join(name).with_extension("json");
    let mut text = String::new();
    put(&mut text, value, depth, 0);
    text.push('\n');
    fs::create_dir_all(path.parent().context("it lies in a directory")?)
        .context("cannot make the directory")?;
    fs::write(&path, &text).with_context(|| format!("cannot write {}", path.display()))?;
    say::note("facts", &format!("{name}.json: {} lines, {} KiB", text.lines().count(), text.len() / 1024));
    Ok(())
}

fn put(text: &mut String, value: &Value, depth: usize, level: usize) {
    let indent = |text: &mut String, level| text.push_str(&" ".repeat(level));
    match value {
        Value::Object(map) if depth > 0 && !map.is_empty() => {
            text.push('{');
            for (at, (key, value)) in map.iter().enumerate() {
                text.push_str(if at == 0 { "\n" } else { ",\n" });
                indent(text, level + 1);
                text.push_str(&format!("{}: ", Value::from(key.as_str())));
                put(text, value, depth - 1, level + 1);
            }
            text.push('\n');
            indent(text, level);
            text.push('}');
        }
        Value::Array(list) if depth > 0 && list.iter().any(|value| value.is_object() || value.is_array()) => {
            text.push('[');
            for (at, value) in list.iter().enumerate() {
                text.push_str(if at == 0 { "\n" } else { ",\n" });
                indent(text, level + 1);
                put(text, value, depth - 1, level + 1);
            }
            text.push('\n');
            indent(text, level);
            text.push(']');
        }
        value => text.push_str(&value.to_string()),
    }
}
