//! `bench size`: bytes on disk of each program beside the peers it replaces, and the time of one that only starts.

use std::fs;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::time::{Duration, Instant};

use anyhow::{Context, Result, ensure};

use super::sample::Samples;
use super::{Case, Pace, Report, Unit, interleave};
use crate::project::release_dir;
use crate::{build, run};

/// Bytes on disk beside the peers, and start-up time (`--version`).
#[derive(clap::Args)]
pub struct Args {
    /// Starts of each program that are timed
    #[arg(long, default_value_t = 50)]
    rounds: usize,
}

/// A name and the files that belong to it.
type Peer = (&'static str, &'static [&'static str]);

/// What a role is, our programs for it, and the peers that do the same work.
const ROLES: &[(&str, &[&str], &[Peer])] = &[
    ("OCI runtime", &["corten-oci"], &[("crun", &["crun"]), ("runc", &["runc"])]),
    (
        "CRI daemon and its process per pod",
        &["corten-cri", "corten-monitor"],
        &[("containerd", &["containerd", "containerd-shim-runc-v2"])],
    ),
    (
        "CNI plugins (flannel is ours alone)",
        &["corten-cni"],
        &[(
            "containernetworking-plugins",
            &[
                "/usr/lib/cni/bridge",
                "/usr/lib/cni/firewall",
                "/usr/lib/cni/host-local",
                "/usr/lib/cni/loopback",
                "/usr/lib/cni/portmap",
                "/usr/lib/cni/tuning",
            ],
        )],
    ),
];

pub fn bench(args: &Args) -> Result<Report> {
    build::ensure_built()?;
    let mut report = Report::new("bench size");
    for (role, ours, peers) in ROLES {
        let ours: Vec<PathBuf> = ours.iter().map(|name| release_dir().join(name)).collect();
        let mut contenders = vec![Samples::new(names(&ours), vec![bytes(&ours)?])];
        for (name, files) in *peers {
            match files.iter().map(|file| locate(file)).collect::<Option<Vec<_>>>() {
                Some(files) => contenders.push(Samples::new(*name, vec![bytes(&files)?])),
                None => report.note(format!("{name} is not installed: `cargo xtask packages` installs it")),
            }
        }
        report.row(format!("{role}: size"), Unit::Bytes, &contenders);
    }
    let programs = std::iter::once(release_dir().join("corten-oci"))
        .chain(["crun", "runc"].into_iter().filter_map(locate));
    let mut cases: Vec<Case<'_>> = programs
        .map(|program| Case::new(names(std::slice::from_ref(&program)), move || version(&program)))
        .collect();
    report.row("OCI runtime: --version", Unit::Micros, &interleave(&mut cases, Pace::new(args.rounds, 0))?);
    Ok(report)
}

fn version(program: &Path) -> Result<Duration> {
    let start = Instant::now();
    let status = Command::new(program).arg("--version").stdout(Stdio::null()).status()?;
    ensure!(status.success(), "{} --version: {status}", program.display());
    Ok(start.elapsed())
}

fn names(files: &[PathBuf]) -> String {
    let name = |file: &PathBuf| file.file_name().unwrap_or_default().to_string_lossy().into_owned();
    files.iter().map(name).collect::<Vec<_>>().join(" + ")
}

fn bytes(files: &[PathBuf]) -> Result<f64> {
    let size = |file: &PathBuf| {
        Ok(fs::metadata(file).with_context(|| format!("cannot stat {}", file.display()))?.len() as f64)
    };
    files.iter().map(size).sum()
}

fn locate(file: &str) -> Option<PathBuf> {
    if file.starts_with('/') { Some(PathBuf::from(file)).filter(|f| f.is_file()) } else { run::find(file) }
}
