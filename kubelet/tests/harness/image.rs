//! A small image of static busybox, as a `docker save` archive.

use std::path::Path;

use serde_json::json;
use sha2::{Digest, Sha256};

pub const BUSYBOX: &str = "corten.test/busybox:1";
pub const PAUSE: &str = "corten.test/pause:1";

const APPLETS: [&str; 16] = [
    "sh", "sleep", "cat", "echo", "touch", "test", "rm", "httpd", "date", "id", "hostname", "ls", "mkdir",
    "true", "false", "nc",
];

/// Writes an archive with both images.
pub fn archive(file: &Path) -> std::io::Result<()> {
    let layer = layer()?;
    let digest: String =
        Sha256::digest(&layer).iter().map(|b| format!("{b:02x}")).collect::<Vec<_>>().concat();
    let config = |command: &[&str]| {
        json!({"architecture": "amd64", "os": "linux", "config": {"Cmd": command, "Env": ["PATH=/bin"]},
            "rootfs": {"type": "layers", "diff_ids": [format!("sha256:{digest}")]}, "history": [{}]})
        .to_string()
        .into_bytes()
    };
    let manifest = json!([
        {"Config": "busybox.json", "RepoTags": [BUSYBOX], "Layers": ["layer.tar"]},
        {"Config": "pause.json", "RepoTags": [PAUSE], "Layers": ["layer.tar"]},
    ]);
    let mut tar = tar::Builder::new(std::fs::File::create(file)?);
    append(&mut tar, "busybox.json", 0o644, &config(&["sh"]))?;
    append(&mut tar, "pause.json", 0o644, &config(&["sleep", "1000000"]))?;
    append(&mut tar, "layer.tar", 0o644, &layer)?;
    append(&mut tar, "manifest.json", 0o644, manifest.to_string().as_bytes())?;
    tar.finish()
}

fn layer() -> std::io::Result<Vec<u8>> {
    let mut tar = tar::Builder::new(Vec::new());
    for dir in ["bin/", "etc/", "tmp/", "proc/", "sys/", "dev/"] {
        let mut header = header(0o1777, 0);
        header.set_entry_type(tar::EntryType::Directory);
        tar.append_data(&mut header, dir, std::io::empty())?;
    }
    append(&mut tar, "bin/busybox", 0o755, &std::fs::read("/bin/busybox")?)?;
    for applet in APPLETS {
        let mut header = header(0o777, 0);
        header.set_entry_type(tar::EntryType::Symlink);
        tar.append_link(&mut header, format!("bin/{applet}"), "busybox")?;
    }
    append(&mut tar, "etc/passwd", 0o644, b"root:x:0:0:root:/:/bin/sh\n")?;
    append(&mut tar, "etc/group", 0o644, b"root:x:0:\n")?;
    tar.into_inner()
}

fn append<W: std::io::Write>(
    tar: &mut tar::Builder<W>,
    name: &str,
    mode: u32,
    bytes: &[u8],
) -> std::io::Result<()> {
    tar.append_data(&mut header(mode, bytes.len() as u64), name, bytes)
}

fn header(mode: u32, size: u64) -> tar::Header {
    let mut header = tar::Header::new_gnu();
    header.set_mode(mode);
    header.set_size(size);
    header
}
