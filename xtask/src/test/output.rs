//! What a test executable printed → what passed, failed and was skipped. Pure.
//!
//! A test that cannot run here prints `SKIP: why` and returns, so to the harness it passed; with --show-output the
//! reason is in its output and it is counted here as what it is.

use std::collections::BTreeMap;

#[derive(Debug, Default, PartialEq, Eq)]
pub struct Outcome {
    pub passed: usize,
    /// Test and where to look.
    pub failed: Vec<(String, String)>,
    /// Test and reason.
    pub skipped: Vec<(String, String)>,
}

impl Outcome {
    pub fn add(&mut self, other: Self) {
        self.passed += other.passed;
        self.failed.extend(other.failed);
        self.skipped.extend(other.skipped);
    }

    /// The closing line.
    pub fn counts(&self) -> String {
        format!("{} passed, {} failed, {} skipped", self.passed, self.failed.len(), self.skipped.len())
    }
}

/// Reads the output of one suite, run with --show-output.
pub fn parse(suite: &str, text: &str) -> Outcome {
    let mut outcome = Outcome::default();
    let mut skips: BTreeMap<&str, &str> = BTreeMap::new();
    let mut showing: Option<&str> = None;
    let mut passed: Vec<&str> = Vec::new();
    for line in text.lines() {
        if let Some(name) = line.strip_prefix("---- ").and_then(|l| l.strip_suffix(" stdout ----")) {
            showing = Some(name);
        } else if let (Some(test), Some(why)) = (showing, line.strip_prefix("SKIP: ")) {
            skips.entry(test).or_insert(why);
        } else if let Some((name, result)) = result_line(line) {
            match result {
                "ok" => passed.push(name),
                "FAILED" => outcome.failed.push((format!("{suite}: {name}"), "its output is above".into())),
                ignored => {
                    let why = ignored.strip_prefix("ignored, ").unwrap_or("ignored without a reason");
                    outcome.skipped.push((format!("{suite}: {name}"), why.into()));
                }
            }
        }
    }
    for name in passed {
        match skips.get(name) {
            Some(why) => outcome.skipped.push((format!("{suite}: {name}"), (*why).into())),
            None => outcome.passed += 1,
        }
    }
    outcome
}

/// `test path::name ... ok`; a test that should panic has ` - should panic` after its name.
fn result_line(line: &str) -> Option<(&str, &str)> {
    let (name, result) = line.strip_prefix("test ")?.rsplit_once(" ... ")?;
    let known = matches!(result, "ok" | "FAILED") || result.starts_with("ignored");
    known.then_some((name.strip_suffix(" - should panic").unwrap_or(name), result))
}

#[cfg(test)]
mod tests {
    use super::*;

    const OUTPUT: &str = "\nrunning 4 tests\ntest a::fine ... ok\ntest a::no_tool ... ok\ntest slow ... ignored, takes hours\n\
        test broken ... FAILED\n\nsuccesses:\n\n---- a::no_tool stdout ----\nSKIP: crun is not installed\n\n\n\
        successes:\n    a::fine\n    a::no_tool\n\nfailures:\n\n---- broken stdout ----\nSKIP: not really\nthread panicked\n\n\
        failures:\n    broken\n\ntest result: FAILED. 2 passed; 1 failed; 1 ignored; 0 measured\n";

    #[test]
    fn a_test_that_skipped_itself_did_not_pass() {
        let outcome = parse("x", OUTPUT);
        assert_eq!(outcome.counts(), "1 passed, 1 failed, 2 skipped");
        let skipped = [("x: slow", "takes hours"), ("x: a::no_tool", "crun is not installed")];
        assert_eq!(outcome.skipped, skipped.map(|(a, b)| (a.to_string(), b.to_string())));
        assert_eq!(outcome.failed[0].0, "x: broken");
    }

    #[test]
    fn what_tests_print_is_no_result() {
        let outcome =
            parse("x", "test fine ... ok\ntest of a line ... that is none\nSKIP: outside of any test\n");
        assert_eq!(outcome.counts(), "1 passed, 0 failed, 0 skipped");
    }
}
