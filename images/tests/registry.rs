//! Against a real registry (Debian's docker-registry), filled by a stock client (skopeo).
#![forbid(unsafe_code)]

mod common;

use std::path::Path;
use std::process::{Child, Command, Output, Stdio};
use std::time::Duration;

use corten_images::archive::{ImageFile, RunConfig, write_oci_archive};
use corten_images::{Auth, ImportOptions, InstallError, PullOptions, Reference};

struct Registry {
    process: Child,
    address: String,
    directory: tempfile::TempDir,
}

impl Drop for Registry {
    fn drop(&mut self) {
        let _ = self.process.kill();
        let _ = self.process.wait();
    }
}

/// bcrypt of `secret` for `user`, as `htpasswd -B` writes it.
const HTPASSWD: &str = "user:$2y$05$WZo0qJcpBX6rNGnBnjeJ2ez2Wkh8ZMecVa1zLDnGJIAox5KWpjesS\n";

impl Registry {
    /// `None`, and says so, when the programs are missing.
    async fn start(auth: Option<&str>) -> Option<Self> {
        for program in ["docker-registry", "skopeo"] {
            if Command::new(program)
                .arg("--version")
                .stdout(Stdio::null())
                .stderr(Stdio::null())
                .status()
                .is_err()
            {
                println!("SKIP: {program} is not installed (Debian package {program})");
                return None;
            }
        }
        let directory = tempfile::tempdir().unwrap();
        let address = common::closed_port().await;
        let mut config = format!(
            "version: 0.1\nstorage:\n  filesystem:\n    rootdirectory: {}\nhttp:\n  addr: {address}\nlog:\n  level: error\n",
            directory.path().join("data").display()
        );
        if let Some(htpasswd) = auth {
            let path = directory.path().join("htpasswd");
            std::fs::write(&path, htpasswd).unwrap();
            config = format!("{config}auth:\n  htpasswd:\n    realm: test\n    path: {}\n", path.display());
        }
        let path = directory.path().join("config.yml");
        std::fs::write(&path, config).unwrap();
        let process = Command::new("docker-registry")
            .arg("serve")
            .arg(&path)
            .stdout(Stdio::null())
            .stderr(Stdio::null())
            .spawn()
            .unwrap();
        let registry = Self { process, address, directory };
        let address = registry.address.clone();
        common::wait_for("docker-registry to listen", || std::net::TcpStream::connect(&address).is_ok());
        Some(registry)
    }

    fn push(&self, archive: &Path, name: &str, more: &[&str]) -> Output {
        let output = Command::new("skopeo")
            .args(["--insecure-policy", "copy", "--dest-tls-verify=false"])
            .args(more)
            .arg(format!("oci-archive:{}", archive.display()))
            .arg(format!("docker://{}/{name}", self.address))
            .output()
            .unwrap();
        assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
        output
    }

    fn archive(&self, content: &[u8]) -> std::path::PathBuf {
        let path = self.directory.path().join("image.tar");
        let name = Reference::parse("corten.local/test:1").unwrap();
        let file = ImageFile { path: "data/file", mode: 0o640, content };
        write_oci_archive(&path, &name, &[file], &RunConfig::default()).unwrap();
        path
    }

    fn reference(&self, name: &str) -> Reference {
        Reference::parse(&format!("{}/{name}", self.address)).unwrap()
    }
}

fn options() -> PullOptions {
    PullOptions { no_progress_timeout: Duration::from_secs(20), ..PullOptions::default() }
}

#[tokio::test(flavor = "multi_thread")]
async fn what_skopeo_pushed_is_pulled_directly_and_through_a_mirror() {
    let Some(registry) = Registry::start(None).await else { return };
    let content = common::noise(3 << 20);
    let archive = registry.archive(&content);
    registry.push(&archive, "library/app:v1", &[]);
    registry.push(&archive, "library/app:docker", &["--format=v2s2"]);
    let (_top, store) = common::store();
    let image = store.pull(&registry.reference("library/app:v1"), options()).await.unwrap();
    let mount = store.prepare_snapshot(image.id, "c").unwrap();
    assert_eq!(std::fs::read(mount.lower[0].join("data/file")).unwrap(), content);
    let docker = store.pull(&registry.reference("library/app:docker"), options()).await.unwrap();
    assert_eq!(docker.layers[0].chain_id, image.layers[0].chain_id);
    let hosts = format!(
        "server = \"http://{}\"\n[host.\"http://{}\"]\n",
        common::closed_port().await,
        registry.address
    );
    let (_top, store) = common::store_with_hosts("docker.io", &hosts);
    let image = store.pull(&Reference::parse("app:v1").unwrap(), options()).await.unwrap();
    assert_eq!(image.repo_tags.first().unwrap(), "docker.io/library/app:v1");
    let error = store.pull(&Reference::parse("app:missing").unwrap(), options()).await.unwrap_err();
    assert!(matches!(&error.source, InstallError::Registry(error) if error.not_found()), "{error}");
}

