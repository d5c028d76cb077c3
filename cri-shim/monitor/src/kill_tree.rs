//! Killing a process with its descendants: what a probe or an exec started must not outlive its timeout, nor hold its
//! pipes open. (A container as a whole is killed by its cgroup.)

use std::collections::BTreeMap;
use std::collections::btree_map::Entry;
use std::os::fd::OwnedFd;

use corten_sys::pidfd;
use corten_sys::procfs::Procfs;
use nix::libc::{SIGKILL, SIGSTOP};

/// A tree that still grows after so many looks is killed as far as it is known.
const ROUNDS: usize = 16;

/// Stops what is found until nothing new is found (a stopped process starts none), then kills it all. `root` is a
/// child of ours that was not reaped.
pub fn kill_tree(root: i32) {
    let (Ok(proc), Ok(root_fd)) = (Procfs::host(), pidfd::open(root)) else { return };
    let _ = pidfd::send_signal(&root_fd, SIGSTOP);
    let mut tree = BTreeMap::from([(root, root_fd)]);
    for _ in 0..ROUNDS {
        let found: Vec<(i32, OwnedFd)> = tree.keys().flat_map(|parent| children(&proc, *parent)).collect();
        let mut grown = false;
        for (pid, handle) in found {
            if let Entry::Vacant(place) = tree.entry(pid) {
                let _ = pidfd::send_signal(&handle, SIGSTOP);
                place.insert(handle);
                grown = true;
            }
        }
        if !grown {
            break;
        }
    }
    for handle in tree.values() {
        let _ = pidfd::send_signal(handle, SIGKILL);
    }
}

/// The children of every thread of a process. Checked after the pidfd is there, so that it cannot be another's.
fn children(proc: &Procfs, parent: i32) -> Vec<(i32, OwnedFd)> {
    let Ok(threads) = std::fs::read_dir(format!("/proc/{parent}/task")) else { return Vec::new() };
    let threads = threads.filter_map(|entry| Some(entry.ok()?.file_name().to_string_lossy().into_owned()));
    let lists = threads.filter_map(|thread| proc.read(format!("{parent}/task/{thread}/children")).ok());
    let pids = lists.flat_map(|list| {
        list.split_ascii_whitespace().filter_map(|pid| pid.parse().ok()).collect::<Vec<_>>()
    });
    let handles = pids.filter_map(|pid: i32| Some((pid, pidfd::open(pid).ok()?)));
    handles.filter(|(pid, _)| proc.stat(*pid).is_ok_and(|stat| stat.parent == parent)).collect()
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::io::Read;
    use std::process::{Command, Stdio};

    #[test]
    fn grandchildren_go_with_the_process_and_let_go_of_its_pipe() {
        let mut child = Command::new("/bin/busybox")
            .args(["sh", "-c", "(sleep 60; echo late) & sleep 60 & echo up; wait"])
            .stdout(Stdio::piped())
            .spawn()
            .unwrap();
        let mut out = child.stdout.take().unwrap();
        let mut up = [0; 3];
        out.read_exact(&mut up).unwrap();
        kill_tree(child.id() as i32);
        let mut rest = String::new();
        out.read_to_string(&mut rest).unwrap();
        assert_eq!(rest, "");
        assert!(!child.wait().unwrap().success());
    }
}
