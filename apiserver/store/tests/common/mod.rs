//! Stores on temporary directories, and an etcd of our own.
#![allow(dead_code, reason = "each test program uses a part")]

use std::net::TcpListener;
use std::path::PathBuf;
use std::process::{Child, Command, Stdio};
use std::sync::Arc;
use std::time::{Duration, Instant};

use corten_store::{
    Change, Config, Embedded, EtcdStore, Image, Put, RedbOptions, Revision, Store, StoreError, Swap, Told,
    Watcher,
};

pub const DEADLINE: Duration = Duration::from_mins(1);

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Kind {
    Memory,
    Redb,
    Etcd,
}

/// A store that goes with the test.
pub struct Fixture {
    pub kind: Kind,
    pub store: Arc<dyn Store>,
    /// Ends with the test.
    etcd: Option<Etcd>,
    dir: tempfile::TempDir,
}

impl Fixture {
    /// `None` (after saying why) where this store cannot be had.
    pub async fn start(kind: Kind) -> Option<Self> {
        let dir = tempfile::Builder::new().prefix("corten-store-").tempdir().expect("temporary directory");
        let mut etcd = None;
        let store: Arc<dyn Store> = match kind {
            Kind::Memory => Arc::new(Embedded::memory(Config::default()).expect("memory store")),
            Kind::Redb => Arc::new(open(&dir.path().join("store.redb")).expect("redb store")),
            Kind::Etcd => {
                let server = Etcd::start(&["--unsafe-no-fsync"])?;
                let store = Arc::new(server.store().await);
                etcd = Some(server);
                store
            }
        };
        Some(Self { kind, store, etcd, dir })
    }

    /// Another store, with what is in a snapshot.
    pub async fn restored(&self, image: &Image) -> Option<Self> {
        if self.kind == Kind::Etcd {
            let server = Etcd::start(&["--unsafe-no-fsync"])?;
            let store = server.store().await;
            store.restore(image).await.expect("restore");
            let dir = tempfile::tempdir().expect("temporary directory");
            return Some(Self { kind: self.kind, store: Arc::new(store), etcd: Some(server), dir });
        }
        let dir = tempfile::Builder::new().prefix("corten-store-").tempdir().expect("temporary directory");
        let store: Arc<dyn Store> = if self.kind == Kind::Memory {
            Arc::new(Embedded::memory_from(image, Config::default()).expect("restore"))
        } else {
            let file = dir.path().join("store.redb");
            Embedded::restore(&file, image).expect("restore");
            Arc::new(open(&file).expect("restored store"))
        };
        Some(Self { kind: self.kind, store, etcd: None, dir })
    }

    /// Restores into the store that is there.
    pub async fn restore_again(&self, image: &Image) -> Result<(), StoreError> {
        match (self.kind, &self.etcd) {
            (Kind::Redb, _) => Embedded::restore(&self.dir.path().join("store.redb"), image),
            (_, Some(etcd)) => etcd.store().await.restore(image).await,
            _ => Err(StoreError::NotEmpty),
        }
    }
}

pub fn open(file: &std::path::Path) -> Result<Embedded, StoreError> {
    Embedded::open(file, RedbOptions::default(), Config::default())
}

/// A key that was not there is now; answers its revision.
pub async fn create(store: &dyn Store, key: &str, value: &str) -> Revision {
    put(store, key, value, 0).await
}

pub async fn put(store: &dyn Store, key: &str, value: &str, expected: Revision) -> Revision {
    let put = Put::update(key.to_owned(), value.to_owned(), expected);
    done(store.put(put).await.expect("put"))
}

pub async fn delete(store: &dyn Store, key: &str, expected: Revision) -> Revision {
    done(store.delete(key.as_bytes(), expected).await.expect("delete"))
}

pub fn done(swap: Swap) -> Revision {
    swap.done().unwrap_or_else(|| panic!("not done: {swap:?}"))
}

