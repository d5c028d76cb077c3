//! `conformance store`: the API server's store, longer and harder than in `cargo xtask test`.

use std::fs;
use std::process::ExitCode;
use std::time::Instant;

use anyhow::{Context, Result, bail};

use crate::project::{cache_dir, cargo, target};
use crate::test::output::parse;
use crate::{packages, run, say};

/// The suite of all stores (memory, redb, Debian's etcd), kills, damaged files, full disks.
///
/// One suite runs on each store, with concurrent writers whose recorded histories are checked for linearizability. The
/// redb file's writer is killed under load again and again; copies of the file are cut and changed at random places.
/// Prints what was counted. Needs root for the small file system.
#[derive(clap::Args)]
pub struct Args {
    /// How often the writer is killed
    #[arg(long, default_value_t = 200)]
    kills: u64,
    /// How many damaged copies are opened
    #[arg(long, default_value_t = 1000)]
    damages: u64,
    /// Calls of each of the 8 concurrent clients
    #[arg(long, default_value_t = 1000)]
    calls: u64,
    /// Of what is random, to repeat a run
    #[arg(long, default_value_t = 1)]
    seed: u64,
}

pub fn conformance(args: &Args) -> Result<ExitCode> {
    packages::ensure()?;
    let start = Instant::now();
    let mut test = cargo();
    test.args(["test", "--no-fail-fast", "--target", target(), "--package", "corten-store", "--"]);
    test.args(["--show-output", "--test-threads=2"]);
    for (name, number) in [
        ("CORTEN_STORE_KILLS", args.kills),
        ("CORTEN_STORE_DAMAGES", args.damages),
        ("CORTEN_STORE_CALLS", args.calls),
        ("CORTEN_STORE_SEED", args.seed),
    ] {
        test.env(name, number.to_string());
    }
    say::note("store", "runs; this takes some minutes");
    let output = test.output().with_context(|| format!("cannot start `{}`", run::shown(&test)))?;
    let text = String::from_utf8_lossy(&output.stdout);
    let log = cache_dir().join("store.log");
    fs::create_dir_all(cache_dir()).with_context(|| format!("cannot make {}", cache_dir().display()))?;
    fs::write(&log, [&output.stdout[..], &output.stderr[..]].concat())
        .with_context(|| format!("cannot write {}", log.display()))?;
    let outcome = parse("store", &text);
    if outcome.passed == 0 {
        bail!("no test ran ({}): see {}", output.status, log.display());
    }
    print!("{}", counted(&text));
    for (test, why) in &outcome.skipped {
        println!(" skipped    {test}: {why}");
    }
    for (test, _) in &outcome.failed {
        println!(" FAILED     {test}");
    }
    println!(" log        {}, {}", log.display(), say::seconds(start.elapsed()));
    println!("{}", outcome.counts());
    Ok(if output.status.success() { ExitCode::SUCCESS } else { ExitCode::FAILURE })
}

/// What the tests say of themselves, with their names.
pub(super) fn counted(text: &str) -> String {
    let mut lines = String::new();
    let mut showing = None;
    for line in text.lines() {
        if let Some(name) = line.strip_prefix("---- ").and_then(|line| line.strip_suffix(" stdout ----")) {
            showing = Some(name);
        } else if line.is_empty() || line.starts_with("SKIP: ") {
            showing = showing.filter(|_| !line.is_empty());
        } else if let Some(name) = showing.filter(|_| line.starts_with(|first: char| first.is_ascii_digit()))
        {
            lines.extend([" ", name, "\n            ", line, "\n"]);
        }
    }
    lines
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_what_is_counted_is_shown() {
        let text = "successes:\n\n---- redb::a stdout ----\n40 calls, 7 writes\nnoise\n\n---- b stdout ----\nSKIP: why\n\n\
                    successes:\n    redb::a\n2 more\n";
        assert_eq!(counted(text), " redb::a\n            40 calls, 7 writes\n");
    }
}
