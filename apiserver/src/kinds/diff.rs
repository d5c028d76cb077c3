//! What changed, for people: the lines of two objects that differ. Upstream's form is its own library's and is not
//! promised to anybody; its head is.

use serde_json::Value;

pub fn text(old: &Value, new: &Value) -> String {
    let mut lines = Vec::new();
    walk("", old, new, &mut lines);
    lines.join("\n")
}

fn walk(path: &str, old: &Value, new: &Value, lines: &mut Vec<String>) {
    const MOST: usize = 64;
    if super::validate::same(old, new) || lines.len() >= MOST {
        return;
    }
    match (old, new) {
        (Value::Object(a), Value::Object(b)) => {
            for (key, value) in a {
                walk(&format!("{path}.{key}"), value, b.get(key).unwrap_or(&Value::Null), lines);
            }
            for (key, value) in b.iter().filter(|(key, _)| !a.contains_key(*key)) {
                walk(&format!("{path}.{key}"), &Value::Null, value, lines);
            }
        }
        (Value::Array(a), Value::Array(b)) if a.len() == b.len() => {
            for (at, (a, b)) in a.iter().zip(b).enumerate() {
                walk(&format!("{path}[{at}]"), a, b, lines);
            }
        }
        _ => {
            lines.push(format!("- {path}: {old}"));
            lines.push(format!("+ {path}: {new}"));
        }
    }
}
