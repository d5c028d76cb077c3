//! What this machine can do for pods and what it lacks: each finding with its remedy. One file per subject; each
//! probes the kernel for real where that leaves no trace, and decides in a pure function.

mod cgroup;
mod conflicts;
mod kernel;
mod network;
mod resources;
mod rights;

use serde::Serialize;

use crate::instance::{Instance, Settings};
use crate::{daemon, programs};

#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize)]
#[serde(rename_all = "lowercase")]
pub enum Level {
    Ok,
    /// Works, with a limit the user should know.
    Warning,
    /// `up` cannot work like this.
    Failure,
}

/// One thing looked at.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct Finding {
    pub check: &'static str,
    pub level: Level,
    pub found: String,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub remedy: Option<String>,
    /// Short form for the line of `up`, where there is one worth its place.
    #[serde(skip)]
    pub headline: Option<String>,
}

impl Finding {
    pub fn ok(check: &'static str, found: impl Into<String>) -> Self {
        Self { check, level: Level::Ok, found: found.into(), remedy: None, headline: None }
    }

    pub fn warning(check: &'static str, found: impl Into<String>, remedy: impl Into<String>) -> Self {
        Self { level: Level::Warning, remedy: Some(remedy.into()), ..Self::ok(check, found) }
    }

    pub fn failure(check: &'static str, found: impl Into<String>, remedy: impl Into<String>) -> Self {
        Self { level: Level::Failure, ..Self::warning(check, found, remedy) }
    }

    pub fn headed(self, headline: impl Into<String>) -> Self {
        Self { headline: Some(headline.into()), ..self }
    }
}

/// Looks at everything. Without root some probes cannot be made; the first finding says so.
pub fn examine(instance: &Instance, settings: &Settings) -> Vec<Finding> {
    let own_network = daemon::running(instance, daemon::CRI).is_some();
    [
        rights::check(),
        kernel::version(),
        cgroup::check(),
        kernel::features(instance),
        network::check(settings, own_network),
        conflicts::check(),
        resources::check(instance),
        vec![check_programs()],
    ]
    .concat()
}

/// The worst level found.
pub fn worst(findings: &[Finding]) -> Level {
    findings.iter().map(|f| f.level).max().unwrap_or(Level::Ok)
}

fn check_programs() -> Finding {
    let missing: Vec<&str> =
        programs::NEEDED.into_iter().filter(|name| programs::find(name).is_err()).collect();
    if missing.is_empty() {
        return Finding::ok("programs", format!("all {} found", programs::NEEDED.len()));
    }
    Finding::failure(
        "programs",
        format!("neither beside corten nor in PATH: {}", missing.join(", ")),
        "install them beside corten, or build them with `cargo xtask build`",
    )
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_worst_finding_decides() {
        let (ok, warning, failure) =
            (Finding::ok("a", ""), Finding::warning("b", "", ""), Finding::failure("c", "", ""));
        assert_eq!(worst(&[]), Level::Ok);
        assert_eq!(worst(&[warning.clone(), ok.clone()]), Level::Warning);
        assert_eq!(worst(&[ok, failure, warning]), Level::Failure);
    }
}
