//! `corten logs`: what a container printed, from its log files. No daemon is asked: logs outlive them.

use std::fs::{self, File};
use std::io::{Read, Seek, SeekFrom, Write, stdout};
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};
use std::process::ExitCode;
use std::time::Duration;

use anyhow::{Context, Result, bail};

use crate::cri::block_on;
use crate::instance::Instance;
use crate::logfile::{Printer, tail_offset};
use crate::pick::{self, Candidate};
use crate::{config, kubelet};

/// Print what a container printed
///
/// With -f, goes on until the container ends.
#[derive(clap::Args)]
pub struct Args {
    /// The pod: NAME or NAMESPACE/NAME
    pod: String,
    /// The container; the pod's first one when not given
    #[arg(short, long, value_name = "NAME")]
    container: Option<String>,
    /// Go on printing as the container does
    #[arg(short, long)]
    follow: bool,
    /// Only the last lines
    #[arg(long, value_name = "LINES")]
    tail: Option<usize>,
    /// The run before the last restart
    #[arg(short, long, conflicts_with = "follow")]
    previous: bool,
    /// Say when each line was printed
    #[arg(long)]
    timestamps: bool,
}

/// Between two looks at a log that is followed.
const FOLLOW_INTERVAL: Duration = Duration::from_millis(100);

pub fn run(instance: &Instance, args: &Args) -> Result<ExitCode> {
    let dirs = pod_dirs(&instance.pod_logs())?;
    let candidates: Vec<Candidate> = dirs.iter().map(|(pod, _)| pod.clone()).collect();
    let (pod, dir) = &dirs[pick::pod(&args.pod, &candidates)?];
    let containers = containers(instance, pod, dir)?;
    let container = pick::container(&args.pod, args.container.as_deref(), &containers)?;
    let runs = runs(&dir.join(container));
    let index = runs.len().checked_sub(if args.previous { 2 } else { 1 });
    let Some(file) = index.map(|index| &runs[index]) else {
        if args.previous {
            bail!("container {container} of pod {} ran only once: there is no previous log", args.pod)
        }
        bail!("container {container} of pod {} has no log yet: it did not start", args.pod)
    };
    print(file, args, || is_running(instance, pod, container))?;
    Ok(ExitCode::SUCCESS)
}

/// Directories `NAMESPACE_NAME_UID` of the log directory, one per pod name: the newest. Source: kubernetes
/// pkg/kubelet/kuberuntime, BuildPodLogsDirectory.
fn pod_dirs(logs: &Path) -> Result<Vec<(Candidate, PathBuf)>> {
    let entries =
        fs::read_dir(logs).with_context(|| format!("cannot read {}; do pods run here?", logs.display()))?;
    let mut dirs: Vec<(std::time::SystemTime, PathBuf)> = Vec::new();
    for entry in entries {
        let entry = entry?;
        dirs.push((entry.metadata()?.modified()?, entry.path()));
    }
    dirs.sort_by_key(|(modified, _)| std::cmp::Reverse(*modified));
    let mut found: Vec<(Candidate, PathBuf)> = Vec::new();
    for (_, dir) in dirs {
        let Some(pod) = dir.file_name().and_then(|n| n.to_str()).and_then(parse_dir_name) else { continue };
        if !found.iter().any(|(known, _)| *known == pod) {
            found.push((pod, dir));
        }
    }
    Ok(found)
}

/// Neither namespace, name nor uid may hold an underscore.
fn parse_dir_name(name: &str) -> Option<Candidate> {
    let parts: Vec<&str> = name.split('_').collect();
    let [namespace, name, _uid] = parts.as_slice() else { return None };
    Some(Candidate { namespace: (*namespace).into(), name: (*name).into(), node: config::node_name() })
}

