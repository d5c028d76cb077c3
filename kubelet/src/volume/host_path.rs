//! `hostPath`: a path of the node, checked to be of the type the manifest says (upstream `volume/hostpath`).

use std::fs::FileType;
use std::os::unix::fs::{FileTypeExt, OpenOptionsExt, PermissionsExt};
use std::path::Path;

use corten_sys::errno::Failure;
use k8s_openapi::api::core::v1::HostPathVolumeSource;

use super::VolumeError;

/// Checks the path, and makes it where the type says so.
pub fn check(volume: &str, source: &HostPathVolumeSource) -> Result<(), VolumeError> {
    let path = Path::new(&source.path);
    let wanted = match source.type_.as_deref().unwrap_or_default() {
        // Anything, also nothing: the runtime makes a directory.
        "" => return Ok(()),
        "DirectoryOrCreate" => {
            make(volume, path, |p| {
                std::fs::create_dir_all(p)?;
                std::fs::set_permissions(p, std::fs::Permissions::from_mode(0o755))
            })?;
            "directory"
        }
        "FileOrCreate" => {
            make(volume, path, |p| {
                std::fs::OpenOptions::new().write(true).create_new(true).mode(0o644).open(p).map(|_| ())
            })?;
            "file"
        }
        "Directory" => "directory",
        "File" => "file",
        "Socket" => "socket",
        "CharDevice" => "character device",
        _ => "block device",
    };
    let found =
        std::fs::metadata(path).map_err(|error| failed(volume, format!("stat {}", source.path), error))?;
    if is(found.file_type(), wanted) {
        return Ok(());
    }
    Err(VolumeError::HostPathType { volume: volume.into(), path: source.path.clone(), wanted })
}

fn make(volume: &str, path: &Path, make: impl Fn(&Path) -> std::io::Result<()>) -> Result<(), VolumeError> {
    if path.exists() {
        return Ok(());
    }
    make(path).map_err(|error| failed(volume, format!("create {}", path.display()), error))
}

fn failed(volume: &str, tried: String, error: std::io::Error) -> VolumeError {
    VolumeError::Failed { volume: volume.into(), source: Failure::new(tried, error) }
}

fn is(found: FileType, wanted: &str) -> bool {
    match wanted {
        "directory" => found.is_dir(),
        "file" => found.is_file(),
        "socket" => found.is_socket(),
        "character device" => found.is_char_device(),
        _ => found.is_block_device(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn types_are_checked_and_made() {
        let dir = tempfile::tempdir().expect("dir");
        let path = |name: &str| dir.path().join(name).display().to_string();
        std::fs::write(dir.path().join("f"), "").expect("file");
        let _socket = std::os::unix::net::UnixListener::bind(dir.path().join("s")).expect("socket");
        let check = |path: String, kind: &str| {
            super::check("v", &HostPathVolumeSource { path, type_: Some(kind.into()) })
                .err()
                .map(|e| e.to_string())
        };
        assert_eq!(check(path("none"), ""), None);
        assert_eq!(check(path(""), "Directory"), None);
        assert_eq!(check(path("f"), "File"), None);
        assert_eq!(check(path("s"), "Socket"), None);
        assert_eq!(check("/dev/null".into(), "CharDevice"), None);
        assert_eq!(check(path("new/dir"), "DirectoryOrCreate"), None);
        assert_eq!(check(path("newfile"), "FileOrCreate"), None);
        assert!(dir.path().join("new/dir").is_dir() && dir.path().join("newfile").is_file());
        assert_eq!(
            check(path("f"), "Directory"),
            Some(format!("volume \"v\": hostPath type check failed: {} is not a directory", path("f")))
        );
        assert!(
            check("/dev/null".into(), "BlockDevice").is_some_and(|e| e.ends_with("is not a block device"))
        );
        assert!(check(path("none"), "File").is_some_and(|e| e.contains("ENOENT")));
    }
}
