//! JSON as it comes from clients: a value, and the fields that stand in it twice (of which the last one counts).

use std::collections::HashSet;
use std::fmt;

use serde::de::{DeserializeSeed, Deserializer, MapAccess, SeqAccess, Visitor};
use serde_json::{Map, Number, Value};

/// It is no JSON; in the words of Go's scanner where they are known.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Error(String);

impl fmt::Display for Error {
    fn fmt(&self, to: &mut fmt::Formatter<'_>) -> fmt::Result {
        to.write_str(&self.0)
    }
}

impl std::error::Error for Error {}

/// A field that stands there more than once, by its path: `spec.containers[0].image`.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Duplicate(pub String);

/// As upstream, no more errors of this kind than these are told.
const MOST: usize = 100;

/// # Errors
/// It is no JSON, or nested deeper than 128 levels.
pub fn parse(bytes: &[u8]) -> Result<(Value, Vec<Duplicate>), Error> {
    let mut seen = Seen { path: String::new(), duplicates: Vec::new(), wanted: None, order: Vec::new() };
    let value = read(bytes, &mut seen)?;
    Ok((value, seen.duplicates.into_iter().map(Duplicate).collect()))
}

/// What strict validation says of an object of a built-in kind, in the order of the document: `unknown field "spec.a"`,
/// `duplicate field "spec.b"`.
pub fn strict_errors(bytes: &[u8], unknown: &[String], duplicates: &[Duplicate]) -> Vec<String> {
    if unknown.is_empty() && duplicates.is_empty() {
        return Vec::new();
    }
    let known = |path: &str| !unknown.iter().any(|unknown| is_at_or_below(path, unknown));
    let mut wanted: HashSet<String> = unknown.iter().cloned().collect();
    wanted.extend(duplicates.iter().map(|duplicate| duplicate.0.clone()).filter(|path| known(path)));
    let mut seen =
        Seen { path: String::new(), duplicates: Vec::new(), wanted: Some(wanted), order: Vec::new() };
    let _ = read(bytes, &mut seen);
    let mut errors = Vec::new();
    let mut before = HashSet::new();
    for path in seen.order {
        let first = before.insert(path.clone());
        let error = if unknown.contains(&path) {
            format!("unknown field {}", quote(&path))
        } else if first {
            continue;
        } else {
            format!("duplicate field {}", quote(&path))
        };
        if !errors.contains(&error) && errors.len() < MOST {
            errors.push(error);
        }
    }
    errors
}

fn is_at_or_below(path: &str, above: &str) -> bool {
    path.strip_prefix(above).is_some_and(|rest| rest.is_empty() || rest.starts_with(['.', '[']))
}

/// As Go's `strconv.Quote` does, for what may stand in a field's name.
pub fn quote(text: &str) -> String {
    let mut quoted = String::with_capacity(text.len() + 2);
    quoted.push('"');
    for character in text.chars() {
        match character {
            '"' => quoted.push_str("\\\""),
            '\\' => quoted.push_str("\\\\"),
            '\n' => quoted.push_str("\\n"),
            '\r' => quoted.push_str("\\r"),
            '\t' => quoted.push_str("\\t"),
            '\u{7}' => quoted.push_str("\\a"),
            '\u{8}' => quoted.push_str("\\b"),
            '\u{c}' => quoted.push_str("\\f"),
            '\u{b}' => quoted.push_str("\\v"),
            character if (character as u32) < 0x20 || character as u32 == 0x7f => {
                quoted.push_str(&format!("\\x{:02x}", character as u32));
            }
            character => quoted.push(character),
        }
    }
    quoted.push('"');
    quoted
}

fn read(bytes: &[u8], seen: &mut Seen) -> Result<Value, Error> {
    // Go puts U+FFFD for what is no UTF-8.
    let text = String::from_utf8_lossy(bytes);
    let mut from = serde_json::Deserializer::from_str(&text);
    Reading(seen)
        .deserialize(&mut from)
        .and_then(|value| from.end().map(|()| value))
        .map_err(|error| Error(crate::scan::complaint(text.as_bytes()).unwrap_or_else(|| error.to_string())))
}

struct Seen {
    path: String,
    duplicates: Vec<String>,
    /// Paths whose order is asked for.
    wanted: Option<HashSet<String>>,
    order: Vec<String>,
}

impl Seen {
    fn note(&mut self) {
        if self.wanted.as_ref().is_some_and(|wanted| wanted.contains(&self.path)) {
            self.order.push(self.path.clone());
        }
    }
}

struct Reading<'a>(&'a mut Seen);

impl<'de> DeserializeSeed<'de> for Reading<'_> {
    type Value = Value;

    fn deserialize<D: Deserializer<'de>>(self, from: D) -> Result<Value, D::Error> {
        from.deserialize_any(self)
    }
}

