//! The built-in image: an OCI layout around the program `corten-demo`, so that the first pod needs no registry.

use std::fs;
use std::path::Path;

use anyhow::{Context, Result};
use serde_json::{Value, json};
use sha2::{Digest, Sha256};

/// `corten.local` is no host: nothing of that name is ever pulled.
pub const REFERENCE: &str = "corten.local/demo:0.1";

/// Writes the layout to the directory `layout`, which [`remove`] takes away again. The same program gives the same
/// image, byte by byte.
pub fn write(program: &Path, layout: &Path) -> Result<()> {
    remove(layout)?;
    let binary = fs::read(program).with_context(|| format!("cannot read {}", program.display()))?;
    let write = || -> Result<()> {
        fs::create_dir_all(layout.join("blobs/sha256"))?;
        let layer = layer(&binary)?;
        let layer_digest = blob(layout, &layer)?;
        let config = serde_json::to_vec(&json!({
            "architecture": if cfg!(target_arch = "aarch64") { "arm64" } else { "amd64" },
            "os": "linux",
            "config": {
                "Entrypoint": ["/corten-demo"],
                "Env": ["PATH=/"],
                "User": "65534:65534",
                "ExposedPorts": { "8080/tcp": {} }
            },
            "rootfs": { "type": "layers", "diff_ids": [layer_digest] }
        }))?;
        let manifest = serde_json::to_vec(&json!({
            "schemaVersion": 2,
            "mediaType": "application/vnd.oci.image.manifest.v1+json",
            "config": descriptor("config.v1+json", &blob(layout, &config)?, config.len()),
            "layers": [descriptor("layer.v1.tar", &layer_digest, layer.len())]
        }))?;
        let mut index = descriptor("manifest.v1+json", &blob(layout, &manifest)?, manifest.len());
        index["annotations"] = json!({ "org.opencontainers.image.ref.name": REFERENCE });
        fs::write(
            layout.join("index.json"),
            serde_json::to_vec(&json!({ "schemaVersion": 2, "manifests": [index] }))?,
        )?;
        fs::write(layout.join("oci-layout"), br#"{"imageLayoutVersion":"1.0.0"}"#)?;
        Ok(())
    };
    write().with_context(|| format!("cannot write the built-in image to {}", layout.display()))
}

pub fn remove(layout: &Path) -> Result<()> {
    match fs::remove_dir_all(layout) {
        Err(error) if error.kind() != std::io::ErrorKind::NotFound => {
            Err(error).with_context(|| format!("cannot remove {}", layout.display()))
        }
        _ => Ok(()),
    }
}

fn layer(binary: &[u8]) -> Result<Vec<u8>> {
    let mut archive = tar::Builder::new(Vec::new());
    for dir in ["dev", "etc", "proc", "sys", "tmp"] {
        let mode = if dir == "tmp" { 0o1777 } else { 0o755 };
        archive.append_data(&mut header(tar::EntryType::Directory, mode, 0), format!("{dir}/"), &[][..])?;
    }
    let passwd: &[u8] = b"root:x:0:0:root:/:/sbin/nologin\nnobody:x:65534:65534:nobody:/:/sbin/nologin\n";
    for (name, mode, data) in [("etc/passwd", 0o644, passwd), ("corten-demo", 0o755, binary)] {
        archive.append_data(&mut header(tar::EntryType::Regular, mode, data.len()), name, data)?;
    }
    Ok(archive.into_inner()?)
}

fn header(kind: tar::EntryType, mode: u32, size: usize) -> tar::Header {
    let mut header = tar::Header::new_ustar();
    header.set_entry_type(kind);
    header.set_mode(mode);
    header.set_size(size as u64);
    header.set_mtime(0);
    header.set_uid(0);
    header.set_gid(0);
    header
}

fn blob(layout: &Path, bytes: &[u8]) -> Result<String> {
    let hex: String =
        Sha256::digest(bytes).iter().fold(String::new(), |hex, byte| hex + &format!("{byte:02x}"));
    fs::write(layout.join("blobs/sha256").join(&hex), bytes)?;
    Ok(format!("sha256:{hex}"))
}

fn descriptor(kind: &str, digest: &str, size: usize) -> Value {
    json!({ "mediaType": format!("application/vnd.oci.image.{kind}"), "digest": digest, "size": size })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_layout_hangs_together_and_is_reproducible() {
        let dir = tempfile::tempdir().unwrap();
        let (program, layout) = (dir.path().join("corten-demo"), dir.path().join("layout"));
        fs::write(&program, b"\x7fELF demo").unwrap();
        write(&program, &layout).unwrap();
        let read =
            |file: &str| -> Value { serde_json::from_slice(&fs::read(layout.join(file)).unwrap()).unwrap() };
        let blob = |d: &Value| layout.join("blobs").join(d["digest"].as_str().unwrap().replace(':', "/"));
        let index = read("index.json");
        let manifest: Value =
            serde_json::from_slice(&fs::read(blob(&index["manifests"][0])).unwrap()).unwrap();
        let config: Value = serde_json::from_slice(&fs::read(blob(&manifest["config"])).unwrap()).unwrap();
        assert_eq!(
            config["rootfs"]["diff_ids"][0], manifest["layers"][0]["digest"],
            "an uncompressed layer is its own diff"
        );
        let layer = fs::read(blob(&manifest["layers"][0])).unwrap();
        assert_eq!(manifest["layers"][0]["size"], layer.len());
        let mut archive = tar::Archive::new(layer.as_slice());
        let names: Vec<_> =
            archive.entries().unwrap().map(|e| e.unwrap().path().unwrap().into_owned()).collect();
        assert!(names.contains(&"corten-demo".into()) && names.contains(&"etc/passwd".into()), "{names:?}");
        write(&program, &layout).unwrap();
        assert_eq!(read("index.json"), index);
    }
}
