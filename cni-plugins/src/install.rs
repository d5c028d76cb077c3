//! `corten-cni install`: the plugins as files of a directory, all of them this one program.

use std::fs;
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};

use corten_sys::Context;

use crate::Result;
use crate::plugin;

/// Makes `dir`/corten-cni from `program`, and a hard link of it (or a copy, where links are impossible) by the name
/// of every plugin. Each file is replaced by rename, so a runtime that runs a plugin meanwhile finds one or the other.
pub fn install(program: &Path, dir: &Path) -> Result<Vec<PathBuf>> {
    fs::create_dir_all(dir).tried(|| format!("create {}", dir.display()))?;
    let main = dir.join("corten-cni");
    replace(&main, |new| fs::copy(program, new).map(drop))?;
    let mut made = vec![main.clone()];
    for plugin in plugin::ALL {
        let path = dir.join(plugin.name);
        replace(&path, |new| fs::hard_link(&main, new).or_else(|_| fs::copy(&main, new).map(drop)))?;
        made.push(path);
    }
    Ok(made)
}

fn replace(path: &Path, make: impl FnOnce(&Path) -> std::io::Result<()>) -> Result<()> {
    let new = path.with_extension("corten-new");
    let _ = fs::remove_file(&new);
    make(&new).tried(|| format!("write {}", new.display()))?;
    fs::set_permissions(&new, fs::Permissions::from_mode(0o755))
        .tried(|| format!("make {} executable", new.display()))?;
    fs::rename(&new, path).tried(|| format!("rename {} to {}", new.display(), path.display()))?;
    // Renaming one hard link onto another of the same file does nothing and leaves both names.
    let _ = fs::remove_file(&new);
    Ok(())
}
