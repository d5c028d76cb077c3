//! What a suite of Ginkgo reports as JSON, and how it is told. Source: ginkgo v2, types.Report.

use std::collections::BTreeMap;
use std::fmt::Write as _;

use anyhow::{Context, Result, ensure};
use serde::Deserialize;

#[derive(Deserialize)]
#[serde(rename_all = "PascalCase")]
struct Report {
    suite_config: Option<SuiteConfig>,
    #[serde(default)]
    spec_reports: Option<Vec<Spec>>,
    #[serde(default)]
    special_suite_failure_reasons: Option<Vec<String>>,
}

#[derive(Deserialize)]
#[serde(rename_all = "PascalCase")]
struct SuiteConfig {
    random_seed: i64,
}

#[derive(Deserialize)]
#[serde(rename_all = "PascalCase")]
struct Spec {
    container_hierarchy_texts: Option<Vec<String>>,
    leaf_node_type: String,
    leaf_node_text: String,
    state: String,
    #[serde(default)]
    failure: Failure,
}

#[derive(Default, Deserialize)]
#[serde(rename_all = "PascalCase")]
struct Failure {
    #[serde(default)]
    message: String,
}

/// What happened to every spec of a suite.
#[derive(Debug, Default)]
pub struct Outcome {
    pub seed: i64,
    groups: BTreeMap<String, Counts>,
    /// Name and reason.
    failed: Vec<(String, String)>,
    /// Specs that found that they cannot run here, by reason.
    skipped: BTreeMap<String, Vec<String>>,
    /// Specs that focus and skip left out.
    unselected: usize,
    /// What befell the suite as a whole, such as its time being over.
    suite: Vec<String>,
}

#[derive(Debug, Default, Clone, Copy, PartialEq)]
struct Counts {
    passed: usize,
    failed: usize,
    skipped: usize,
}

impl Outcome {
    /// Reads the JSON report of one or more suites.
    pub fn parse(json: &[u8]) -> Result<Self> {
        let reports: Vec<Report> = serde_json::from_slice(json).context("no report of Ginkgo")?;
        ensure!(!reports.is_empty(), "the report is empty");
        let mut outcome = Self::default();
        for report in reports {
            outcome.seed = report.suite_config.map_or(0, |config| config.random_seed);
            outcome.suite.extend(report.special_suite_failure_reasons.unwrap_or_default());
            for spec in report.spec_reports.unwrap_or_default() {
                outcome.add(&spec);
            }
        }
        Ok(outcome)
    }

    fn add(&mut self, spec: &Spec) {
        let reason = summary(&spec.failure.message);
        let containers = spec.container_hierarchy_texts.clone().unwrap_or_default();
        if spec.leaf_node_type != "It" {
            // BeforeSuite and its like count only when they fail.
            if !["passed", "skipped", "pending"].contains(&spec.state.as_str()) {
                self.suite.push(format!("{} {}: {reason}", spec.leaf_node_type, spec.state));
            }
            return;
        }
        let name =
            containers.iter().chain([&spec.leaf_node_text]).map(String::as_str).collect::<Vec<_>>().join(" ");
        if spec.state == "skipped" && reason.is_empty() {
            self.unselected += 1;
            return;
        }
        let group = containers.first().map_or("", |text| text.strip_prefix("[k8s.io] ").unwrap_or(text));
        let counts = self.groups.entry(group.to_string()).or_default();
        match spec.state.as_str() {
            "passed" => counts.passed += 1,
            "skipped" | "pending" => {
                counts.skipped += 1;
                let why = if reason.is_empty() { spec.state.clone() } else { reason };
                self.skipped.entry(why).or_default().push(name);
            }
            // failed, panicked, interrupted, aborted, timedout, and what a later version may add.
            state => {
                counts.failed += 1;
                let why = if state == "failed" { reason } else { format!("{state}: {reason}") };
                self.failed.push((name, why));
            }
        }
    }

    pub fn succeeded(&self) -> bool {
        self.failed.is_empty() && self.suite.is_empty() && self.sum().passed > 0
    }

    /// `98 passed, 2 failed, 14 skipped`
    pub fn counts(&self) -> String {
        let sum = self.sum();
        format!("{} passed, {} failed, {} skipped", sum.passed, sum.failed, sum.skipped)
    }

    fn sum(&self) -> Counts {
        self.groups.values().fold(Counts::default(), |sum, c| Counts {
            passed: sum.passed + c.passed,
            failed: sum.failed + c.failed,
            skipped: sum.skipped + c.skipped,
        })
    }