pub async fn changes(watcher: &mut dyn Watcher, count: usize) -> Vec<Arc<Change>> {
    let mut all = Vec::new();
    while all.len() < count {
        match tokio::time::timeout(DEADLINE, watcher.next())
            .await
            .expect("a change in time")
            .expect("a change")
        {
            Told::Changes(changes) => all.extend(changes),
            Told::Progress(revision) => panic!("progress {revision} that nobody asked for"),
        }
    }
    assert_eq!(all.len(), count, "no more changes than that");
    all
}

pub async fn in_time<T>(future: impl Future<Output = T>) -> T {
    tokio::time::timeout(DEADLINE, future).await.expect("in time")
}

/// An etcd of our own; ends with the test.
pub struct Etcd {
    process: Child,
    dir: tempfile::TempDir,
    pub url: String,
}

impl Drop for Etcd {
    fn drop(&mut self) {
        let _ = self.process.kill();
        let _ = self.process.wait();
    }
}

impl Etcd {
    /// `None` (after saying why) where there is no etcd.
    pub fn start(more: &[&str]) -> Option<Self> {
        Self::start_in(
            tempfile::Builder::new().prefix("corten-etcd-").tempdir().expect("temporary directory"),
            more,
        )
    }

    pub fn start_in(dir: tempfile::TempDir, more: &[&str]) -> Option<Self> {
        if Command::new("etcd").arg("--version").stdout(Stdio::null()).stderr(Stdio::null()).status().is_err()
        {
            println!("SKIP: etcd is not installed");
            return None;
        }
        let port = || TcpListener::bind("127.0.0.1:0").expect("a port").local_addr().expect("address").port();
        let url = format!("http://127.0.0.1:{}", port());
        let peer = format!("http://127.0.0.1:{}", port());
        let log = std::fs::File::create(dir.path().join("log")).expect("log");
        let process = Command::new("etcd")
            .arg("--name=test")
            .arg(format!("--data-dir={}", dir.path().join("data").display()))
            .args([format!("--listen-client-urls={url}"), format!("--advertise-client-urls={url}")])
            .args([format!("--listen-peer-urls={peer}"), format!("--initial-advertise-peer-urls={peer}")])
            .arg(format!("--initial-cluster=test={peer}"))
            .args(more)
            .stdout(log.try_clone().expect("log"))
            .stderr(log)
            .spawn()
            .expect("start etcd");
        Some(Self { process, dir, url })
    }

    pub fn pid(&self) -> u32 {
        self.process.id()
    }

    /// Connected once it has a leader.
    pub async fn store(&self) -> EtcdStore {
        let end = Instant::now() + DEADLINE;
        loop {
            let error = match EtcdStore::connect(&corten_etcd::Config::new([&self.url])).await {
                Ok(store) => match store.revision().await {
                    Ok(_) => return store,
                    Err(error) => error,
                },
                Err(error) => error,
            };
            let log = || std::fs::read_to_string(self.dir.path().join("log")).unwrap_or_default();
            assert!(Instant::now() < end, "{error}\n{}", log());
            tokio::time::sleep(Duration::from_millis(30)).await;
        }
    }
}

/// Numbers that are the same in each run from the same seed.
pub struct Random(u64);

impl Random {
    pub fn new(seed: u64) -> Self {
        Self(seed.wrapping_mul(0x9e37_79b9_7f4a_7c15) | 1)
    }

    pub fn below(&mut self, limit: u64) -> u64 {
        self.0 ^= self.0 << 13;
        self.0 ^= self.0 >> 7;
        self.0 ^= self.0 << 17;
        (self.0 >> 11) % limit
    }
}

/// Seconds that this test may take, or what the long lane says.
pub fn effort(variable: &str, short: u64) -> u64 {
    std::env::var(variable).ok().and_then(|text| text.parse().ok()).unwrap_or(short)
}

pub fn path(dir: &tempfile::TempDir) -> PathBuf {
    dir.path().join("store.redb")
}
