//! `corten down`: end the pods, stop the daemons, remove every trace.

use std::fs;
use std::io::ErrorKind;
use std::path::{Path, PathBuf};
use std::process::ExitCode;
use std::time::{Duration, Instant};

use anyhow::{Context, Result, bail};
use corten_cri_api::v1;

use crate::cmd::up;
use crate::cri::{Cri, block_on, need_root, told};
use crate::daemon::{self, CRI, KUBELET};
use crate::instance::{Instance, Record};
use crate::screen::Screen;
use crate::{kubelet, network, sweep};

/// Stop everything and remove every trace
///
/// Pods get their grace period. Afterwards no process, mount, network namespace, cgroup, link, rule, address or
/// directory is left that was not there before the first `corten up`.
#[derive(clap::Args)]
pub struct Args {
    /// Leave the images in place for the next `corten up`
    #[arg(long)]
    keep_images: bool,
    /// How long pods may take to end before they are killed, in seconds
    #[arg(long, value_name = "SECONDS", default_value_t = 45)]
    timeout: u64,
}

const DAEMON_GRACE: Duration = Duration::from_secs(10);

/// What an instance keeps in its root and in its state. In a directory that was there before us, nothing else is
/// touched.
const ROOT_ENTRIES: [&str; 7] = ["cni", "images", "instance.json", "kubelet", "log", "manifests", "pods"];

pub fn run(instance: &Instance, args: &Args) -> Result<ExitCode> {
    need_root("corten down")?;
    let mut screen = Screen::new();
    let Some(record) = instance.record()? else {
        screen.ok("down", &format!("nothing to remove: no instance in {}", instance.root.display()), None);
        return Ok(ExitCode::SUCCESS);
    };
    let lock = instance.lock()?;
    let started = Instant::now();
    let limit = Duration::from_secs(args.timeout);
    let mut problems = Vec::new();
    // From here nothing stops the rest: what one step cannot remove, a later, rougher one may.
    problems.extend(end_pods(instance, limit, &mut screen).err().map(|e| format!("{e:#}")));
    problems.extend(stop(KUBELET, instance));
    problems.extend(remove_sandboxes(instance, limit).err().map(|e| format!("{e:#}")));
    problems.extend(stop(CRI, instance));
    problems.extend(sweep::processes(instance));
    problems.extend(sweep::cgroups(&record.settings.cgroup_parent));
    problems.extend(sweep::mounts(instance));
    problems.extend(network::remove(&record));
    drop(lock);
    problems.extend(remove_files(instance, &record, args.keep_images).err().map(|e| format!("{e:#}")));
    for problem in &problems {
        screen.fail("down", problem);
    }
    if problems.is_empty() {
        let kept = if args.keep_images { "; images kept" } else { "" };
        screen.ok("down", &format!("nothing of it is left{kept}"), Some(started.elapsed()));
        return Ok(ExitCode::SUCCESS);
    }
    screen.plain(&format!(" run `{} down` again when that is mended", instance.command()));
    Ok(ExitCode::FAILURE)
}

/// Takes the manifests away and waits until the kubelet has ended their pods.
fn end_pods(instance: &Instance, limit: Duration, screen: &mut Screen) -> Result<()> {
    for entry in fs::read_dir(instance.manifests()).into_iter().flatten().flatten() {
        fs::remove_file(entry.path()).with_context(|| format!("cannot remove {}", entry.path().display()))?;
    }
    if daemon::running(instance, KUBELET).is_none() {
        return Ok(());
    }
    let started = Instant::now();
    block_on(async {
        let mut seen: Vec<String> = Vec::new();
        loop {
            let pods = kubelet::pods(instance).await?;
            let names: Vec<String> = pods.iter().map(|pod| pod.manifest_name().to_string()).collect();
            for ended in seen.iter().filter(|name| !names.contains(name)) {
                screen.ok("pod", &format!("{ended}  ended"), Some(started.elapsed()));
            }
            if pods.is_empty() {
                return Ok(());
            }
            let line = |pod: &kubelet::Pod| {
                ("pod".to_string(), format!("{}  {}", pod.manifest_name(), pod.readiness()))
            };
            screen.live(&pods.iter().map(line).collect::<Vec<_>>());
            if started.elapsed() > limit {
                screen.warn(&format!("{} did not end in {} s: killed", names.join(", "), limit.as_secs()));
                return Ok(());
            }
            seen = names;
            tokio::time::sleep(Duration::from_millis(5)).await;
        }
    })
}

