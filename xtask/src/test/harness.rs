//! Builds the test executables and runs them one after the other, each with a deadline and a log.

use std::fs::{self, File};
use std::os::unix::process::CommandExt;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, ExitStatus, Stdio};
use std::time::{Duration, Instant};

use anyhow::{Context, Result, bail};
use serde::Deserialize;

use super::output::{Outcome, parse};
use crate::project::{cargo, release_dir, target};
use crate::say;

/// No suite takes a tenth of this; one that does hangs.
const LIMIT: Duration = Duration::from_mins(10);

/// The end-to-end lanes are the integration tests of this package.
const LANES: &str = "corten-test-vm";

/// One test executable.
pub struct Suite {
    /// `corten-runtime unit`, `corten-test-vm crictl`.
    pub name: String,
    executable: PathBuf,
    /// Tests run in the directory of their package, as `cargo test` runs them.
    directory: PathBuf,
}

/// A line of cargo's JSON output, as far as it matters here.
#[derive(Deserialize)]
struct Message {
    reason: String,
    executable: Option<PathBuf>,
    manifest_path: Option<PathBuf>,
    target: Option<Target>,
    profile: Option<Profile>,
}

#[derive(Deserialize)]
struct Target {
    name: String,
    kind: Vec<String>,
}

#[derive(Deserialize)]
struct Profile {
    test: bool,
}

/// Compiles the tests of `packages`, or of all. `quick` leaves out the lanes.
pub fn build(packages: &[String], quick: bool) -> Result<Vec<Suite>> {
    let start = Instant::now();
    let mut command = cargo();
    command.args(["test", "--no-run", "--target", target(), "--message-format", "json-render-diagnostics"]);
    if packages.is_empty() {
        command.arg("--workspace");
    }
    for package in packages {
        command.args(["--package", package]);
    }
    let output = command.stderr(Stdio::inherit()).output().context("cannot start cargo")?;
    if !output.status.success() {
        bail!("the tests do not compile: {}", crate::run::shown(&command));
    }
    let messages =
        output.stdout.split(|byte| *byte == b'\n').filter_map(|line| serde_json::from_slice(line).ok());
    let mut suites: Vec<Suite> = messages.filter_map(suite).collect();
    suites.retain(|suite| !quick || !suite.name.starts_with(LANES));
    // Units first: what is broken there breaks the lanes too.
    suites.sort_by_key(|suite| (suite.name.starts_with(LANES), suite.name.clone()));
    say::ok("tests", &format!("{} suites built", suites.len()), start.elapsed());
    Ok(suites)
}

fn suite(message: Message) -> Option<Suite> {
    if message.reason != "compiler-artifact" || !message.profile?.test {
        return None;
    }
    let directory = message.manifest_path?.parent()?.to_path_buf();
    let target = message.target?;
    let package = package_name(&directory)?;
    let part = if target.kind.iter().any(|kind| kind == "test") { target.name } else { "unit".into() };
    Some(Suite { name: format!("{package} {part}"), executable: message.executable?, directory })
}

/// The name in the package's manifest; its directory may be called otherwise.
fn package_name(directory: &Path) -> Option<String> {
    let manifest = fs::read_to_string(directory.join("Cargo.toml")).ok()?;
    let line = manifest.lines().find(|line| line.starts_with("name = "))?;
    Some(line.split('"').nth(1)?.to_string())
}

/// Runs one suite and prints one line.
pub fn run(suite: &Suite, filter: Option<&str>, logs: &Path) -> Result<Outcome> {
    let start = Instant::now();
    let log = logs.join(format!("{}.log", suite.name.replace(' ', "-")));
    let file = File::create(&log).with_context(|| format!("cannot make {}", log.display()))?;
    let mut command = Command::new(&suite.executable);
    command
        .args(["--show-output", "--test-threads"])
        .arg(threads().to_string())
        .args(filter)
        .current_dir(&suite.directory)
        .env("CARGO_MANIFEST_DIR", &suite.directory)
        .env("CORTEN_TEST_PROGRAMS", release_dir())
        .stdin(Stdio::null())
        .stdout(file.try_clone()?)
        .stderr(file)
        .process_group(0);
    let mut child =
        command.spawn().with_context(|| format!("cannot start {}", suite.executable.display()))?;
    let status = wait(&mut child)?;
    let text = String::from_utf8_lossy(&fs::read(&log)?).into_owned();
    let mut outcome = parse(&suite.name, &text);
    match status {
        None => {
            let why = format!("did not end in {} s and was killed; see {}", LIMIT.as_secs(), log.display());
            outcome.failed.push((suite.name.clone(), why));
        }
        Some(status) if !status.success() && outcome.failed.is_empty() => {
            outcome.failed.push((suite.name.clone(), format!("ended with {status}; see {}", log.display())));
        }
        Some(_) => {}
    }
    if outcome.failed.is_empty() {
        if outcome.passed + outcome.skipped.len() > 0 {
            say::ok("test", &format!("{}: {}", suite.name, outcome.counts()), start.elapsed());
        }
    } else {
        println!("{text}");
        say::note("test", &format!("{}: {}; see {}", suite.name, outcome.counts(), log.display()));
    }
    Ok(outcome)
}

/// Tests wait for the kernel and for processes more than they compute, but a crowd of them on few cores is slow for
/// each.
fn threads() -> usize {
    std::thread::available_parallelism().map_or(2, std::num::NonZero::get).clamp(2, 8)
}

/// `None`: it was killed at the deadline, with everything in its process group.
fn wait(child: &mut Child) -> Result<Option<ExitStatus>> {
    let deadline = Instant::now() + LIMIT;
    loop {
        if let Some(status) = child.try_wait()? {
            return Ok(Some(status));
        }
        if Instant::now() > deadline {
            Command::new("kill").args(["-KILL", "--", &format!("-{}", child.id())]).status()?;
            child.wait()?;
            return Ok(None);
        }
        std::thread::sleep(Duration::from_millis(20));
    }
}
