//! A registry that does as it is told, and images made in memory.
#![allow(dead_code)]

use std::collections::BTreeMap;
use std::io::Write;
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};

use base64::Engine as _;
use corten_images::{Digest, ImageStore, Platform, Reference, RegistryConfig};
use tokio::io::{AsyncBufReadExt, AsyncReadExt, AsyncWriteExt, BufReader};
use tokio::net::{TcpListener, TcpStream};

const OCI_MANIFEST: &str = "application/vnd.oci.image.manifest.v1+json";

pub struct Layer {
    pub blob: Vec<u8>,
    pub digest: Digest,
    pub diff_id: Digest,
}

impl Layer {
    pub fn of_tar(tar: &[u8]) -> Self {
        let mut gzip = flate2::write::GzEncoder::new(Vec::new(), flate2::Compression::fast());
        gzip.write_all(tar).unwrap();
        let blob = gzip.finish().unwrap();
        Self { digest: Digest::of(&blob), diff_id: Digest::of(tar), blob }
    }
}

pub struct Image {
    pub manifest: Vec<u8>,
    pub config: Vec<u8>,
    pub layers: Vec<Layer>,
}

impl Image {
    /// One layer a file.
    pub fn new(files: &[(&str, &[u8])]) -> Self {
        Self::with_config(files, |_| {})
    }

    pub fn with_config(files: &[(&str, &[u8])], change: impl FnOnce(&mut String)) -> Self {
        let tars = files.iter().map(|(path, content)| {
            let mut tar = tar::Builder::new(Vec::new());
            let mut header = tar::Header::new_gnu();
            header.set_size(content.len() as u64);
            header.set_mode(0o644);
            tar.append_data(&mut header, path, *content).unwrap();
            tar.into_inner().unwrap()
        });
        Self::from_layers(&tars.collect::<Vec<_>>(), change)
    }

    pub fn from_layers(tars: &[Vec<u8>], change: impl FnOnce(&mut String)) -> Self {
        let layers: Vec<_> = tars.iter().map(|tar| Layer::of_tar(tar)).collect();
        let Platform { os, architecture, .. } = Platform::host();
        let diff_ids: Vec<_> = layers.iter().map(|layer| format!("\"{}\"", layer.diff_id)).collect();
        let mut config = format!(
            r#"{{"os":"{os}","architecture":"{architecture}","config":{{}},"rootfs":{{"type":"layers","diff_ids":[{}]}}}}"#,
            diff_ids.join(",")
        );
        change(&mut config);
        let describe = |media_type: &str, digest: Digest, size: usize| {
            format!(r#"{{"mediaType":"{media_type}","digest":"{digest}","size":{size}}}"#)
        };
        let list: Vec<_> = layers
            .iter()
            .map(|layer| {
                describe("application/vnd.oci.image.layer.v1.tar+gzip", layer.digest, layer.blob.len())
            })
            .collect();
        let config_descriptor =
            describe("application/vnd.oci.image.config.v1+json", Digest::of(config.as_bytes()), config.len());
        let manifest = format!(
            r#"{{"schemaVersion":2,"mediaType":"{OCI_MANIFEST}","config":{config_descriptor},"layers":[{}]}}"#,
            list.join(",")
        );
        Self { manifest: manifest.into_bytes(), config: config.into_bytes(), layers }
    }

    pub fn config_digest(&self) -> Digest {
        Digest::of(&self.config)
    }

    pub fn manifest_digest(&self) -> Digest {
        Digest::of(&self.manifest)
    }

    pub fn routes(&self, repository: &str, tag: &str) -> BTreeMap<String, Answer> {
        let base = format!("/v2/{repository}");
        let manifest =
            || Answer { content_type: Some(OCI_MANIFEST.to_owned()), ..Answer::bytes(self.manifest.clone()) };
        let mut routes = BTreeMap::from([
            (format!("{base}/manifests/{tag}"), manifest()),
            (format!("{base}/manifests/{}", self.manifest_digest()), manifest()),
            (format!("{base}/blobs/{}", self.config_digest()), Answer::bytes(self.config.clone())),
        ]);
        for layer in &self.layers {
            routes.insert(format!("{base}/blobs/{}", layer.digest), Answer::bytes(layer.blob.clone()));
        }
        routes
    }
}

/// Bytes that do not compress; the same each time.
pub fn noise(length: usize) -> Vec<u8> {
    let mut state = 0x2545_f491_4f6c_dd1d_u64;
    let step = || {
        state ^= state << 13;
        state ^= state >> 7;
        state ^= state << 17;
        state as u8
    };
    std::iter::repeat_with(step).take(length).collect()
}

pub fn escaping_layer() -> Vec<u8> {
    let mut header = tar::Header::new_gnu();
    header.as_old_mut().name[..10].copy_from_slice(b"../../evil");
    header.set_size(0);
    header.set_mode(0o644);
    header.set_cksum();
    let mut tar = header.as_bytes().to_vec();
    tar.resize(3 * 512, 0);
    tar
}

#[derive(Clone, Default)]
pub struct Answer {
    pub body: Vec<u8>,
    pub content_type: Option<String>,
    pub location: Option<String>,
    /// Close the connection after so many bytes of a body, `breaks` times at most (0: always).
    pub break_after: Option<usize>,
    pub breaks: usize,
    /// Send so many bytes, then nothing.
    pub stall_after: Option<usize>,
    pub no_range: bool,
    /// `user:password`.
    pub basic: Option<String>,
}

impl Answer {
    pub fn bytes(body: Vec<u8>) -> Self {
        Self { body, ..Self::default() }
    }