#[tokio::test(flavor = "multi_thread")]
async fn basic_auth_of_a_real_registry() {
    let Some(registry) = Registry::start(Some(HTPASSWD)).await else { return };
    let archive = registry.archive(b"private");
    registry.push(&archive, "app:v1", &["--dest-creds=user:secret"]);
    let (_top, store) = common::store();
    let auth =
        |password: &str| Some(Auth { username: "user".into(), password: password.into(), ..Auth::default() });
    let reference = registry.reference("app:v1");
    for auth in [None, auth("guess")] {
        let error = store.pull(&reference, PullOptions { auth, ..options() }).await.unwrap_err();
        assert!(matches!(&error.source, InstallError::Registry(error) if error.denied()), "{error}");
    }
    store.pull(&reference, PullOptions { auth: auth("secret"), ..options() }).await.unwrap();
}

#[tokio::test(flavor = "multi_thread")]
async fn archives_of_stock_tools_are_imported() {
    let Some(registry) = Registry::start(None).await else { return };
    let archive = registry.archive(b"content");
    registry.push(&archive, "app:v1", &[]);
    let (top, store) = common::store();
    let expected = store.pull(&registry.reference("app:v1"), options()).await.unwrap();
    let to = top.path().join("exported");
    let kinds = [
        ("docker-archive", ":corten.local/saved:1"),
        ("oci-archive", ":corten.local/saved:2"),
        ("oci", ":corten.local/saved:3"),
    ];
    for (kind, name) in kinds {
        let place = to.join(kind);
        std::fs::create_dir_all(&to).unwrap();
        let output = Command::new("skopeo")
            .args(["--insecure-policy", "copy", "--src-tls-verify=false"])
            .arg(format!("docker://{}/app:v1", registry.address))
            .arg(format!("{kind}:{}{name}", place.display()))
            .output()
            .unwrap();
        assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
        let images = store.import(&place, ImportOptions::default()).await.unwrap();
        assert_eq!(images.len(), 1, "{kind}");
        assert_eq!(images[0].layers[0].chain_id, expected.layers[0].chain_id, "{kind}");
        assert!(store.get(&name[1..]).is_ok(), "{kind} {:?}", images[0].repo_tags);
        if place.is_file() {
            let status = Command::new("gzip").arg(&place).status().unwrap();
            assert!(status.success());
            let options = ImportOptions {
                name: Some(Reference::parse("corten.local/zipped:1").unwrap()),
                pinned: false,
            };
            store.import(&place.with_extension("gz"), options).await.unwrap();
            assert!(store.get("corten.local/zipped:1").is_ok());
        }
    }
    std::fs::write(to.join("nothing"), b"no archive").unwrap();
    let error = store.import(&to.join("nothing"), ImportOptions::default()).await.unwrap_err();
    assert!(error.to_string().contains("nothing"), "{error}");
    let error = store.import(&to.join("absent"), ImportOptions::default()).await.unwrap_err();
    assert!(error.to_string().contains("absent"), "{error}");
    common::assert_no_ingest(top.path());
}

const KILLED_ROOT: &str = "CORTEN_TEST_KILLED_ROOT";
const KILLED_IMAGE: &str = "CORTEN_TEST_KILLED_IMAGE";

/// Not a test: the process that the next one kills.
#[tokio::test(flavor = "multi_thread")]
async fn process_to_be_killed() {
    let (Ok(root), Ok(image)) = (std::env::var(KILLED_ROOT), std::env::var(KILLED_IMAGE)) else { return };
    let store = common::open(Path::new(&root));
    let _ = store.pull(&Reference::parse(&image).unwrap(), PullOptions::default()).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn kill_in_the_middle_of_a_pull_leaves_nothing_after_reopen() {
    let image = common::Image::new(&[("quick", b"x"), ("stalls", &common::noise(2 << 20))]);
    let mut routes = image.routes("app", "v1");
    routes.get_mut(&format!("/v2/app/blobs/{}", image.layers[1].digest)).unwrap().stall_after = Some(1 << 20);
    let server = common::Server::start(routes).await;
    let top = tempfile::tempdir().unwrap();
    let mut process = Command::new(std::env::current_exe().unwrap())
        .args(["process_to_be_killed", "--exact"])
        .env(KILLED_ROOT, top.path())
        .env(KILLED_IMAGE, server.reference("app:v1").to_string())
        .stdout(Stdio::null())
        .spawn()
        .unwrap();
    let layer = top.path().join("layers").join(image.layers[0].diff_id.hex());
    common::wait_for("the first layer to be there", || {
        layer.exists() && !common::ingest_is_empty(top.path())
    });
    process.kill().unwrap();
    process.wait().unwrap();
    let store = common::open(top.path());
    assert!(store.list().is_empty());
    common::assert_empty(top.path());
}