/// The containers of a pod: in the order of its manifest when the kubelet tells, else those that have a log.
fn containers(instance: &Instance, pod: &Candidate, dir: &Path) -> Result<Vec<String>> {
    let mut names: Vec<String> = Vec::new();
    for entry in fs::read_dir(dir).with_context(|| format!("cannot read {}", dir.display()))? {
        names.push(entry?.file_name().to_string_lossy().into_owned());
    }
    names.sort();
    let known = block_on(kubelet::pods(instance)).unwrap_or_default();
    let Some(known) =
        known.iter().find(|p| p.metadata.name == pod.name && p.metadata.namespace == pod.namespace)
    else {
        return Ok(names);
    };
    let mut ordered: Vec<String> = known.spec.containers.iter().map(|c| c.name.clone()).collect();
    ordered.extend(names.into_iter().filter(|name| known.spec.containers.iter().all(|c| c.name != *name)));
    Ok(ordered)
}

/// `0.log`, `1.log`, ...: one per run, oldest first.
fn runs(dir: &Path) -> Vec<PathBuf> {
    let entries = fs::read_dir(dir).into_iter().flatten().flatten();
    let number = |path: &Path| path.file_name()?.to_str()?.strip_suffix(".log")?.parse::<u32>().ok();
    let mut runs: Vec<(u32, PathBuf)> =
        entries.filter_map(|e| Some((number(&e.path())?, e.path()))).collect();
    runs.sort();
    runs.into_iter().map(|(_, path)| path).collect()
}

fn is_running(instance: &Instance, pod: &Candidate, container: &str) -> bool {
    let pods = block_on(kubelet::pods(instance)).unwrap_or_default();
    let pod = pods.iter().find(|p| p.metadata.name == pod.name && p.metadata.namespace == pod.namespace);
    pod.is_some_and(|pod| {
        let statuses = pod.status.init_container_statuses.iter().chain(&pod.status.container_statuses);
        statuses.filter(|s| s.name == container).any(|s| s.state.running.is_some())
    })
}

fn print(path: &Path, args: &Args, is_running: impl Fn() -> bool) -> Result<()> {
    let cannot = || format!("cannot read {}", path.display());
    let mut file = File::open(path).with_context(cannot)?;
    let mut out = stdout().lock();
    let mut printer = Printer::new(args.timestamps);
    if let Some(lines) = args.tail {
        let mut text = Vec::new();
        file.read_to_end(&mut text).with_context(cannot)?;
        file.seek(SeekFrom::Start(tail_offset(&text, lines) as u64)).with_context(cannot)?;
    }
    let mut idle = 0u32;
    loop {
        // Asked before reading: what was printed before the end is in the file by then.
        let goes_on = args.follow && (idle % 10 != 9 || is_running());
        let mut bytes = Vec::new();
        file.read_to_end(&mut bytes).with_context(cannot)?;
        idle = if bytes.is_empty() { idle + 1 } else { 0 };
        out.write_all(&printer.feed(&bytes))?;
        out.flush()?;
        if !goes_on {
            return Ok(());
        }
        std::thread::sleep(FOLLOW_INTERVAL);
        // Rotation renames the file and begins a new one of this name.
        if fs::metadata(path).is_ok_and(|now| file.metadata().is_ok_and(|open| now.ino() != open.ino())) {
            let mut rest = Vec::new();
            file.read_to_end(&mut rest).with_context(cannot)?;
            out.write_all(&printer.feed(&rest))?;
            file = File::open(path).with_context(cannot)?;
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn directories_of_pods_are_told_from_others() {
        let pod = parse_dir_name("default_hello-n1_0a1b").unwrap();
        assert_eq!((pod.namespace.as_str(), pod.name.as_str()), ("default", "hello-n1"));
        assert_eq!(parse_dir_name("lost+found"), None);
        assert_eq!(parse_dir_name("a_b_c_d"), None);
    }

    #[test]
    fn runs_are_ordered_by_number_and_rotated_files_left_out() {
        let dir = tempfile::tempdir().unwrap();
        for name in ["10.log", "9.log", "0.log", "9.log.20260101-000000", "x.log"] {
            fs::write(dir.path().join(name), "").unwrap();
        }
        let names: Vec<_> =
            runs(dir.path()).iter().map(|p| p.file_name().unwrap().to_str().unwrap().to_string()).collect();
        assert_eq!(names, ["0.log", "9.log", "10.log"]);
    }
}
