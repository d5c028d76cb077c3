//! Builds an image from files in memory and writes it as an OCI layout tar. Reproducible: equal input, equal bytes.

use std::io::{self, Write};
use std::path::Path;

use serde_json::json;

use crate::digest::Digest;
use crate::manifest::{self, Descriptor, ImageManifest};
use crate::platform::Platform;
use crate::reference::Reference;

/// A regular file of root's.
pub struct ImageFile<'a> {
    /// Without leading slash.
    pub path: &'a str,
    pub mode: u32,
    pub content: &'a [u8],
}

/// The part of an image config that says how to run it.
#[derive(Debug, Clone, Default)]
pub struct RunConfig {
    pub entrypoint: Vec<String>,
    pub cmd: Vec<String>,
    pub env: Vec<String>,
    pub user: String,
    pub working_dir: String,
    /// `8080/tcp`.
    pub exposed_ports: Vec<String>,
    pub labels: Vec<(String, String)>,
}

/// Writes an image of one layer as an OCI layout tar, which [`crate::ImageStore::import`] and other tools read.
pub fn write_oci_archive(
    path: &Path,
    name: &Reference,
    files: &[ImageFile<'_>],
    run: &RunConfig,
) -> io::Result<()> {
    let layer = layer(files)?;
    let config = config(run, Digest::of(&layer));
    let describe = |media_type: &str, bytes: &[u8]| Descriptor {
        media_type: media_type.to_owned(),
        digest: Digest::of(bytes),
        size: bytes.len() as u64,
        platform: None,
        annotations: None,
    };
    let manifest = manifest::encode(&ImageManifest {
        config: describe(manifest::OCI_CONFIG, &config),
        layers: vec![describe(manifest::OCI_LAYER, &layer)],
    });
    let entry = Descriptor {
        platform: Some(Platform::host()),
        annotations: Some([("io.containerd.image.name".to_owned(), name.to_string())].into()),
        ..describe(manifest::OCI_MANIFEST, &manifest)
    };
    let index = json!({ "schemaVersion": 2, "mediaType": manifest::OCI_INDEX, "manifests": [entry] });
    let mut archive = tar::Builder::new(io::BufWriter::new(std::fs::File::create(path)?));
    add(&mut archive, "oci-layout", 0o644, br#"{"imageLayoutVersion":"1.0.0"}"#)?;
    add(&mut archive, "index.json", 0o644, index.to_string().as_bytes())?;
    for blob in [&layer, &config, &manifest] {
        add(&mut archive, &format!("blobs/sha256/{}", Digest::of(blob).hex()), 0o644, blob)?;
    }
    archive.into_inner()?.flush()
}

fn layer(files: &[ImageFile<'_>]) -> io::Result<Vec<u8>> {
    let mut layer = tar::Builder::new(Vec::new());
    let mut made = std::collections::BTreeSet::new();
    for file in files {
        let parents: Vec<_> =
            Path::new(file.path).ancestors().skip(1).filter(|p| !p.as_os_str().is_empty()).collect();
        for parent in parents.into_iter().rev() {
            if made.insert(parent.to_owned()) {
                let mut header = header(0o755, 0);
                header.set_entry_type(tar::EntryType::Directory);
                layer.append_data(&mut header, parent, io::empty())?;
            }
        }
        add(&mut layer, file.path, file.mode, file.content)?;
    }
    layer.into_inner()
}

fn add(archive: &mut tar::Builder<impl Write>, path: &str, mode: u32, content: &[u8]) -> io::Result<()> {
    archive.append_data(&mut header(mode, content.len() as u64), path, content)
}

fn header(mode: u32, size: u64) -> tar::Header {
    let mut header = tar::Header::new_gnu();
    header.set_mode(mode);
    header.set_size(size);
    header.set_mtime(0);
    header.set_uid(0);
    header.set_gid(0);
    header
}

fn config(run: &RunConfig, diff_id: Digest) -> Vec<u8> {
    let Platform { os, architecture, .. } = Platform::host();
    let ports: serde_json::Map<_, _> =
        run.exposed_ports.iter().map(|port| (port.clone(), json!({}))).collect();
    let labels: serde_json::Map<_, _> =
        run.labels.iter().map(|(key, value)| (key.clone(), json!(value))).collect();
    let config = json!({
        "created": "1970-01-01T00:00:00Z",
        "os": os,
        "architecture": architecture,
        "config": {
            "Entrypoint": run.entrypoint,
            "Cmd": run.cmd,
            "Env": run.env,
            "User": run.user,
            "WorkingDir": run.working_dir,
            "ExposedPorts": ports,
            "Labels": labels,
        },
        "rootfs": { "type": "layers", "diff_ids": [diff_id] },
    });
    config.to_string().into_bytes()
}
