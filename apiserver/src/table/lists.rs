//! What many kinds show in one cell: containers, labels, selectors, lists that are cut short.

use serde_json::{Map, Value};

use super::view::field;

/// Names and images of containers.
pub fn containers(containers: &[Value]) -> [Value; 2] {
    ["name", "image"].map(|name| join(containers.iter().map(|container| field(container, name)), ",").into())
}

pub fn join<'a>(texts: impl Iterator<Item = &'a str>, separator: &str) -> String {
    texts.collect::<Vec<_>>().join(separator)
}

/// `a=b,c=d`.
pub fn labels(labels: Option<&Map<String, Value>>) -> String {
    let mut pairs: Vec<String> = labels
        .into_iter()
        .flatten()
        .map(|(key, value)| format!("{key}={}", value.as_str().unwrap_or_default()))
        .collect();
    pairs.sort_unstable();
    if pairs.is_empty() { "<none>".to_owned() } else { pairs.join(",") }
}

/// A label selector as one writes it on a command line; empty where it selects nothing or everything.
pub fn selector(selector: Option<&Value>) -> String {
    let Some(selector) = selector else { return String::new() };
    let mut terms: Vec<(&str, String)> = Vec::new();
    for (key, value) in selector["matchLabels"].as_object().into_iter().flatten() {
        terms.push((key, format!("{key}={}", value.as_str().unwrap_or_default())));
    }
    for expression in selector["matchExpressions"].as_array().into_iter().flatten() {
        let key = field(expression, "key");
        let mut values: Vec<&str> =
            expression["values"].as_array().into_iter().flatten().filter_map(Value::as_str).collect();
        values.sort_unstable();
        let values = values.join(",");
        terms.push((
            key,
            match field(expression, "operator") {
                "In" => format!("{key} in ({values})"),
                "NotIn" => format!("{key} notin ({values})"),
                "Exists" => key.to_owned(),
                "DoesNotExist" => format!("!{key}"),
                _ => return "<error>".to_owned(),
            },
        ));
    }
    terms.sort_by(|a, b| a.0.cmp(b.0));
    join(terms.iter().map(|(_, term)| term.as_str()), ",")
}

/// The same, `<none>` where it is empty.
pub fn selector_or_none(of: Option<&Value>) -> String {
    match selector(of) {
        text if text.is_empty() => "<none>".to_owned(),
        text => text,
    }
}

/// The first `most`, and how many more there are.
pub fn cut(items: &[String], most: usize) -> String {
    let shown = items[..items.len().min(most)].join(",");
    if items.len() > most { format!("{shown} + {} more...", items.len() - most) } else { shown }
}
