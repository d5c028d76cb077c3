//! The images that lanes and benchmarks pull: built from Debian packages, pushed to a real registry's storage, kept.

use std::fs;
use std::process::Command;
use std::time::Instant;

use anyhow::{Context, Result};

use crate::project::{cache_dir, root};
use crate::{run, say};

/// Builds the images unless the script that makes them has not changed since.
pub fn ensure() -> Result<()> {
    let start = Instant::now();
    let script = root().join("test-vm/tools/make-test-images.py");
    let text = fs::read_to_string(&script).with_context(|| format!("cannot read {}", script.display()))?;
    let (layouts, registry) = (cache_dir().join("images"), cache_dir().join("registry"));
    // Written last: a build that was interrupted counts for nothing.
    let stamp = registry.join("made-by");
    if fs::read_to_string(&stamp).is_ok_and(|made_by| made_by == text) {
        say::ok("images", "kept from the last run", start.elapsed());
        return Ok(());
    }
    for dir in [&layouts, &registry] {
        if dir.exists() {
            fs::remove_dir_all(dir).with_context(|| format!("cannot remove {}", dir.display()))?;
        }
    }
    let mut make = Command::new("python3");
    make.arg(&script).arg(&layouts).arg(registry.join("storage"));
    let count = run::output(&mut make).context("cannot build the test images")?;
    fs::write(&stamp, text).with_context(|| format!("cannot write {}", stamp.display()))?;
    say::ok("images", &format!("{} built and pushed to a registry", count.trim()), start.elapsed());
    Ok(())
}
