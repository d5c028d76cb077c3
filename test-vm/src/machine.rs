//! A picture of what a node may leave behind, and the difference of two of them.
//!
//! It shows what the calling thread sees: its network and mount namespaces are those of the node under test, so that
//! what other tests do meanwhile is in no picture.

use std::collections::BTreeSet;
use std::fmt;
use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;

/// Directories of the machine that a node with default places would use.
const DEFAULT_PLACES: [&str; 8] = [
    "/etc/cni",
    "/etc/corten",
    "/opt/cni",
    "/run/corten",
    "/var/lib/cni",
    "/var/lib/corten",
    "/var/lib/kubelet",
    "/var/log/pods",
];

/// Cgroups of these names at the top of a hierarchy belong to a node.
const CGROUP_NAMES: [&str; 3] = ["kubepods", "corten", "k8s.io"];

/// Facts about the machine, one line each.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Snapshot(BTreeSet<String>);

impl Snapshot {
    /// `dir` is where the node under test keeps everything, `cgroup` the name of its cgroup.
    pub fn take(dir: &Path, cgroup: &str) -> Self {
        let mut facts = BTreeSet::new();
        facts.extend(processes(dir, cgroup));
        facts.extend(mounts());
        facts.extend(cgroups(cgroup));
        facts.extend(files(dir));
        facts.extend(
            DEFAULT_PLACES.iter().filter(|d| Path::new(d).exists()).map(|d| format!("directory {d}")),
        );
        facts.extend(lines("link", &["ip", "-o", "link"]).iter().filter_map(|line| link(line)));
        for (kind, command) in [
            ("address", &["ip", "-o", "address"][..]),
            ("route", &["ip", "route", "show", "table", "all"]),
            ("route", &["ip", "-6", "route", "show", "table", "all"]),
        ] {
            facts.extend(lines(kind, command).iter().filter(|line| is_made(line)).map(|line| settled(line)));
        }
        facts.extend(lines("rule", &["nft", "-s", "list", "ruleset"]));
        facts.extend(["net/ipv4/ip_forward", "net/ipv4/conf/all/route_localnet"].iter().map(|key| {
            let value = fs::read_to_string(format!("/proc/sys/{key}")).unwrap_or_default();
            format!("sysctl {key} {}", value.trim())
        }));
        Self(facts)
    }

    /// What came and what went since `before`.
    pub fn since(&self, before: &Self) -> Difference {
        Difference {
            came: self.0.difference(&before.0).cloned().collect(),
            went: before.0.difference(&self.0).cloned().collect(),
        }
    }
}

#[derive(Debug, PartialEq, Eq)]
pub struct Difference {
    came: Vec<String>,
    went: Vec<String>,
}

impl Difference {
    pub fn is_empty(&self) -> bool {
        self.came.is_empty() && self.went.is_empty()
    }

    /// True when something of this kind came (`link`, `mount`, `process`, ...), so that a test can make sure that it
    /// looks at all.
    pub fn brought(&self, kind: &str) -> bool {
        self.came.iter().any(|fact| fact.split(' ').next() == Some(kind))
    }
}

impl fmt::Display for Difference {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for (sign, facts) in [("+", &self.came), ("-", &self.went)] {
            for fact in facts {
                writeln!(f, "  {sign} {fact}")?;
            }
        }
        Ok(())
    }
}

/// Programs of ours, processes whose command line names the node's directory, and all inside its cgroup.
fn processes(dir: &Path, cgroup: &str) -> Vec<String> {
    let own = std::process::id();
    let dir = dir.display().to_string();
    let pids = fs::read_dir("/proc").into_iter().flatten().flatten();
    let pids =
        pids.filter_map(|entry| entry.file_name().to_str()?.parse::<u32>().ok()).filter(|pid| *pid != own);
    let facts = pids.filter_map(|pid| {
        let read = |file: &str| fs::read(format!("/proc/{pid}/{file}")).ok();
        let line = String::from_utf8_lossy(&read("cmdline")?).replace('\0', " ");
        let cgroups = String::from_utf8_lossy(&read("cgroup")?).into_owned();
        let inside = cgroups.lines().any(|line| line.contains(&format!("/{cgroup}")));
        let zombie =
            String::from_utf8_lossy(&read("stat")?).rsplit(')').next()?.trim_start().starts_with('Z');
        (!zombie && (inside || line.contains(&dir))).then(|| format!("process {pid} {}", line.trim()))
    });
    facts.collect()
}

fn mounts() -> Vec<String> {
    let table = fs::read_to_string("/proc/thread-self/mountinfo").expect("read the mount table");
    let facts = table.lines().filter_map(|line| {
        let (mount, fs) = line.split_once(" - ")?;
        Some(format!("mount {} {}", mount.split(' ').nth(4)?, fs.split(' ').next()?))
    });
    facts.collect()
}

