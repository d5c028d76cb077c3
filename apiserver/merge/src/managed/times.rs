//! A write that changes nothing but the times of its managers is no write.

use serde_json::{Map, Value};

use super::entries;

/// Gives `new` the managedFields of `old` where nothing but their times differs: else the object would get a new
/// resourceVersion for nothing.
pub fn keep_times(old: &Map<String, Value>, new: &mut Map<String, Value>) {
    let (Some(Value::Array(theirs)), Some(Value::Array(ours))) = (entries::of(old), entries::of(new)) else {
        return;
    };
    let same = theirs.len() == ours.len()
        && theirs != ours
        && theirs.iter().zip(ours).all(|(a, b)| equal_but(a, b, &["time"]))
        && maps_equal_but(old, new, "metadata", &["managedFields"]);
    if same {
        let managed = entries::of(old).cloned();
        entries::put(new, managed);
    }
}

/// Whether two values are equal but for what a path leads to.
fn equal_but(a: &Value, b: &Value, path: &[&str]) -> bool {
    match (a, b, path.split_first()) {
        (_, _, None) => true,
        (Value::Object(a), Value::Object(b), Some((first, rest))) => maps_equal_but(a, b, first, rest),
        _ => a == b,
    }
}

fn maps_equal_but(a: &Map<String, Value>, b: &Map<String, Value>, first: &str, rest: &[&str]) -> bool {
    let is_left_out = |key: &String| key == first && rest.is_empty();
    b.keys().all(|key| a.contains_key(key) || is_left_out(key))
        && a.iter().all(|(key, value)| match b.get(key) {
            Some(other) if key == first => equal_but(value, other, rest),
            Some(other) => value == other,
            None => is_left_out(key),
        })
}
