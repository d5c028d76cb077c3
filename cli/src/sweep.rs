//! What an instance may have left in the kernel when its daemons could not remove it: processes, mounts, cgroups,
//! links, nftables tables. `down` ends with this; what is gone already is no error, and no failure stops the rest.

use std::fs;
use std::io::ErrorKind;
use std::os::unix::ffi::OsStrExt;
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use rustix::mount::{UnmountFlags, unmount};

use crate::daemon::Process;
use crate::instance::Instance;

/// Programs that may hold parts of an instance. Their command line names its directories.
const OURS: [&str; 4] = ["corten-monitor", "corten-cri", "corten-kubelet", "corten-oci"];

/// Kills every process of our programs whose command line names a directory of this instance.
pub fn processes(instance: &Instance) -> Vec<String> {
    let mut problems = Vec::new();
    for process in running(instance) {
        if let Err(error) = process.stop(Duration::from_secs(2)) {
            problems.push(format!("{error:#}"));
        }
    }
    problems
}

fn running(instance: &Instance) -> Vec<Process> {
    let pids = fs::read_dir("/proc").into_iter().flatten().flatten();
    let pids = pids.filter_map(|entry| entry.file_name().to_str()?.parse::<i32>().ok());
    pids.filter(|pid| is_ours(*pid, instance)).filter_map(Process::of).collect()
}

fn is_ours(pid: i32, instance: &Instance) -> bool {
    let Ok(exe) = fs::read_link(format!("/proc/{pid}/exe")) else { return false };
    let name = exe.file_name().unwrap_or_default().to_string_lossy().into_owned();
    // A program that was rebuilt under a running process reads `corten-monitor (deleted)`.
    let name = name.strip_suffix(" (deleted)").unwrap_or(&name);
    // What runs from a sealed copy in memory reads `memfd:corten-monitor (deleted)`.
    let name = name.strip_prefix("memfd:").unwrap_or(name);
    let Ok(line) = fs::read(format!("/proc/{pid}/cmdline")) else { return false };
    OURS.contains(&name) && names_instance(&line, instance)
}

/// True when an argument is, or ends in, a path inside the instance (`--state=/x` and `/x/y` alike).
fn names_instance(cmdline: &[u8], instance: &Instance) -> bool {
    let inside = |arg: &[u8], dir: &Path| {
        let dir = dir.as_os_str().as_bytes();
        let value = arg
            .iter()
            .position(|b| *b == b'=')
            .map_or(arg, |at| if arg.starts_with(b"--") { &arg[at + 1..] } else { arg });
        value.strip_prefix(dir).is_some_and(|rest| rest.is_empty() || rest.starts_with(b"/"))
    };
    cmdline.split(|b| *b == 0).any(|arg| inside(arg, &instance.state) || inside(arg, &instance.root))
}

/// Unmounts everything below the instance's directories, innermost first.
pub fn mounts(instance: &Instance) -> Vec<String> {
    let mut problems = Vec::new();
    for point in mount_points(instance).iter().rev() {
        if let Err(error) = unmount(point, UnmountFlags::DETACH | UnmountFlags::NOFOLLOW) {
            problems.push(format!("cannot unmount {}: {error}", point.display()));
        }
    }
    problems
}

/// Mount points below the instance's directories, in the order in which they were mounted. Of the directories themselves
/// only the bind of `state` onto itself, which corten-cri makes where the host's mounts are shared: what else is mounted
/// there is the user's.
pub fn mount_points(instance: &Instance) -> Vec<PathBuf> {
    points_of(instance, &fs::read_to_string("/proc/self/mountinfo").unwrap_or_default())
}

/// Source: proc_pid_mountinfo(5).
fn points_of(instance: &Instance, table: &str) -> Vec<PathBuf> {
    let mounts = table.lines().filter_map(|line| {
        let mut fields = line.split(' ').skip(2);
        Some((fields.next()?, unescape(fields.next()?), unescape(fields.next()?)))
    });
    let mounts: Vec<(&str, PathBuf, PathBuf)> = mounts.collect();
    let below = |point: &Path| {
        [&instance.state, &instance.root].iter().any(|dir| point != *dir && point.starts_with(dir))
    };
    let onto_itself = |(device, root, point): &(&str, PathBuf, PathBuf)| {
        point == &instance.state
            && mounts.iter().any(|(other, other_root, around)| {
                let inside = point.strip_prefix(around).ok().filter(|inside| *inside != Path::new(""));
                other == device && inside.is_some_and(|inside| &other_root.join(inside) == root)
            })
    };
    let ours = mounts.iter().filter(|mount| below(&mount.2) || onto_itself(mount));
    ours.map(|mount| mount.2.clone()).collect()
}

