//! pids: one file, the same in both versions.

use crate::cgroup::{Controller, Write};

/// Zero is written as 1, as runc does so that its two drivers agree: no process could be made either way.
pub fn write(limit: i64) -> Write {
    let value = match limit {
        ..0 => "max".to_owned(),
        0 => "1".to_owned(),
        _ => limit.to_string(),
    };
    Write::new(Controller::Pids, "pids.max", value)
}

#[test]
fn negative_is_unlimited() {
    let values = [-1, 0, 1, 512].map(|limit| write(limit).value);
    assert_eq!(values, ["max", "1", "1", "512"]);
}
