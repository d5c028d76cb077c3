//! One script of kubectl commands against two servers: what differs, after what must differ (times, uids, random names)
//! is taken out.
//!
//! The script is `tools/kubectl/script.txt`, its manifests lie beside it. What differs for a reason is in
//! `tools/kubectl/explained.txt`; a reason that nothing needs any more is a failure too.

mod normal;
mod report;
mod script;

use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::time::{Duration, Instant};

use anyhow::{Context, Result};

use crate::control_plane::ControlPlane;
pub use report::Report;
pub use script::{Explanation, Step, explanations, steps};

/// What one command gave.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Outcome {
    /// -1: it was ended for taking too long.
    pub code: i32,
    pub stdout: String,
    pub stderr: String,
}

/// A user with a home, a kubeconfig and stock kubectl.
pub struct User {
    home: PathBuf,
    kubeconfig: PathBuf,
    path: String,
    manifests: PathBuf,
}

/// Longer than any step waits by itself.
const LIMIT: Duration = Duration::from_secs(90);

impl User {
    pub fn of(server: &dyn ControlPlane, kubectl: &Path, manifests: &Path) -> Result<Self> {
        let home = server.dir().join("home");
        std::fs::create_dir_all(&home)?;
        let bin = kubectl.parent().context("kubectl is in a directory")?.display();
        let path = format!("{bin}:{}", std::env::var("PATH").unwrap_or_default());
        Ok(Self { home, kubeconfig: server.kubeconfig(), path, manifests: manifests.to_owned() })
    }

    /// Runs a line of shell.
    pub fn run(&self, line: &str) -> Result<Outcome> {
        let (out, err) = (self.home.join("stdout"), self.home.join("stderr"));
        let mut command = Command::new("timeout");
        command.args(["-k", "5", &LIMIT.as_secs().to_string(), "sh", "-c", line]);
        command.env("HOME", &self.home).env("KUBECONFIG", &self.kubeconfig).env("PATH", &self.path);
        command.env("KUBE_EDITOR", "true").current_dir(&self.manifests).stdin(Stdio::null());
        command.stdout(std::fs::File::create(&out)?).stderr(std::fs::File::create(&err)?);
        let status = command.status().context("cannot start a shell")?;
        let read = |file: &Path| -> Result<String> {
            Ok(String::from_utf8_lossy(&std::fs::read(file)?).into_owned())
        };
        let code = match status.code() {
            None | Some(124 | 137) => -1,
            Some(code) => code,
        };
        Ok(Outcome { code, stdout: read(&out)?, stderr: read(&err)? })
    }
}

/// Runs all steps on both, side by side.
pub fn compare(ours: &User, stock: &User, steps: &[Step], explanations: &[Explanation]) -> Result<Report> {
    let mut report = Report::new(explanations);
    for (number, step) in steps.iter().enumerate() {
        let start = Instant::now();
        let (ours, stock) = std::thread::scope(|scope| {
            let stock = scope.spawn(|| stock.run(&step.line));
            (ours.run(&step.line), stock.join().expect("it does not panic"))
        });
        report.add(number + 1, step, &normal::outcome(ours?), &normal::outcome(stock?), start.elapsed());
    }
    Ok(report)
}