impl<'de> Visitor<'de> for Reading<'_> {
    type Value = Value;

    fn expecting(&self, to: &mut fmt::Formatter<'_>) -> fmt::Result {
        to.write_str("JSON")
    }

    fn visit_bool<E>(self, value: bool) -> Result<Value, E> {
        Ok(Value::Bool(value))
    }

    fn visit_i64<E>(self, value: i64) -> Result<Value, E> {
        Ok(Value::Number(value.into()))
    }

    fn visit_u64<E>(self, value: u64) -> Result<Value, E> {
        Ok(Value::Number(value.into()))
    }

    fn visit_f64<E>(self, value: f64) -> Result<Value, E> {
        Ok(Number::from_f64(value).map_or(Value::Null, Value::Number))
    }

    fn visit_str<E>(self, value: &str) -> Result<Value, E> {
        Ok(Value::String(value.to_owned()))
    }

    fn visit_string<E>(self, value: String) -> Result<Value, E> {
        Ok(Value::String(value))
    }

    fn visit_unit<E>(self) -> Result<Value, E> {
        Ok(Value::Null)
    }

    fn visit_seq<A: SeqAccess<'de>>(self, mut items: A) -> Result<Value, A::Error> {
        let length = self.0.path.len();
        let mut list = Vec::new();
        loop {
            push_index(&mut self.0.path, list.len());
            let item = items.next_element_seed(Reading(self.0))?;
            self.0.path.truncate(length);
            match item {
                Some(item) => list.push(item),
                None => return Ok(Value::Array(list)),
            }
        }
    }

    fn visit_map<A: MapAccess<'de>>(self, mut fields: A) -> Result<Value, A::Error> {
        let length = self.0.path.len();
        let mut map = Map::new();
        while let Some(key) = fields.next_key::<String>()? {
            push_key(&mut self.0.path, &key);
            self.0.note();
            if map.contains_key(&key)
                && self.0.duplicates.len() < MOST
                && !self.0.duplicates.contains(&self.0.path)
            {
                self.0.duplicates.push(self.0.path.clone());
            }
            let value = fields.next_value_seed(Reading(self.0))?;
            self.0.path.truncate(length);
            map.insert(key, value);
        }
        Ok(Value::Object(map))
    }
}

pub(crate) fn push_key(path: &mut String, key: &str) {
    if !path.is_empty() {
        path.push('.');
    }
    path.push_str(key);
}

pub(crate) fn push_index(path: &mut String, index: usize) {
    use fmt::Write;
    let _ = write!(path, "[{index}]");
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn duplicates_are_named_by_their_paths_and_the_last_counts() {
        let text = br#"{"a":1,"b":[{"c":1},{"c":1,"c":2,"c":3}],"a":2}"#;
        let (value, duplicates) = parse(text).expect("it is JSON");
        assert_eq!(value, json!({"a": 2, "b": [{"c": 1}, {"c": 3}]}));
        assert_eq!(duplicates, [Duplicate("b[1].c".to_owned()), Duplicate("a".to_owned())]);
    }

    #[test]
    fn strict_errors_come_in_the_order_of_the_document() {
        let text = br#"{"z":{"x":1,"x":1},"k":1,"a":1,"k":2,"a":2}"#;
        let (_, duplicates) = parse(text).expect("it is JSON");
        let errors = strict_errors(text, &["z".to_owned(), "a".to_owned()], &duplicates);
        let expected = [r#"unknown field "z""#, r#"unknown field "a""#, r#"duplicate field "k""#];
        assert_eq!(errors, expected);
    }

    #[test]
    fn what_is_no_json_is_refused_in_gos_words() {
        for (text, expected) in [
            ("", "unexpected end of JSON input"),
            ("{", "unexpected end of JSON input"),
            ("{a:1}", "invalid character 'a' looking for beginning of object key string"),
            (r#"{"a" 1}"#, "invalid character '1' after object key"),
            (r#"{"a":1 "b":2}"#, "invalid character '\"' after object key:value pair"),
            (r#"{"a":1,}"#, "invalid character '}' looking for beginning of object key string"),
            ("[1 2]", "invalid character '2' after array element"),
            ("nul}", "invalid character '}' in literal null (expecting 'l')"),
            ("{} {}", "invalid character '{' after top-level value"),
            ("-a", "invalid character 'a' in numeric literal"),
            ("\"\u{1}\"", "invalid character '\\x01' in string literal"),
            ("<html>", "invalid character '<' looking for beginning of value"),
            ("01", "invalid character '1' after top-level value"),
        ] {
            assert_eq!(parse(text.as_bytes()).expect_err(text).to_string(), expected, "{text}");
        }
    }

    #[test]
    fn depth_is_bounded() {
        let text = format!("{}{}", "[".repeat(100_000), "]".repeat(100_000));
        assert!(parse(text.as_bytes()).is_err());
    }

    #[test]
    fn broken_utf8_is_replaced_as_go_does() {
        let (value, _) = parse(b"{\"a\":\"\xff\"}").expect("it is JSON");
        assert_eq!(value, json!({"a": "\u{fffd}"}));
    }
}