/// mountinfo writes blank, tab, newline and backslash as three octal digits.
fn unescape(text: &str) -> PathBuf {
    let escapes = [("\\040", " "), ("\\011", "\t"), ("\\012", "\n"), ("\\134", "\\")];
    escapes.iter().fold(text.to_string(), |text, (code, plain)| text.replace(code, plain)).into()
}

/// Removes the cgroup `parent` in every hierarchy with all below it, killing what still runs inside.
pub fn cgroups(parent: &str) -> Vec<String> {
    let relative = parent.trim_matches('/');
    if relative.is_empty() {
        return vec![format!("cgroup parent {parent:?} is the root: nothing is removed")];
    }
    hierarchies().iter().flat_map(|mount| remove_cgroup(&mount.join(relative))).collect()
}

/// Mount points of cgroup file systems, v1 and v2.
pub fn hierarchies() -> Vec<PathBuf> {
    let table = fs::read_to_string("/proc/self/mountinfo").unwrap_or_default();
    let is_cgroup = |line: &&str| line.split(" - ").nth(1).is_some_and(|fs| fs.starts_with("cgroup"));
    table.lines().filter(is_cgroup).filter_map(|line| line.split(' ').nth(4)).map(unescape).collect()
}

fn remove_cgroup(dir: &Path) -> Vec<String> {
    if !dir.is_dir() {
        return Vec::new();
    }
    let children = fs::read_dir(dir).into_iter().flatten().flatten().map(|e| e.path()).filter(|p| p.is_dir());
    let mut problems: Vec<String> = children.flat_map(|child| remove_cgroup(&child)).collect();
    let deadline = Instant::now() + Duration::from_secs(5);
    // A cgroup stays busy for a moment after its last process was killed.
    loop {
        kill_members(dir);
        match fs::remove_dir(dir) {
            Ok(()) => break,
            Err(error) if error.kind() == ErrorKind::NotFound => break,
            Err(_) if Instant::now() < deadline => std::thread::sleep(Duration::from_millis(5)),
            Err(error) => {
                problems.push(format!("cannot remove cgroup {}: {error}", dir.display()));
                break;
            }
        }
    }
    problems
}

fn kill_members(dir: &Path) {
    let members = fs::read_to_string(dir.join("cgroup.procs")).unwrap_or_default();
    // A frozen process does not die of a signal on v1.
    let _ = fs::write(dir.join("freezer.state"), "THAWED");
    for process in members.lines().filter_map(|pid| pid.parse().ok()).filter_map(Process::of) {
        let _ = process.kill();
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn instance() -> Instance {
        Instance { root: "/var/lib/c".into(), state: "/run/c".into(), config: "/etc/c".into() }
    }

    #[test]
    fn a_command_line_names_an_instance_only_by_whole_path_components() {
        for (cmdline, ours) in [
            (&b"corten-monitor\0--dir\0/run/c/pods/1\0"[..], true),
            (b"corten-cri\0--state=/run/c\0", true),
            (b"corten-cri\0--root\0/var/lib/c\0", true),
            (b"corten-cri\0--state=/run/c2\0", false),
            (b"corten-cri\0/x/run/c\0", false),
            (b"corten-cri\0", false),
        ] {
            assert_eq!(names_instance(cmdline, &instance()), ours, "{}", String::from_utf8_lossy(cmdline));
        }
    }

    #[test]
    fn mount_points_with_blanks_are_read() {
        assert_eq!(unescape("/a\\040b\\134c"), Path::new("/a b\\c"));
    }

    #[test]
    fn of_the_directories_themselves_only_the_bind_of_state_onto_itself_is_ours() {
        let points = |mount: &str| {
            let table = format!(
                "1 0 8:1 / / rw - ext4 d rw\n2 1 0:5 / /run rw - tmpfs t rw\n{mount}\n\
                 9 2 0:4 net:[1] /run/c/netns/a rw - nsfs n rw\n"
            );
            points_of(&instance(), &table)
        };
        let (bind, pin) = (PathBuf::from("/run/c"), PathBuf::from("/run/c/netns/a"));
        assert_eq!(points("3 2 0:5 /c /run/c rw - tmpfs t rw"), [bind, pin.clone()]);
        for users in ["3 2 0:9 / /run/c rw - tmpfs t rw", "3 2 8:1 /data /run/c rw - ext4 d rw"] {
            assert_eq!(points(users), std::slice::from_ref(&pin), "{users}");
        }
    }

    #[test]
    fn the_root_cgroup_is_never_swept() {
        assert_eq!(cgroups("/").len(), 1);
    }
}
