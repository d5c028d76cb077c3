//! The demo image: one static program (`images/demo`), so that the first pod needs no registry.

use std::io;
use std::path::Path;

use crate::archive::{ImageFile, RunConfig, write_oci_archive};
use crate::reference::Reference;

/// What manifests call it.
pub const NAME: &str = "corten.local/demo:0.1";
/// Nobody in particular; as in distroless images.
const USER: &str = "65532:65532";

/// Writes the demo image as an OCI layout tar to `archive`; `program` is the static `corten-demo`.
pub fn write_archive(program: &Path, archive: &Path) -> io::Result<()> {
    let program = std::fs::read(program)?;
    let file = |path, mode, content| ImageFile { path, mode, content };
    let files = [
        file("corten-demo", 0o755, &program[..]),
        file(
            "etc/passwd",
            0o644,
            b"root:x:0:0:root:/:/sbin/nologin\ndemo:x:65532:65532:demo:/:/sbin/nologin\n",
        ),
        file("etc/group", 0o644, b"root:x:0:\ndemo:x:65532:\n"),
    ];
    let run = RunConfig {
        entrypoint: vec!["/corten-demo".to_owned()],
        cmd: vec!["serve".to_owned()],
        env: vec!["PATH=/".to_owned()],
        user: USER.to_owned(),
        working_dir: "/".to_owned(),
        exposed_ports: vec!["8080/tcp".to_owned()],
        labels: vec![("org.opencontainers.image.title".to_owned(), "Corten demo".to_owned())],
    };
    write_oci_archive(archive, &Reference::parse(NAME).expect("a valid constant"), &files, &run)
}
