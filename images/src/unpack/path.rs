//! Names of layer entries: hostile bytes to a checked relative path, and overlayfs' reading of whiteout names. Pure.

use super::error::UnpackError;

const MAX_PATH_BYTES: usize = 4096;
const MAX_NAME_BYTES: usize = 255;

/// `./a//b/` and `/a/b` → `a/b`; the root is empty. A leading `/` means the image's root, as for Docker and
/// containerd (ko names its entries so). `..` is refused wherever it stands.
pub fn clean(raw: &[u8], depth: usize) -> Result<Vec<u8>, UnpackError> {
    let problem = |problem: &str| UnpackError::Entry { path: raw.into(), problem: problem.into() };
    if raw.len() > MAX_PATH_BYTES {
        return Err(problem("path is longer than 4096 bytes"));
    }
    if raw.contains(&0) {
        return Err(problem("path contains a NUL byte"));
    }
    let mut clean = Vec::with_capacity(raw.len());
    let mut components = 0;
    for component in raw.split(|&byte| byte == b'/') {
        match component {
            b"" | b"." => continue,
            b".." => return Err(UnpackError::Escape { path: raw.into(), how: "its path contains `..`" }),
            name if name.len() > MAX_NAME_BYTES => {
                return Err(problem("a name in it is longer than 255 bytes"));
            }
            _ => components += 1,
        }
        if components > depth {
            return Err(UnpackError::Limit { what: "components in one path", limit: depth as u64 });
        }
        if !clean.is_empty() {
            clean.push(b'/');
        }
        clean.extend_from_slice(component);
    }
    Ok(clean)
}

/// Parent and last component of a clean path; `None` for the root.
pub fn split(path: &[u8]) -> Option<(&[u8], &[u8])> {
    if path.is_empty() {
        return None;
    }
    Some(match path.iter().rposition(|&byte| byte == b'/') {
        Some(slash) => (&path[..slash], &path[slash + 1..]),
        None => (&[], path),
    })
}

pub fn join(parent: &[u8], name: &[u8]) -> Vec<u8> {
    if parent.is_empty() { name.to_vec() } else { [parent, b"/", name].concat() }
}

#[derive(Debug, PartialEq, Eq)]
pub enum Marker<'a> {
    /// The directory hides what is below it.
    Opaque,
    /// Removes this name of the layers below.
    Whiteout(&'a [u8]),
    /// Bookkeeping of aufs (`.wh..wh.plnk`, ...): no part of the image.
    Aufs,
}

/// Source: OCI image-spec layer.md "Whiteouts".
pub fn marker(name: &[u8]) -> Option<Marker<'_>> {
    match name.strip_prefix(b".wh.")? {
        b".wh..opq" => Some(Marker::Opaque),
        hidden if hidden.starts_with(b".wh.") => Some(Marker::Aufs),
        hidden => Some(Marker::Whiteout(hidden)),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn paths_are_relative_to_the_image_whatever_they_look_like() {
        for (raw, want) in [
            ("./", ""),
            ("/", ""),
            ("a/b", "a/b"),
            ("./a//b/.", "a/b"),
            ("/etc/passwd", "etc/passwd"),
            ("...", "..."),
        ] {
            assert_eq!(clean(raw.as_bytes(), 8).unwrap(), want.as_bytes(), "{raw}");
        }
        for raw in ["..", "../x", "a/../b", "/..", "a/.."] {
            assert!(matches!(clean(raw.as_bytes(), 8), Err(UnpackError::Escape { .. })), "{raw}");
        }
        assert!(matches!(clean(b"a/b/c", 2), Err(UnpackError::Limit { .. })));
        assert!(clean(b"a\0b", 8).is_err());
        assert!(clean(&[b'a'; 256], 8).is_err());
    }

    #[test]
    fn whiteout_names() {
        assert_eq!(marker(b"x"), None);
        assert_eq!(marker(b".wh.x"), Some(Marker::Whiteout(b"x")));
        assert_eq!(marker(b".wh..wh..opq"), Some(Marker::Opaque));
        assert_eq!(marker(b".wh..wh.plnk"), Some(Marker::Aufs));
        assert_eq!(marker(b".wh..."), Some(Marker::Whiteout(b"..")));
    }
}
