//! What lanes with programs of test-vm have in common: what is tested is the release build, or what `--programs` says.

use std::path::{Path, PathBuf};
use std::process::{Command, ExitCode};

use anyhow::{Context, Result};

use crate::project::{cargo, release_dir, root, target, target_dir};
use crate::{build, packages, run, tools};

#[derive(clap::Args)]
pub struct Programs {
    /// Test the programs in this directory instead of building them
    #[arg(long, value_name = "DIR")]
    programs: Option<PathBuf>,
}

impl Programs {
    /// Builds what is needed: the packages of the system, the stock programs of Kubernetes, ours, and the lane's own.
    pub fn lane(&self, name: &str, stock: &[&str]) -> Result<Command> {
        packages::ensure()?;
        for program in stock {
            tools::kubernetes(program)?;
        }
        let programs = if let Some(dir) = &self.programs {
            dir.canonicalize().with_context(|| format!("--programs {}", dir.display()))?
        } else {
            build::release()?;
            release_dir()
        };
        let mut lane = cargo();
        lane.args(["build", "--quiet", "--target", target(), "--package", "corten-test-vm", "--bin", name]);
        run::check(&mut lane).context("cannot build the lane")?;
        let mut lane = Command::new(target_dir().join(target()).join("debug").join(name));
        lane.env("CORTEN_TEST_PROGRAMS", programs).current_dir(root());
        Ok(lane)
    }
}

/// Runs it to its end.
pub fn ended(lane: &mut Command) -> Result<ExitCode> {
    let status = lane.status().with_context(|| format!("cannot start `{}`", run::shown(lane)))?;
    Ok(if status.success() { ExitCode::SUCCESS } else { ExitCode::FAILURE })
}

/// An absolute path as an argument.
pub fn path(path: &Path) -> Result<PathBuf> {
    std::path::absolute(path).with_context(|| path.display().to_string())
}
