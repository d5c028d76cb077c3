//! Several nodes: the short form of `cargo xtask conformance nodes`, and that nothing of it stays on the machine.

use std::collections::BTreeSet;
use std::fs;
use std::io::{BufRead, BufReader};
use std::process::{Command, Stdio};

use corten_test_vm::artifacts::{self, Missing};
use corten_test_vm::cluster::place;
use corten_test_vm::{need, wait};

/// The lane's program, when everything it needs is here.
fn lane() -> Result<Command, Missing> {
    artifacts::root()?;
    for tool in ["ip", "bridge", "nft", "busybox"] {
        artifacts::tool(tool)?;
    }
    for program in ["corten-netd", "corten-cni"] {
        artifacts::program(program)?;
    }
    place::cgroup_root().map_err(|error| Missing(error.to_string()))?;
    let mut lane = Command::new(env!("CARGO_BIN_EXE_nodes"));
    lane.stdin(Stdio::null());
    Ok(lane)
}

/// What a lane could leave: links of this network namespace, mounts, cgroups.
fn machine() -> BTreeSet<String> {
    let links = fs::read_dir("/sys/class/net").into_iter().flatten().flatten();
    let mounts = fs::read_to_string("/proc/self/mountinfo").expect("the mount table");
    links
        .map(|entry| format!("link {}", entry.file_name().display()))
        .chain(mounts.lines().map(|line| format!("mount {line}")))
        .collect()
}

/// Cgroups of the lane that process `pid` runs.
fn cgroups(pid: u32) -> Vec<std::path::PathBuf> {
    let root = place::cgroup_root().expect("checked by lane()");
    let prefix = format!("corten-nodes-{pid}-");
    let all = fs::read_dir(root).expect("list cgroups").flatten().map(|entry| entry.path());
    all.filter(|path| path.file_name().is_some_and(|name| name.to_string_lossy().starts_with(&prefix)))
        .collect()
}

#[test]
fn every_way_between_three_nodes_works_and_nothing_stays() {
    let mut lane = need!(lane());
    let before = machine();
    let child = lane
        .args(["--short", "--only", "fast path off"])
        .stdout(Stdio::piped())
        .spawn()
        .expect("start the lane");
    let pid = child.id();
    let output = child.wait_with_output().expect("wait for the lane");
    let board = String::from_utf8_lossy(&output.stdout);
    println!("{board}");
    assert!(output.status.success(), "{}", board.lines().last().unwrap_or("no board"));
    assert_eq!(machine(), before);
    assert_eq!(cgroups(pid), Vec::<std::path::PathBuf>::new());
}

#[test]
fn a_lane_killed_in_the_middle_takes_its_nodes_with_it() {
    let mut lane = need!(lane());
    let mut child = lane.args(["--only", "by hand"]).stdout(Stdio::piped()).spawn().expect("start the lane");
    let mut line = String::new();
    BufReader::new(child.stdout.take().expect("a pipe")).read_line(&mut line).expect("a first row");
    assert!(line.contains("three nodes and their pods"), "{line}");
    assert!(!cgroups(child.id()).is_empty());
    child.kill().expect("kill the lane");
    child.wait().expect("wait for the lane");
    wait::until_true("no process of it is left", || {
        let members = cgroups(child.id()).into_iter().map(|dir| fs::read_to_string(dir.join("cgroup.procs")));
        members.into_iter().all(|procs| procs.unwrap_or_default().trim().is_empty())
    });
    // The cgroups of nodes that were killed are removed by the next lane of all.
    let mut next = need!(self::lane());
    next.args(["--only", "no such group"]).stdout(Stdio::null()).status().expect("run the lane");
    assert!(cgroups(child.id()).is_empty());
}
