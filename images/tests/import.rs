//! Import of archives, and what a container gets of an image.
#![forbid(unsafe_code)]

use std::os::unix::fs::{MetadataExt, PermissionsExt};
use std::path::Path;

use corten_images::archive::{ImageFile, RunConfig, write_oci_archive};
use corten_images::{ImageStore, ImportOptions, Reference, RegistryConfig, StoreError};

fn open(root: &Path) -> ImageStore {
    ImageStore::open(root, RegistryConfig::default()).unwrap()
}

#[tokio::test(flavor = "multi_thread")]
async fn the_demo_image_is_imported_and_a_snapshot_shows_its_program() {
    let top = tempfile::tempdir().unwrap();
    let (program, archive) = (top.path().join("program"), top.path().join("demo.tar"));
    std::fs::write(&program, b"\x7fELF demo").unwrap();
    corten_images::demo::write_archive(&program, &archive).unwrap();
    let store = open(&top.path().join("images"));
    let images = store.import(&archive, ImportOptions { name: None, pinned: true }).await.unwrap();
    assert_eq!(images.len(), 1);
    assert!(images[0].pinned);
    assert_eq!(images[0].user, "65532:65532");
    let image = store.get(corten_images::demo::NAME).unwrap();
    assert_eq!(image.repo_tags.iter().collect::<Vec<_>>(), ["corten.local/demo:0.1"]);
    let config = store.image_config(image.id).unwrap();
    assert_eq!(
        config.config().as_ref().unwrap().entrypoint().as_deref(),
        Some(&["/corten-demo".to_owned()][..])
    );
    let mount = store.prepare_snapshot(image.id, "container-1").unwrap();
    assert_eq!(mount.lower.len(), 1);
    let program = mount.lower[0].join("corten-demo");
    assert_eq!(std::fs::read(&program).unwrap(), b"\x7fELF demo");
    assert_eq!(std::fs::metadata(&program).unwrap().permissions().mode() & 0o7777, 0o755);
    assert!(mount.upper.is_dir() && mount.work.is_dir());
    assert_eq!(std::fs::metadata(&mount.upper).unwrap().mode() & 0o7777, 0o755);
    assert!(matches!(store.prepare_snapshot(image.id, "container-1"), Err(StoreError::SnapshotExists(_))));
    assert!(matches!(store.prepare_snapshot(image.id, "../escape"), Err(StoreError::SnapshotKey(_))));
    assert!(store.fs_usage().used.bytes > 0);

    // The layers stay under the snapshot when the image goes, and go with it.
    store.remove("corten.local/demo:0.1").unwrap();
    assert!(program.exists());
    assert!(matches!(store.get("corten.local/demo:0.1"), Err(StoreError::NotFound(_))));
    assert_eq!(store.snapshot_mount("container-1").unwrap(), mount);
    assert!(store.snapshot_usage("container-1").unwrap().inodes >= 1);
    store.remove_snapshot("container-1").unwrap();
    store.remove_snapshot("container-1").unwrap();
    assert!(!program.exists());
    assert_eq!(store.fs_usage().used, corten_images::Usage::default());
}

#[tokio::test(flavor = "multi_thread")]
async fn a_second_process_is_refused_and_told_who_holds_the_store() {
    let top = tempfile::tempdir().unwrap();
    let first = open(top.path());
    let error = ImageStore::open(top.path(), RegistryConfig::default()).err().expect("locked");
    assert!(error.to_string().contains(&format!("pid {}", std::process::id())), "{error}");
    drop(first);
    drop(open(top.path()));
}

#[tokio::test(flavor = "multi_thread")]
async fn a_tag_moves_to_the_image_imported_last_also_over_a_restart() {
    let top = tempfile::tempdir().unwrap();
    let root = top.path().join("images");
    let name = Reference::parse("corten.local/moving:1").unwrap();
    let mut ids = Vec::new();
    let store = open(&root);
    for content in [&b"one"[..], b"two"] {
        let archive = top.path().join("image.tar");
        let file = ImageFile { path: "a/file", mode: 0o600, content };
        write_oci_archive(&archive, &name, &[file], &RunConfig::default()).unwrap();
        ids.push(store.import(&archive, ImportOptions::default()).await.unwrap()[0].id);
    }
    assert_ne!(ids[0], ids[1]);
    let check = |store: &ImageStore| {
        assert_eq!(store.get("corten.local/moving:1").unwrap().id, ids[1]);
        assert!(store.get(&ids[0].to_string()).unwrap().repo_tags.is_empty());
        assert_eq!(store.list().len(), 2);
    };
    check(&store);
    drop(store);
    let store = open(&root);
    check(&store);
    store.untag(&name).unwrap();
    assert!(matches!(store.get(&ids[1].to_string()), Err(StoreError::NotFound(_))));
}
