//! The directory with our pins: `<map>`, `programs/<program>`, `links/<how>-<program>-<ifindex>`.

use std::fs;
use std::io;
use std::path::{Path, PathBuf};

use corten_ebpf_layout::datapath::Hook;

use super::attach::{Attached, How};
use super::{DatapathError, program_name};
use crate::link::is_bpffs;

#[derive(Debug)]
pub struct Pins {
    directory: PathBuf,
}

impl Pins {
    /// Makes the directories.
    pub fn open(directory: &Path) -> Result<Self, DatapathError> {
        let pins = Self { directory: directory.to_path_buf() };
        fs::create_dir_all(directory).map_err(failed("make", directory))?;
        if !is_bpffs(directory) {
            return Err(DatapathError::NotBpffs { path: directory.to_path_buf() });
        }
        for below in [pins.directory.join("programs"), pins.links_directory()] {
            fs::create_dir_all(&below).map_err(failed("make", &below))?;
        }
        Ok(pins)
    }

    /// Without making anything.
    pub fn at(directory: &Path) -> Self {
        Self { directory: directory.to_path_buf() }
    }

    pub fn map(&self, name: &str) -> PathBuf {
        self.directory.join(name)
    }

    pub fn program(&self, hook: Hook) -> PathBuf {
        self.directory.join("programs").join(program_name(hook))
    }

    pub fn links_directory(&self) -> PathBuf {
        self.directory.join("links")
    }

    pub fn link(&self, link: Attached) -> PathBuf {
        self.links_directory().join(link_name(link))
    }

    /// What is pinned as attached, also to interfaces that are gone.
    pub fn links(&self) -> Result<Vec<Attached>, DatapathError> {
        let directory = self.links_directory();
        let entries = match fs::read_dir(&directory) {
            Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(Vec::new()),
            other => other.map_err(failed("list", &directory))?,
        };
        let mut links = Vec::new();
        for entry in entries {
            let entry = entry.map_err(failed("list", &directory))?;
            links.extend(entry.file_name().to_str().and_then(parse_link_name));
        }
        links.sort();
        Ok(links)
    }
}

/// Removes a pin; what is gone is no error.
pub fn unlink(path: &Path) -> Result<(), DatapathError> {
    match fs::remove_file(path) {
        Err(error) if error.kind() != io::ErrorKind::NotFound => Err(failed("remove", path)(error)),
        _ => Ok(()),
    }
}

/// The error of `what` done to `path`.
pub fn failed(what: &'static str, path: &Path) -> impl FnOnce(io::Error) -> DatapathError {
    let path = path.to_path_buf();
    move |source| DatapathError::Path { what, path, source }
}

// bpffs keeps names with a dot to itself.
fn link_name(link: Attached) -> String {
    let how = match link.how {
        How::Tcx => "tcx",
        How::Clsact => "clsact",
    };
    format!("{how}-{}-{}", program_name(link.hook), link.ifindex)
}

fn parse_link_name(name: &str) -> Option<Attached> {
    let mut parts = name.split('-');
    let how = match parts.next()? {
        "tcx" => How::Tcx,
        "clsact" => How::Clsact,
        _ => return None,
    };
    let program = parts.next()?;
    let hook = [Hook::FromPod, Hook::FromNic].into_iter().find(|hook| program_name(*hook) == program)?;
    let ifindex = parts.next()?.parse().ok()?;
    parts.next().is_none().then_some(Attached { hook, ifindex, how })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_name_of_a_link_tells_what_is_attached_where() {
        let link = Attached { hook: Hook::FromPod, ifindex: 17, how: How::Tcx };
        assert_eq!(link_name(link), "tcx-from_pod-17");
        assert_eq!(parse_link_name("tcx-from_pod-17"), Some(link));
        let link = Attached { hook: Hook::FromNic, ifindex: 2, how: How::Clsact };
        assert_eq!(parse_link_name(&link_name(link)), Some(link));
        for other in
            ["", "tcx", "tcx-from_pod", "tcx-from_pod-x", "tcx-other-1", "tcx-from_pod-1-2", "x-from_pod-1"]
        {
            assert_eq!(parse_link_name(other), None, "{other}");
        }
    }
}
