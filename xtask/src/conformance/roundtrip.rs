//! `conformance roundtrip`: the published data of kubernetes/api, as protobuf and as JSON.

use std::process::ExitCode;
use std::time::Instant;

use anyhow::{Context, Result, bail};

use super::store::counted;
use crate::project::{cargo, target};
use crate::test::output::parse;
use crate::{run, say};

/// Every kind's published object, of this release and older ones, decoded from protobuf to its JSON and encoded again.
///
/// The data come with the Go module k8s.io/api; without Go, or without a way to get the module, the lane skips and
/// says so.
#[derive(clap::Args)]
pub struct Args {}

pub fn conformance(_: &Args) -> Result<ExitCode> {
    let start = Instant::now();
    let mut test = cargo();
    test.args(["test", "--no-fail-fast", "--target", target(), "--package", "corten-protobuf"]);
    test.args(["--test", "roundtrip", "--", "--show-output"]);
    let output = test.output().with_context(|| format!("cannot start `{}`", run::shown(&test)))?;
    let text = String::from_utf8_lossy(&output.stdout);
    let outcome = parse("roundtrip", &text);
    if outcome.passed == 0 {
        bail!("no test passed ({}):\n{text}{}", output.status, String::from_utf8_lossy(&output.stderr));
    }
    print!("{}", counted(&text));
    for (test, why) in &outcome.skipped {
        println!(" skipped    {test}: {why}");
    }
    for (test, said) in &outcome.failed {
        println!(" FAILED     {test}\n{said}");
    }
    println!("{} in {}", outcome.counts(), say::seconds(start.elapsed()));
    Ok(if output.status.success() { ExitCode::SUCCESS } else { ExitCode::FAILURE })
}