    pub fn redirect(location: &str) -> Self {
        Self { location: Some(location.to_owned()), ..Self::default() }
    }
}

struct Token {
    repository: String,
    wants: String,
}

pub struct Server {
    pub address: String,
    pub hits: Arc<AtomicUsize>,
    log: Arc<Mutex<Vec<String>>>,
    token: Arc<Mutex<Option<Token>>>,
    task: tokio::task::JoinHandle<()>,
}

impl Drop for Server {
    fn drop(&mut self) {
        self.task.abort();
    }
}

impl Server {
    pub async fn start(routes: BTreeMap<String, Answer>) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let address = listener.local_addr().unwrap().to_string();
        let (log, token) = (Arc::<Mutex<Vec<String>>>::default(), Arc::<Mutex<Option<Token>>>::default());
        let (routes, hits) = (Arc::new(routes), Arc::new(AtomicUsize::new(0)));
        let (log_of, token_of, hits_of, own) =
            (Arc::clone(&log), Arc::clone(&token), Arc::clone(&hits), address.clone());
        let task = tokio::spawn(async move {
            let mut connections = tokio::task::JoinSet::new();
            loop {
                let Ok((stream, _)) = listener.accept().await else { return };
                let (routes, log, token, hits) =
                    (Arc::clone(&routes), Arc::clone(&log_of), Arc::clone(&token_of), Arc::clone(&hits_of));
                let own = own.clone();
                connections.spawn(async move {
                    let _ = serve(stream, &own, &routes, &log, &token, &hits).await;
                });
            }
        });
        Self { address, hits, log, token, task }
    }

    pub fn reference(&self, name: &str) -> Reference {
        Reference::parse(&format!("{}/{name}", self.address)).unwrap()
    }

    /// Head of every request, names of headers in lower case.
    pub fn requests(&self) -> Vec<String> {
        self.log.lock().unwrap().clone()
    }

    /// From now on everything but the realm wants a token; `wants`: `user:password`, or what the form must hold.
    pub fn want_token(&self, repository: &str, wants: &str) {
        *self.token.lock().unwrap() =
            Some(Token { repository: repository.to_owned(), wants: wants.to_owned() });
    }
}

