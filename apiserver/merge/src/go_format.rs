//! Values as Go's `%v` prints them: some of upstream's messages carry them.

use std::fmt::{Display, Formatter, Result};

use serde_json::{Map, Value};

pub struct Go<'a>(pub &'a Value);
pub(crate) struct GoMap<'a>(pub &'a Map<String, Value>);
pub(crate) struct GoList<'a>(pub &'a [Value]);

impl Display for Go<'_> {
    fn fmt(&self, f: &mut Formatter<'_>) -> Result {
        match self.0 {
            Value::Null => f.write_str("<nil>"),
            Value::String(text) => f.write_str(text),
            Value::Array(list) => GoList(list).fmt(f),
            Value::Object(map) => GoMap(map).fmt(f),
            scalar => write!(f, "{scalar}"),
        }
    }
}

impl Display for GoMap<'_> {
    fn fmt(&self, f: &mut Formatter<'_>) -> Result {
        let mut entries: Vec<_> = self.0.iter().collect();
        entries.sort_unstable_by_key(|(key, _)| *key);
        f.write_str("map[")?;
        for (index, (key, value)) in entries.into_iter().enumerate() {
            let space = if index == 0 { "" } else { " " };
            write!(f, "{space}{key}:{}", Go(value))?;
        }
        f.write_str("]")
    }
}

impl Display for GoList<'_> {
    fn fmt(&self, f: &mut Formatter<'_>) -> Result {
        f.write_str("[")?;
        for (index, value) in self.0.iter().enumerate() {
            let space = if index == 0 { "" } else { " " };
            write!(f, "{space}{}", Go(value))?;
        }
        f.write_str("]")
    }
}

/// The Go type that a value of JSON is decoded into.
pub(crate) fn go_type(value: &Value) -> &'static str {
    match value {
        Value::Null => "%!s(<nil>)",
        Value::Bool(_) => "bool",
        Value::Number(number) if number.is_f64() => "float64",
        Value::Number(_) => "int64",
        Value::String(_) => "string",
        Value::Array(_) => "[]interface {}",
        Value::Object(_) => "map[string]interface {}",
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    #[test]
    fn as_go_prints_it() {
        let value = json!({"b": [1, "x", null], "a": {"c": true, "d": 1.5}});
        assert_eq!(Go(&value).to_string(), "map[a:map[c:true d:1.5] b:[1 x <nil>]]");
    }
}
