//! `/version`: which minor of Kubernetes this is, by which clients judge what they may expect.

use serde_json::{Value, json};

/// The release whose behaviour is served.
pub const MAJOR: &str = "1";
pub const MINOR: &str = "36";
pub const PATCH: &str = "3";

/// `v1.36.3+corten`: what is behind the plus is the builder's by semver, and compared by nobody.
pub fn git_version() -> String {
    format!("v{MAJOR}.{MINOR}.{PATCH}+corten.{}", env!("CARGO_PKG_VERSION"))
}

pub fn document() -> Value {
    json!({
        "major": MAJOR,
        "minor": MINOR,
        "emulationMajor": MAJOR,
        "emulationMinor": MINOR,
        "minCompatibilityMajor": MAJOR,
        "minCompatibilityMinor": "35",
        "gitVersion": git_version(),
        "gitCommit": "",
        "gitTreeState": "",
        "buildDate": "1970-01-01T00:00:00Z",
        "goVersion": "",
        "compiler": "rustc",
        "platform": format!("linux/{}", match std::env::consts::ARCH {
            "x86_64" => "amd64",
            "aarch64" => "arm64",
            other => other,
        }),
    })
}