/// Every cgroup whose path names the node, or a node's usual names at the top.
fn cgroups(cgroup: &str) -> Vec<String> {
    let table = fs::read_to_string("/proc/thread-self/mountinfo").expect("read the mount table");
    let hierarchies =
        table.lines().filter(|line| line.contains(" - cgroup")).filter_map(|line| line.split(' ').nth(4));
    let mut facts = Vec::new();
    for hierarchy in hierarchies {
        for top in fs::read_dir(hierarchy).into_iter().flatten().flatten().filter(|e| e.path().is_dir()) {
            let name = top.file_name().to_string_lossy().into_owned();
            if name.starts_with(cgroup) || CGROUP_NAMES.contains(&name.as_str()) {
                facts.extend(
                    tree(&top.path())
                        .iter()
                        .filter(|p| p.is_dir())
                        .map(|p| format!("cgroup {}", p.display())),
                );
            }
        }
    }
    facts
}

fn files(dir: &Path) -> Vec<String> {
    tree(dir).iter().skip(1).map(|path| format!("file {}", path.display())).collect()
}

/// `dir` and everything below it that is no mount of its own.
fn tree(dir: &Path) -> Vec<PathBuf> {
    let mut all = vec![dir.to_path_buf()];
    let mut open = vec![dir.to_path_buf()];
    while let Some(next) = open.pop() {
        for entry in fs::read_dir(next).into_iter().flatten().flatten() {
            if entry.file_type().is_ok_and(|kind| kind.is_dir()) {
                open.push(entry.path());
            }
            all.push(entry.path());
        }
    }
    all
}

fn lines(kind: &str, command: &[&str]) -> Vec<String> {
    let output = Command::new(command[0])
        .args(&command[1..])
        .output()
        .unwrap_or_else(|e| panic!("{}: {e}", command[0]));
    assert!(output.status.success(), "{command:?}: {}", String::from_utf8_lossy(&output.stderr));
    let text = String::from_utf8_lossy(&output.stdout).into_owned();
    text.lines()
        .filter(|line| !line.trim().is_empty())
        .map(|line| format!("{kind} {}", line.trim()))
        .collect()
}

/// `link 3: veth1@if2: <FLAGS> mtu ...`: a link is its name. Its index rises with every link there ever was, its flags
/// and state change by themselves.
fn link(line: &str) -> Option<String> {
    let name = line.split(": ").nth(1)?;
    Some(format!("link {}", name.split('@').next()?))
}

/// False for what the kernel makes for every link by itself, when it sees fit: link-local addresses, multicast.
fn is_made(line: &str) -> bool {
    !["fe80::", "ff00::", " multicast "].iter().any(|part| line.contains(part))
}

/// Without the words that come and go with the carrier of a link.
fn settled(line: &str) -> String {
    line.split_whitespace()
        .filter(|word| !["linkdown", "tentative"].contains(word))
        .collect::<Vec<_>>()
        .join(" ")
}

#[cfg(test)]
mod tests {
    use super::*;

    fn snapshot(facts: &[&str]) -> Snapshot {
        Snapshot(facts.iter().map(|fact| (*fact).to_string()).collect())
    }

    #[test]
    fn a_difference_names_what_came_and_what_went() {
        let difference = snapshot(&["link a", "mount /x proc"]).since(&snapshot(&["link a", "route r"]));
        assert_eq!(difference.to_string(), "  + mount /x proc\n  - route r\n");
        assert!(difference.brought("mount") && !difference.brought("link") && !difference.is_empty());
    }

    #[test]
    fn what_changes_by_itself_is_no_difference() {
        let up = "link 3: test0: <BROADCAST,MULTICAST,UP> mtu 1500 state UP";
        assert_eq!(link(up), Some("link test0".into()));
        assert_eq!(link("link 12: veth0@if2: <UP> mtu 1500"), Some("link veth0".into()));
        assert!(
            !is_made("route fe80::/64 dev test0 proto kernel") && is_made("route 10.99.0.0/16 dev test0")
        );
        assert_eq!(settled("route 10.99.0.0/16 dev test0 linkdown"), settled("route 10.99.0.0/16 dev test0"));
    }

    #[test]
    fn a_file_more_or_less_is_seen() {
        let dir = tempfile::tempdir().unwrap();
        let before = files(dir.path());
        fs::create_dir(dir.path().join("x")).unwrap();
        fs::write(dir.path().join("x/y"), "").unwrap();
        assert_eq!((before.len(), files(dir.path()).len()), (0, 2));
    }
}