async fn serve(
    stream: TcpStream,
    own: &str,
    routes: &BTreeMap<String, Answer>,
    log: &Mutex<Vec<String>>,
    token: &Mutex<Option<Token>>,
    hits: &AtomicUsize,
) -> std::io::Result<()> {
    let mut stream = BufReader::new(stream);
    loop {
        let mut head = String::new();
        while !head.ends_with("\r\n\r\n") {
            if stream.read_line(&mut head).await? == 0 {
                return Ok(());
            }
        }
        let header = |name: &str| {
            head.lines()
                .find_map(|line| line.split_once(": ").filter(|(key, _)| key.eq_ignore_ascii_case(name)))
        };
        let value = |name: &str| header(name).map(|(_, value)| value.to_owned());
        let length = value("content-length").and_then(|length| length.parse().ok()).unwrap_or(0);
        let mut form = vec![0; length];
        stream.read_exact(&mut form).await?;
        log.lock().unwrap().push(head.clone());
        let target = head.split(' ').nth(1).unwrap_or_default().to_owned();
        let path = target.split('?').next().unwrap_or_default().to_owned();
        let authorization = value("authorization").unwrap_or_default();
        let basic = |credentials: &str| {
            format!("Basic {}", base64::engine::general_purpose::STANDARD.encode(credentials))
        };
        let refuse = |challenge: String| {
            format!("HTTP/1.1 401 No\r\nWWW-Authenticate: {challenge}\r\nContent-Length: 0\r\n\r\n")
        };
        let early = {
            let token = token.lock().unwrap();
            token.as_ref().and_then(|token| {
                if path == "/token" {
                    let form = String::from_utf8_lossy(&form);
                    let right = authorization == basic(&token.wants) || form.contains(&token.wants);
                    let body = r#"{"token":"the-token"}"#;
                    return Some(if right {
                        format!("HTTP/1.1 200 OK\r\nContent-Length: {}\r\n\r\n{body}", body.len())
                    } else {
                        "HTTP/1.1 401 No\r\nContent-Length: 0\r\n\r\n".to_owned()
                    });
                }
                (authorization != "Bearer the-token").then(|| {
                    let scope = format!("repository:{}:pull", token.repository);
                    refuse(format!(r#"Bearer realm="http://{own}/token",service="test",scope="{scope}""#))
                })
            })
        };
        if let Some(text) = early {
            stream.get_mut().write_all(text.as_bytes()).await?;
            continue;
        }
        let Some(answer) = routes.get(&path) else {
            stream.get_mut().write_all(b"HTTP/1.1 404 Not Found\r\nContent-Length: 0\r\n\r\n").await?;
            continue;
        };
        if let Some(wanted) = answer.basic.as_ref().filter(|wanted| authorization != basic(wanted)) {
            let _ = wanted;
            stream.get_mut().write_all(refuse("Basic realm=\"test\"".to_owned()).as_bytes()).await?;
            continue;
        }
        if let Some(location) = &answer.location {
            let text = format!("HTTP/1.1 307 Go\r\nLocation: {location}\r\nContent-Length: 0\r\n\r\n");
            stream.get_mut().write_all(text.as_bytes()).await?;
            continue;
        }
        let start = value("range")
            .filter(|_| !answer.no_range)
            .and_then(|range| range.strip_prefix("bytes=")?.strip_suffix('-')?.parse::<usize>().ok());
        let body = &answer.body[start.unwrap_or(0).min(answer.body.len())..];
        let mut text = match start {
            Some(start) => {
                let length = answer.body.len();
                format!(
                    "HTTP/1.1 206 Partial Content\r\nContent-Range: bytes {start}-{}/{length}\r\n",
                    length - 1
                )
            }
            None => "HTTP/1.1 200 OK\r\n".to_owned(),
        };
        if let Some(content_type) = &answer.content_type {
            text = format!("{text}Content-Type: {content_type}\r\n");
        }
        text = format!("{text}Content-Length: {}\r\n\r\n", body.len());
        stream.get_mut().write_all(text.as_bytes()).await?;
        if let Some(stall) = answer.stall_after {
            stream.get_mut().write_all(&body[..stall.min(body.len())]).await?;
            std::future::pending::<()>().await;
        }
        let breaks = answer.break_after.is_some()
            && (answer.breaks == 0 || hits.fetch_add(1, Ordering::Relaxed) < answer.breaks);
        match answer.break_after.filter(|&after| breaks && after < body.len()) {
            Some(after) => {
                stream.get_mut().write_all(&body[..after]).await?;
                return stream.get_mut().shutdown().await;
            }
            None => stream.get_mut().write_all(body).await?,
        }
    }
}

/// An address where nobody listens.
pub async fn closed_port() -> String {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    listener.local_addr().unwrap().to_string()
}

pub fn open(root: &Path) -> ImageStore {
    ImageStore::open(root, RegistryConfig::default()).unwrap()
}

pub fn store() -> (tempfile::TempDir, ImageStore) {
    let top = tempfile::tempdir().unwrap();
    let store = open(top.path());
    (top, store)
}

/// A store whose registry `registry` is configured by `hosts`, a hosts.toml.
pub fn store_with_hosts(registry: &str, hosts: &str) -> (tempfile::TempDir, ImageStore) {
    let top = tempfile::tempdir().unwrap();
    let certs = top.path().join("certs.d");
    std::fs::create_dir_all(certs.join(registry)).unwrap();
    std::fs::write(certs.join(registry).join("hosts.toml"), hosts).unwrap();
    let config = RegistryConfig { certs_dirs: vec![certs] };
    let store = ImageStore::open(&top.path().join("images"), config).unwrap();
    (top, store)
}

pub fn ingest_is_empty(root: &Path) -> bool {
    std::fs::read_dir(root.join("ingest")).unwrap().next().is_none()
}

pub fn assert_no_ingest(root: &Path) {
    wait_for("the ingest to be empty", || ingest_is_empty(root));
}

/// Nothing but the store's own directories.
pub fn assert_empty(root: &Path) {
    for directory in ["ingest", "layers", "images", "blobs/sha256", "snapshots"] {
        let left = || -> Vec<PathBuf> {
            std::fs::read_dir(root.join(directory)).unwrap().map(|entry| entry.unwrap().path()).collect()
        };
        wait_for(&format!("{directory} to be empty, holds {:?}", left()), || left().is_empty());
    }
}

pub fn wait_for(what: &str, mut condition: impl FnMut() -> bool) {
    let deadline = Instant::now() + Duration::from_secs(10);
    while !condition() {
        assert!(Instant::now() < deadline, "waited 10 s for {what}");
        std::thread::sleep(Duration::from_millis(10));
    }
}

/// A tmpfs of 4 MB.
pub struct SmallDisk(tempfile::TempDir);

impl SmallDisk {
    /// `None`, and says so, when mounting is not allowed.
    pub fn mount() -> Option<Self> {
        let directory = tempfile::tempdir().unwrap();
        let flags = rustix::mount::MountFlags::empty();
        match rustix::mount::mount("tmpfs", directory.path(), "tmpfs", flags, c"size=4m") {
            Ok(()) => Some(Self(directory)),
            Err(errno) => {
                println!("SKIP: cannot mount a small tmpfs: {errno}");
                None
            }
        }
    }

    pub fn path(&self) -> &Path {
        self.0.path()
    }
}

impl Drop for SmallDisk {
    fn drop(&mut self) {
        let _ = rustix::mount::unmount(self.0.path(), rustix::mount::UnmountFlags::DETACH);
    }
}
