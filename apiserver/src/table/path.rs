//! The JSONPath of a custom resource's columns: fields, indices, and filters by equality, of which the first find is
//! shown. Source: client-go `util/jsonpath`; apiextensions allows no more in columns.

use serde_json::Value;

#[derive(Debug, PartialEq)]
enum Step {
    Field(String),
    /// Counted from the end when negative.
    Index(i64),
    All,
    /// Items whose value at a path is this (or is not).
    Where(Vec<Step>, bool, Value),
}

/// The first value at `path` (`.spec.replicas`, `.status.conditions[?(@.type=="Ready")].status`).
pub fn first<'a>(path: &str, value: &'a Value) -> Option<&'a Value> {
    walk(&parse(path)?, value)
}

fn walk<'a>(steps: &[Step], value: &'a Value) -> Option<&'a Value> {
    let Some((step, rest)) = steps.split_first() else { return Some(value) };
    match step {
        Step::Field(name) => walk(rest, value.get(name)?),
        Step::Index(index) => {
            let list = value.as_array()?;
            let at = if *index < 0 { list.len() as i64 + index } else { *index };
            walk(rest, list.get(usize::try_from(at).ok()?)?)
        }
        Step::All => match value {
            Value::Array(list) => list.iter().find_map(|item| walk(rest, item)),
            Value::Object(map) => map.values().find_map(|item| walk(rest, item)),
            _ => None,
        },
        Step::Where(path, equal, wanted) => value
            .as_array()?
            .iter()
            .filter(|item| walk(path, item).is_some_and(|found| (found == wanted) == *equal))
            .find_map(|item| walk(rest, item)),
    }
}

fn parse(path: &str) -> Option<Vec<Step>> {
    let mut steps = Vec::new();
    let mut rest = path.trim();
    rest = rest.strip_prefix('{').and_then(|rest| rest.strip_suffix('}')).unwrap_or(rest);
    rest = rest.strip_prefix('$').unwrap_or(rest);
    while !rest.is_empty() {
        if let Some(inner) = rest.strip_prefix('[') {
            let end = closing(inner)?;
            steps.push(bracket(inner[..end].trim())?);
            rest = &inner[end + 1..];
        } else {
            let (name, after) = field(rest.strip_prefix('.').unwrap_or(rest));
            rest = after;
            match name.as_str() {
                "" if rest.is_empty() || rest.starts_with('[') => {}
                "" => return None,
                "*" => steps.push(Step::All),
                _ => steps.push(Step::Field(name)),
            }
        }
    }
    Some(steps)
}

/// A name up to a dot or bracket that is not escaped.
fn field(text: &str) -> (String, &str) {
    let mut name = String::new();
    let mut letters = text.char_indices();
    while let Some((at, letter)) = letters.next() {
        match letter {
            '\\' => name.extend(letters.next().map(|(_, letter)| letter)),
            '.' | '[' => return (name, &text[at..]),
            letter => name.push(letter),
        }
    }
    (name, "")
}

/// Where the bracket that was opened is closed: not within quotes, nor within a bracket of its own.
fn closing(text: &str) -> Option<usize> {
    let (mut open, mut quote) = (0, None);
    for (at, letter) in text.char_indices() {
        match (quote, letter) {
            (Some(mark), letter) if letter == mark => quote = None,
            (None, '\'' | '"') => quote = Some(letter),
            (None, '[') => open += 1,
            (None, ']') if open == 0 => return Some(at),
            (None, ']') => open -= 1,
            _ => {}
        }
    }
    None
}

fn bracket(text: &str) -> Option<Step> {
    if let Some(condition) = text.strip_prefix("?(").and_then(|text| text.strip_suffix(')')) {
        let (at, equal) = match (condition.find("=="), condition.find("!=")) {
            (Some(at), _) => (at, true),
            (None, Some(at)) => (at, false),
            (None, None) => return None,
        };
        let path = parse(condition[..at].trim().strip_prefix('@')?)?;
        return Some(Step::Where(path, equal, literal(condition[at + 2..].trim())?));
    }
    if text == "*" {
        return Some(Step::All);
    }
    if let Ok(index) = text.parse() {
        return Some(Step::Index(index));
    }
    match literal(text)? {
        Value::String(name) => Some(Step::Field(name)),
        _ => None,
    }
}

fn literal(text: &str) -> Option<Value> {
    match text.strip_prefix('\'') {
        Some(rest) => rest.strip_suffix('\'').map(Value::from),
        None => serde_json::from_str(text).ok(),
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::first;

    #[test]
    fn the_first_find_is_shown() {
        let object = json!({"spec": {"replicas": 3, "list": [1, 2, 3], "a.b": "dotted"}, "status": {"conditions": [
            {"type": "Ready", "status": "False"}, {"type": "Synced", "status": "True", "n": 5}]}});
        for (path, expected) in [
            (".spec.replicas", Some(json!(3))),
            ("{.spec.replicas}", Some(json!(3))),
            ("$.spec.replicas", Some(json!(3))),
            (".spec.list[1]", Some(json!(2))),
            (".spec.list[-1]", Some(json!(3))),
            (".spec.list[*]", Some(json!(1))),
            (".spec.list[7]", None),
            (r".spec.a\.b", Some(json!("dotted"))),
            (".spec['a.b']", Some(json!("dotted"))),
            (r#".status.conditions[?(@.type=="Synced")].status"#, Some(json!("True"))),
            (".status.conditions[?(@.type=='Synced')].n", Some(json!(5))),
            (".status.conditions[?(@.type!='Ready')].type", Some(json!("Synced"))),
            (".status.conditions[?(@.type=='None')].status", None),
            (".metadata.labels.x", None),
            (".spec.list[", None),
            (".spec..list", None),
        ] {
            assert_eq!(first(path, &object), expected.as_ref(), "{path}");
        }
    }
}