fn stop(name: &str, instance: &Instance) -> Option<String> {
    daemon::stop(instance, name, DAEMON_GRACE).err().map(|e| format!("{e:#}"))
}

/// Removes what sandboxes are left, by the daemon, which knows their networks. It is started again for that when it
/// does not run and left records.
fn remove_sandboxes(instance: &Instance, limit: Duration) -> Result<()> {
    let records = fs::read_dir(instance.root.join("pods")).is_ok_and(|mut entries| entries.next().is_some());
    if !records {
        return Ok(());
    }
    up::start_cri(instance)
        .context("pods are left and corten-cri, which could end them in order, cannot be started")?;
    block_on(async {
        let work = async {
            let mut cri = Cri::connect(instance).await?;
            let list = cri.runtime.list_pod_sandbox(v1::ListPodSandboxRequest::default()).await;
            for sandbox in list.map_err(|s| told("list sandboxes", &s))?.into_inner().items {
                let (stop, remove) = (
                    v1::StopPodSandboxRequest { pod_sandbox_id: sandbox.id.clone() },
                    v1::RemovePodSandboxRequest { pod_sandbox_id: sandbox.id.clone() },
                );
                let what = format!("sandbox {}", sandbox.id);
                cri.runtime.stop_pod_sandbox(stop).await.map_err(|s| told(&format!("stop {what}"), &s))?;
                cri.runtime
                    .remove_pod_sandbox(remove)
                    .await
                    .map_err(|s| told(&format!("remove {what}"), &s))?;
            }
            Ok(())
        };
        match tokio::time::timeout(limit, work).await {
            Ok(outcome) => outcome,
            Err(_) => bail!("corten-cri did not remove its sandboxes in {} s", limit.as_secs()),
        }
    })
}

/// Removes files and directories, but never across a mount: it could be the host's.
fn remove_files(instance: &Instance, record: &Record, keep_images: bool) -> Result<()> {
    if let Some(point) = sweep::mount_points(instance).first() {
        bail!("{} is still mounted: nothing below {} is deleted", point.display(), instance.root.display());
    }
    for entry in entries(instance, record)? {
        if !(keep_images && entry == instance.root.join("images")) && entry != instance.record_file() {
            remove(&entry)?;
        }
    }
    if keep_images && instance.root.join("images").exists() {
        return remove_made(record, &[&instance.root]);
    }
    // Last, so that a `down` that was interrupted can be run again.
    remove(&instance.record_file())?;
    remove_made(record, &[])
}

/// What to delete: everything in directories that we made, our own names in others.
fn entries(instance: &Instance, record: &Record) -> Result<Vec<PathBuf>> {
    let mut all = Vec::new();
    for dir in [&instance.root, &instance.state] {
        let ours = record.made_dirs.contains(dir);
        let listing = match fs::read_dir(dir) {
            Err(error) if error.kind() == ErrorKind::NotFound => continue,
            listing => listing.with_context(|| format!("cannot read {}", dir.display()))?,
        };
        for entry in listing {
            let entry = entry.with_context(|| format!("cannot read {}", dir.display()))?;
            let name = entry.file_name();
            let known = if *dir == instance.root {
                ROOT_ENTRIES.iter().any(|known| name == *known)
            } else {
                is_state_entry(&name.to_string_lossy())
            };
            if ours || known {
                all.push(entry.path());
            }
        }
    }
    Ok(all)
}

