//! The pause process: it holds a pod's namespaces, and reaps orphans where it is PID 1 of a shared PID namespace.

use std::fs;
use std::io;
use std::os::unix::fs::PermissionsExt;
use std::path::Path;

use corten_sys::process;
use nix::sys::signal::{SigSet, Signal};

/// Whether the program was called as the pause process: by the name `pause`, or by that argument.
pub fn is_called(mut arguments: impl Iterator<Item = std::ffi::OsString>) -> bool {
    let name = arguments.next().unwrap_or_default();
    Path::new(&name).file_name().is_some_and(|name| name == "pause")
        || arguments.next().is_some_and(|a| a == "pause")
}

/// Waits until SIGTERM or SIGINT. As PID 1 it gets them only because it blocks them (a default action is not taken).
pub fn run() -> io::Result<()> {
    let mut signals = SigSet::empty();
    for signal in [Signal::SIGTERM, Signal::SIGINT, Signal::SIGCHLD] {
        signals.add(signal);
    }
    signals.thread_block()?;
    while signals.wait()? == Signal::SIGCHLD {
        while process::reap_any()?.is_some() {}
    }
    Ok(())
}

/// Makes the root filesystem of pause containers: a copy of `program` as `/pause` and the directories that are mounted
/// over. A copy, since who shares a PID namespace with it can open its /proc/PID/exe, and write to it once it has ended
/// (the shape of CVE-2019-5736): no program of the host may lie behind that. Safe to repeat, also while pods run.
pub fn install_rootfs(dir: &Path, program: &Path) -> io::Result<()> {
    for name in ["dev", "proc", "sys", "etc"] {
        fs::create_dir_all(dir.join(name))?;
    }
    // The pause process is nobody: it must be able to pass. Who may come here at all is the parents' affair.
    fs::set_permissions(dir, fs::Permissions::from_mode(0o755))?;
    let (target, temporary) = (dir.join("pause"), dir.join(".pause"));
    if same_content(program, &target)? {
        return Ok(());
    }
    // Renamed over the old one, which running pods keep.
    fs::copy(program, &temporary)?;
    fs::set_permissions(&temporary, fs::Permissions::from_mode(0o555))?;
    fs::rename(&temporary, &target)
}

fn same_content(program: &Path, target: &Path) -> io::Result<bool> {
    match fs::metadata(target) {
        Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(false),
        Err(error) => Err(error),
        Ok(there) => {
            Ok(there.len() == fs::metadata(program)?.len() && fs::read(program)? == fs::read(target)?)
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn pause_is_called_by_name_or_argument() {
        let called = |words: &[&str]| is_called(words.iter().map(Into::into));
        assert!(called(&["/pause"]) && called(&["pause"]) && called(&["corten-monitor", "pause"]));
        assert!(!called(&["corten-monitor", "serve"]) && !called(&["/x/pauser"]) && !called(&[]));
    }

    #[test]
    fn the_rootfs_holds_a_copy_that_is_renewed_only_when_it_differs() {
        use std::os::unix::fs::MetadataExt;
        let dir = tempfile::tempdir().unwrap();
        let (program, rootfs) = (dir.path().join("program"), dir.path().join("rootfs"));
        fs::write(&program, "one").unwrap();
        install_rootfs(&rootfs, &program).unwrap();
        let first = fs::metadata(rootfs.join("pause")).unwrap();
        assert_ne!(first.ino(), fs::metadata(&program).unwrap().ino());
        assert_eq!(first.permissions().mode() & 0o777, 0o555);
        install_rootfs(&rootfs, &program).unwrap();
        assert_eq!(fs::metadata(rootfs.join("pause")).unwrap().ino(), first.ino());
        fs::write(&program, "two").unwrap();
        install_rootfs(&rootfs, &program).unwrap();
        assert_eq!(fs::read(rootfs.join("pause")).unwrap(), b"two");
    }
}
