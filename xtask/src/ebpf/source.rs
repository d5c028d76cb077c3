//! The sources that the object is made of, as one digest: both cargo packages with their lock file.

use std::fmt::Write as _;
use std::fs;
use std::path::{Path, PathBuf};

use anyhow::{Context, Result};
use sha2::{Digest, Sha256};

/// The packages, relative to the root; `rust-toolchain.toml` decides on the compiler.
const INPUTS: [&str; 3] = ["ebpf/layout", "ebpf/programs", "rust-toolchain.toml"];

/// The digest over name, length and content of every source file, in the order of their names.
pub fn digest(root: &Path) -> Result<String> {
    let mut files = Vec::new();
    for input in INPUTS {
        collect(&root.join(input), &mut files)?;
    }
    files.sort();
    let mut hash = Sha256::new();
    for file in files {
        let content = fs::read(&file).with_context(|| format!("cannot read {}", file.display()))?;
        let name = file.strip_prefix(root).expect("collected below the root").to_string_lossy().into_owned();
        hash.update(format!("{name} {}\n", content.len()));
        hash.update(content);
    }
    Ok(hex(&hash.finalize()))
}

pub fn digest_of(bytes: &[u8]) -> String {
    hex(&Sha256::digest(bytes))
}

/// Every file below `path` that cargo may read, and the lock file; not what cargo writes.
fn collect(path: &Path, files: &mut Vec<PathBuf>) -> Result<()> {
    if path.is_file() {
        files.push(path.to_path_buf());
        return Ok(());
    }
    for entry in fs::read_dir(path).with_context(|| format!("cannot list {}", path.display()))? {
        let path = entry?.path();
        let kept = path
            .extension()
            .is_some_and(|extension| matches!(extension.to_str(), Some("rs" | "toml" | "lock")));
        if (path.is_dir() && path.file_name() != Some("target".as_ref())) || kept {
            collect(&path, files)?;
        }
    }
    Ok(())
}

fn hex(bytes: &[u8]) -> String {
    bytes.iter().fold(String::new(), |mut text, byte| {
        write!(text, "{byte:02x}").expect("a String takes all");
        text
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_digest_is_lower_case_hex() {
        assert_eq!(digest_of(b""), "e3b0c44298fc1c149afbf4c8996fb92427ae41e4649b934ca495991b7852b855");
    }

    #[test]
    fn the_digest_sees_sources_and_ignores_what_cargo_writes() {
        let root = std::env::temp_dir().join(format!("corten-xtask-source-{}", std::process::id()));
        for dir in ["ebpf/layout/src", "ebpf/programs/src", "ebpf/programs/target"] {
            fs::create_dir_all(root.join(dir)).unwrap();
        }
        fs::write(root.join("rust-toolchain.toml"), "").unwrap();
        fs::write(root.join("ebpf/layout/src/lib.rs"), "a").unwrap();
        let first = digest(&root).unwrap();
        fs::write(root.join("ebpf/programs/target/x.rs"), "built").unwrap();
        assert_eq!(digest(&root).unwrap(), first);
        fs::write(root.join("ebpf/programs/src/x.rs"), "a").unwrap();
        let second = digest(&root).unwrap();
        assert_ne!(second, first);
        fs::rename(root.join("ebpf/programs/src/x.rs"), root.join("ebpf/programs/src/y.rs")).unwrap();
        assert_ne!(digest(&root).unwrap(), second);
        fs::remove_dir_all(&root).unwrap();
    }
}