fn is_state_entry(name: &str) -> bool {
    let file = ["cri.", "corten-", "demo-image."]
        .iter()
        .any(|prefix| name.trim_start_matches('.').starts_with(prefix));
    file || matches!(name, "kubelet" | "netns" | "oci" | "pods")
}

fn remove(path: &Path) -> Result<()> {
    let kind = fs::symlink_metadata(path).map(|m| m.is_dir());
    let removed = match kind {
        Ok(true) => fs::remove_dir_all(path),
        Ok(false) => fs::remove_file(path),
        Err(error) => Err(error),
    };
    match removed {
        Err(error) if error.kind() != ErrorKind::NotFound => {
            Err(error).with_context(|| format!("cannot remove {}", path.display()))
        }
        _ => Ok(()),
    }
}

/// Removes the directories that `up` made and that are empty now, children first.
fn remove_made(record: &Record, keep: &[&Path]) -> Result<()> {
    for dir in record.made_dirs.iter().rev().filter(|dir| !keep.iter().any(|kept| kept.starts_with(dir))) {
        match fs::remove_dir(dir) {
            Err(error) if !matches!(error.kind(), ErrorKind::NotFound | ErrorKind::DirectoryNotEmpty) => {
                return Err(error).with_context(|| format!("cannot remove {}", dir.display()));
            }
            _ => {}
        }
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::instance::{RECORD_VERSION, Settings};

    fn record(made_dirs: Vec<PathBuf>) -> Record {
        Record {
            version: RECORD_VERSION,
            settings: Settings::default(),
            made_dirs,
            ip_forward: "1".into(),
            tables: vec![],
        }
    }

    fn tree(dir: &Path, files: &[&str]) -> Instance {
        for file in files {
            fs::create_dir_all(dir.join(file).parent().unwrap()).unwrap();
            fs::write(dir.join(file), "").unwrap();
        }
        Instance { root: dir.join("lib"), state: dir.join("run"), config: dir.join("etc") }
    }

    fn left(dir: &Path) -> Vec<String> {
        let mut names: Vec<String> = Vec::new();
        let mut open = vec![dir.to_path_buf()];
        while let Some(next) = open.pop() {
            for entry in fs::read_dir(next).unwrap().flatten() {
                names.push(entry.path().strip_prefix(dir).unwrap().display().to_string());
                if entry.path().is_dir() {
                    open.push(entry.path());
                }
            }
        }
        names.sort();
        names
    }

    #[test]
    fn directories_that_we_made_go_whole() {
        let dir = tempfile::tempdir().unwrap();
        let instance =
            tree(dir.path(), &["lib/instance.json", "lib/images/x", "lib/new", "run/cri.sock", "run/y/z"]);
        remove_files(&instance, &record(vec![instance.root.clone(), instance.state.clone()]), false).unwrap();
        assert_eq!(left(dir.path()), Vec::<String>::new());
    }

    #[test]
    fn in_a_directory_that_was_there_only_our_names_go() {
        let dir = tempfile::tempdir().unwrap();
        let instance = tree(
            dir.path(),
            &["lib/instance.json", "lib/pods/x", "lib/theirs", "run/cri.sock", "run/theirs"],
        );
        remove_files(&instance, &record(vec![]), false).unwrap();
        assert_eq!(left(dir.path()), ["lib", "lib/theirs", "run", "run/theirs"]);
    }

    #[test]
    fn kept_images_keep_the_record_that_finds_them() {
        let dir = tempfile::tempdir().unwrap();
        let instance = tree(dir.path(), &["lib/instance.json", "lib/images/x", "lib/pods/x", "run/cri.sock"]);
        remove_files(&instance, &record(vec![instance.root.clone(), instance.state.clone()]), true).unwrap();
        assert_eq!(left(dir.path()), ["lib", "lib/images", "lib/images/x", "lib/instance.json"]);
    }
}
