//! unified: any file of the v2 hierarchy by its name.

use std::collections::HashMap;

use crate::cgroup::{CgroupError, Controller, Write};

pub fn writes(files: &HashMap<String, String>) -> Result<Vec<Write>, CgroupError> {
    let mut files: Vec<_> = files.iter().collect();
    files.sort();
    files
        .into_iter()
        .map(|(file, value)| check(file).map(|()| Write::new(Controller::Unified, file.clone(), value)))
        .collect()
}

fn check(file: &str) -> Result<(), CgroupError> {
    let invalid = |reason| Err(CgroupError::invalid("linux.resources.unified", format!("{file:?} {reason}")));
    if file.contains('/') {
        return invalid("must be a file name, without a slash");
    }
    match file.split_once('.') {
        Some((controller, parameter)) if !controller.is_empty() && !parameter.is_empty() => Ok(()),
        _ => invalid("is not of the form CONTROLLER.PARAMETER"),
    }
}

#[test]
fn only_names_of_files() {
    let one = |key: &str| writes(&HashMap::from([(key.to_owned(), "5".to_owned())]));
    assert_eq!(super::shown(&one("memory.high").unwrap()), ["memory.high=5"]);
    for bad in ["../x.y", "memory", ".max", "memory."] {
        assert!(one(bad).unwrap_err().to_string().contains("linux.resources.unified"), "{bad}");
    }
}
