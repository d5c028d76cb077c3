//! `cargo xtask test`: everything that can be checked here, with one line of counts at the end.

mod harness;
pub mod output;

use std::fs;
use std::process::{Command, ExitCode};
use std::time::Instant;

use anyhow::{Context, Result};

use crate::project::{cache_dir, cargo, target};
use crate::{build, ebpf, images, packages, run, say, tools};
use output::Outcome;

/// Runs all tests: format, lints, unit, integration and end-to-end lanes.
///
/// Installs what the tests need and this machine lacks, builds the programs for release (the lanes use them as a user
/// would), the stock clients and the images, and ends with a line `N passed, N failed, N skipped`. Everything that is
/// skipped is listed with its reason. Needs root for namespaces, mounts and cgroups.
#[derive(clap::Args)]
pub struct Args {
    /// Only tests whose name contains this
    filter: Option<String>,
    /// Only tests of this package; may be given several times
    #[arg(short, long = "package", value_name = "PACKAGE")]
    packages: Vec<String>,
    /// Leave out what takes minutes: format, lints, the release build and the lanes
    #[arg(long)]
    quick: bool,
}

pub fn task(args: &Args) -> Result<ExitCode> {
    let start = Instant::now();
    build::ensure_target()?;
    let mut all = Outcome::default();
    if args.filter.is_none() && args.packages.is_empty() {
        all.add(ebpf_object());
    }
    if !args.quick {
        packages::ensure()?;
        if args.filter.is_none() && args.packages.is_empty() {
            all.add(check("format", &["fmt", "--all", "--check"], "rustfmt"));
            all.add(check("lints", &LINTS.map(|arg| if arg == "TARGET" { target() } else { arg }), "clippy"));
        }
        build::release()?;
        tools::ensure();
        images::ensure()?;
    }
    let logs = cache_dir().join("test-logs");
    fs::create_dir_all(&logs).with_context(|| format!("cannot make {}", logs.display()))?;
    for suite in harness::build(&args.packages, args.quick)? {
        all.add(harness::run(&suite, args.filter.as_deref(), &logs)?);
    }
    println!();
    for (test, why) in &all.skipped {
        println!(" skipped    {test}: {why}");
    }
    for (test, why) in &all.failed {
        println!(" FAILED     {test}: {why}");
    }
    println!(" took       {}", say::seconds(start.elapsed()));
    println!("{}", all.counts());
    Ok(if all.failed.is_empty() && all.passed > 0 { ExitCode::SUCCESS } else { ExitCode::FAILURE })
}

const LINTS: [&str; 8] =
    ["clippy", "--workspace", "--all-targets", "--target", "TARGET", "--quiet", "--", "-Dwarnings"];

/// The committed kernel programs are those of the sources; counts as one test.
fn ebpf_object() -> Outcome {
    let start = Instant::now();
    let mut outcome = Outcome::default();
    match ebpf::matches_sources() {
        Ok(manifest) => {
            say::ok("ebpf", &format!("object matches its sources, {}", manifest.rustc), start.elapsed());
            outcome.passed = 1;
        }
        Err(error) => outcome.failed.push(("ebpf".into(), format!("{error:#}"))),
    }
    outcome
}

/// A check of the tree by a component of the toolchain; counts as one test.
fn check(name: &str, args: &[&str], component: &str) -> Outcome {
    let start = Instant::now();
    let mut outcome = Outcome::default();
    if run::output(cargo().args([args[0], "--version"])).is_err() {
        let mut add = Command::new("rustup");
        add.args(["component", "add", component]).current_dir(crate::project::root());
        say::note(name, &format!("{component} is missing: {}", run::shown(&add)));
        if run::output(&mut add).is_err() {
            let why = format!("{component} is not installed and `{}` failed", run::shown(&add));
            outcome.skipped.push((name.into(), why));
            return outcome;
        }
    }
    match cargo().args(args).status() {
        Ok(status) if status.success() => {
            say::ok(name, "clean", start.elapsed());
            outcome.passed = 1;
        }
        Ok(_) => outcome.failed.push((name.into(), format!("see above; run `cargo {}`", args.join(" ")))),
        Err(error) => outcome.failed.push((name.into(), format!("cannot start cargo: {error}"))),
    }
    outcome
}
