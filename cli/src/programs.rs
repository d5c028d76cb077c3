//! Finds the other programs: beside this one, then in PATH.

use std::env;
use std::path::{Path, PathBuf};

use anyhow::{Result, bail};

/// What `up` starts or links, directly or not.
pub const NEEDED: [&str; 5] = ["corten-cri", "corten-monitor", "corten-kubelet", "corten-cni", "corten-demo"];

/// The file of program `name`.
pub fn find(name: &str) -> Result<PathBuf> {
    let own = env::current_exe().ok().and_then(|exe| exe.parent().map(Path::to_path_buf));
    let path = env::var_os("PATH").unwrap_or_default();
    let found = search(name, own.into_iter().chain(env::split_paths(&path)));
    found.map_or_else(|| bail!("program {name} is neither beside corten nor in PATH; install it there"), Ok)
}

fn search(name: &str, dirs: impl Iterator<Item = PathBuf>) -> Option<PathBuf> {
    dirs.map(|dir| dir.join(name)).find(|file| file.is_file())
}

/// `corten` where PATH finds this very program, else the path to it.
pub fn own_name() -> String {
    let Ok(own) = env::current_exe() else { return "corten".into() };
    let path = env::var_os("PATH").unwrap_or_default();
    let in_path = search("corten", env::split_paths(&path)).and_then(|file| file.canonicalize().ok());
    if in_path.as_deref() == Some(&own) {
        return "corten".into();
    }
    let short = env::current_dir().ok().and_then(|dir| own.strip_prefix(dir).ok().map(Path::to_path_buf));
    short.unwrap_or(own).display().to_string()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_first_directory_that_has_it_wins() {
        let (a, b) = (tempfile::tempdir().unwrap(), tempfile::tempdir().unwrap());
        let dirs = || [a.path(), b.path()].map(Path::to_path_buf).into_iter();
        assert_eq!(search("x", dirs()), None);
        std::fs::write(b.path().join("x"), "").unwrap();
        assert_eq!(search("x", dirs()), Some(b.path().join("x")));
        std::fs::write(a.path().join("x"), "").unwrap();
        assert_eq!(search("x", dirs()), Some(a.path().join("x")));
    }
}
