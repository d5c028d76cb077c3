//! A write that changes nothing but the times of its managers is no write.

use serde_json::Value;

use super::entries;

/// Gives `new` the managedFields of `old` where nothing but their times differs: else the object would get a new
/// resourceVersion for nothing.
pub fn keep_times(old: &Value, new: &mut Value) {
    let (Some(Value::Array(theirs)), Some(Value::Array(ours))) = (entries::of(old), entries::of(new)) else {
        return;
    };
    let same = theirs.len() == ours.len()
        && theirs != ours
        && theirs.iter().zip(ours).all(|(a, b)| equal_but(a, b, &["time"]))
        && equal_but(old, new, &["metadata", "managedFields"]);
    if same {
        let managed = entries::of(old).cloned();
        entries::put(new, managed);
    }
}

/// Whether two values are equal but for what a path leads to.
fn equal_but(a: &Value, b: &Value, path: &[&str]) -> bool {
    let Some((first, rest)) = path.split_first() else { return true };
    let (Value::Object(a), Value::Object(b)) = (a, b) else { return a == b };
    let all_of = |a: &serde_json::Map<String, Value>, b: &serde_json::Map<String, Value>| {
        a.iter().all(|(key, value)| match b.get(key) {
            Some(other) if key == first => equal_but(value, other, rest),
            Some(other) => value == other,
            None => key == first && rest.is_empty(),
        })
    };
    all_of(a, b) && b.keys().all(|key| a.contains_key(key) || (key == first && rest.is_empty()))
}
