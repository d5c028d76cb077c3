//! Private namespaces for one test, and the commands that furnish them.

use std::path::{Path, PathBuf};
use std::process::Command;

use nix::mount::{MsFlags, mount};
use nix::sched::{CloneFlags, unshare};

/// Namespaces of this thread with a BPF file system; `None`, having said why, where tests cannot run.
pub fn private() -> Option<PathBuf> {
    if !nix::unistd::geteuid().is_root() {
        println!("SKIP: needs root");
        return None;
    }
    unshare(CloneFlags::CLONE_NEWNET | CloneFlags::CLONE_NEWNS).expect("unshare");
    let none = None::<&str>;
    mount(none, "/", none, MsFlags::MS_REC | MsFlags::MS_PRIVATE, none).expect("make mounts private");
    // Only this thread sees it, so all tests may have it in one place.
    let directory = Path::new("/sys/fs");
    if let Err(errno) = mount(Some("bpf"), directory, Some("bpf"), MsFlags::empty(), none) {
        println!("SKIP: cannot mount a BPF file system: {errno}");
        return None;
    }
    run("ip link set lo up");
    Some(directory.join("corten/v1/tc"))
}

/// Runs a command of words without quotes, and shows what it said if it fails.
pub fn run(command: &str) -> String {
    let mut words = command.split_whitespace();
    let output = Command::new(words.next().expect("a command"))
        .args(words)
        .output()
        .unwrap_or_else(|error| panic!("cannot start `{command}`: {error}"));
    assert!(output.status.success(), "`{command}`: {}", String::from_utf8_lossy(&output.stderr));
    String::from_utf8_lossy(&output.stdout).into_owned()
}

/// The index of an interface of this namespace.
pub fn ifindex(name: &str) -> u32 {
    nix::net::if_::if_nametoindex(name).unwrap_or_else(|errno| panic!("{name}: {errno}"))
}