    /// Counts by group, then what was skipped and why, then what failed and why.
    pub fn table(&self) -> String {
        let width = self.groups.keys().map(|name| name.chars().count()).max().unwrap_or(0).max(20);
        let mut out = format!("\n {:<width$}  passed  failed  skipped\n", "group");
        for (name, c) in &self.groups {
            let _ = writeln!(out, " {name:<width$}  {:>6}  {:>6}  {:>7}", c.passed, c.failed, c.skipped);
        }
        out.push('\n');
        for (why, specs) in &self.skipped {
            let _ = writeln!(out, " skipped    {} x {why}", specs.len());
        }
        for (name, why) in &self.failed {
            let _ = writeln!(out, " FAILED     {name}\n            {why}");
        }
        for what in &self.suite {
            let _ = writeln!(out, " SUITE      {what}");
        }
        if self.unselected > 0 {
            let _ = writeln!(out, " unselected {} (focus, skip, benchmarks)", self.unselected);
        }
        out
    }
}

/// The beginning of a failure in one line. Gomega spreads one over many, and shows the whole Go value of an error below
/// `Unexpected error:` and a line with its type; what matters of that is its first line.
fn summary(message: &str) -> String {
    const CHARS: usize = 400;
    let (said, error) = message.split_once("Unexpected error:").unwrap_or((message, ""));
    let error = error.lines().map(str::trim).filter(|line| !line.is_empty()).nth(1).unwrap_or("");
    // Many messages end in the error already.
    let error = if said.contains(error) { "" } else { error };
    let line = said.split_whitespace().chain(error.split_whitespace()).collect::<Vec<_>>().join(" ");
    match line.char_indices().nth(CHARS) {
        Some((end, _)) => format!("{} ...", &line[..end]),
        None => line,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn report(specs: &str) -> Outcome {
        let json = format!(
            r#"[{{"SuitePath": "/", "SuiteConfig": {{"RandomSeed": 42}}, "SpecialSuiteFailureReasons": null,
                 "SpecReports": [{specs}]}}]"#
        );
        Outcome::parse(json.as_bytes()).unwrap()
    }

    fn spec(group: &str, name: &str, state: &str, message: &str) -> String {
        serde_json::json!({
            "ContainerHierarchyTexts": [format!("[k8s.io] {group}"), "runtime should"],
            "LeafNodeType": "It", "LeafNodeText": name, "State": state, "RunTime": 12,
            "Failure": { "Message": message, "Location": { "LineNumber": 3 } }
        })
        .to_string()
    }

    #[test]
    fn specs_are_counted_by_group_and_failures_are_named() {
        let specs = [
            spec("Pod", "run", "passed", ""),
            spec("Pod", "stop", "failed", "Expected\n    <int>: 1\nto equal 2"),
            spec("Pod", "loop", "timedout", "too long"),
            spec("Image", "pull", "passed", ""),
            spec("AppArmor", "load", "skipped", "no AppArmor"),
        ];
        let outcome = report(&specs.join(","));
        assert_eq!(outcome.counts(), "2 passed, 2 failed, 1 skipped");
        assert_eq!(outcome.groups["Pod"], Counts { passed: 1, failed: 2, skipped: 0 });
        assert_eq!(outcome.seed, 42);
        assert!(!outcome.succeeded());
        let table = outcome.table();
        for line in [
            " FAILED     [k8s.io] Pod runtime should stop\n            Expected <int>: 1 to equal 2",
            "timedout: too long",
            " skipped    1 x no AppArmor",
        ] {
            assert!(table.contains(line), "{line} in {table}");
        }
    }

    #[test]
    fn a_reason_is_what_was_said_and_the_first_line_of_the_error() {
        let error = "cannot run\nUnexpected error:\n    <*status.Error | 0xc0>: \n    rpc error: no\n    {\n   s: {\n";
        assert_eq!(summary(error), "cannot run rpc error: no");
        assert_eq!(summary(&error.replace("cannot run", "it said: rpc error: no")), "it said: rpc error: no");
        assert_eq!(summary("Expected\n    <int>: 1\nto equal 2"), "Expected <int>: 1 to equal 2");
        assert_eq!(summary(&"x".repeat(500)).len(), 404);
    }

    #[test]
    fn what_was_not_selected_is_no_skip() {
        let outcome = report(&[spec("Pod", "a", "skipped", ""), spec("Pod", "b", "passed", "")].join(","));
        assert_eq!((outcome.counts().as_str(), outcome.unselected), ("1 passed, 0 failed, 0 skipped", 1));
        assert!(outcome.succeeded());
    }

    #[test]
    fn nothing_run_is_no_success() {
        assert!(!report(&spec("Pod", "a", "skipped", "")).succeeded());
        assert!(Outcome::parse(b"[]").is_err() && Outcome::parse(b"PASS").is_err());
    }

    #[test]
    fn a_suite_that_fails_before_its_specs_fails() {
        let before = r#"{"ContainerHierarchyTexts": null, "LeafNodeType": "BeforeSuite", "LeafNodeText": "",
            "State": "failed", "Failure": {"Message": "no daemon"}}"#;
        let outcome = report(&[before.into(), spec("Pod", "a", "passed", "")].join(","));
        assert!(!outcome.succeeded() && outcome.table().contains("BeforeSuite failed: no daemon"));
    }
}
