//! The client against Debian's etcd: real processes on temporary directories and ports.

use std::net::TcpListener;
use std::path::Path;
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

use corten_etcd::{
    Change, Client, Compare, Config, EtcdError, KeyRange, LeaseId, Op, OpAnswer, Put, Range, Txn, Watch,
};

const DEADLINE: Duration = Duration::from_secs(20);

struct Etcd {
    process: Option<Child>,
    dir: tempfile::TempDir,
    client_url: String,
    peer_url: String,
    tls: Vec<String>,
}

impl Drop for Etcd {
    fn drop(&mut self) {
        self.stop();
    }
}

impl Etcd {
    /// `None` (after saying why) where there is no etcd.
    fn start() -> Option<Self> {
        Self::start_with("http", Vec::new)
    }

    fn start_with(scheme: &str, tls: impl FnOnce() -> Vec<String>) -> Option<Self> {
        if Command::new("etcd").arg("--version").stdout(Stdio::null()).status().is_err() {
            println!("SKIP: etcd is not installed");
            return None;
        }
        let mut etcd = Self {
            process: None,
            dir: tempfile::Builder::new().prefix("corten-etcd-").tempdir().expect("temporary directory"),
            client_url: format!("{scheme}://127.0.0.1:{}", free_port()),
            peer_url: format!("http://127.0.0.1:{}", free_port()),
            tls: tls(),
        };
        etcd.run();
        Some(etcd)
    }

    fn run(&mut self) {
        let log = std::fs::File::create(self.dir.path().join("log")).expect("log");
        let child = Command::new("etcd")
            .arg("--name=test")
            .arg("--data-dir")
            .arg(self.dir.path().join("data"))
            .arg(format!("--listen-client-urls={}", self.client_url))
            .arg(format!("--advertise-client-urls={}", self.client_url))
            .arg(format!("--listen-peer-urls={}", self.peer_url))
            .arg(format!("--initial-advertise-peer-urls={}", self.peer_url))
            .arg(format!("--initial-cluster=test={}", self.peer_url))
            .arg("--unsafe-no-fsync")
            .args(&self.tls)
            .stdout(log.try_clone().expect("log"))
            .stderr(log)
            .spawn()
            .expect("start etcd");
        self.process = Some(child);
        let address = self.client_url.split("//").nth(1).expect("a URL").to_owned();
        let end = Instant::now() + DEADLINE;
        while std::net::TcpStream::connect(&address).is_err() {
            assert!(Instant::now() < end, "etcd does not listen: {}", self.log());
            std::thread::sleep(Duration::from_millis(20));
        }
    }

    fn stop(&mut self) {
        if let Some(mut child) = self.process.take() {
            let _ = child.kill();
            let _ = child.wait();
        }
    }

    fn log(&self) -> String {
        std::fs::read_to_string(self.dir.path().join("log")).unwrap_or_default()
    }

    fn config(&self) -> Config {
        Config::new([&self.client_url])
    }

    /// Connects once etcd has a leader.
    async fn client(&self) -> Client {
        self.client_with(&self.config()).await
    }

    async fn client_with(&self, config: &Config) -> Client {
        let end = Instant::now() + DEADLINE;
        loop {
            let client = Client::connect(config).await;
            match client {
                Ok(client) => match client.get("ready").await {
                    Ok(_) => return client,
                    Err(error) => assert!(error.passes() && Instant::now() < end, "{error}\n{}", self.log()),
                },
                Err(error) => assert!(error.passes() && Instant::now() < end, "{error}\n{}", self.log()),
            }
            tokio::time::sleep(Duration::from_millis(50)).await;
        }
    }
}

fn free_port() -> u16 {
    TcpListener::bind("127.0.0.1:0").expect("a port").local_addr().expect("address").port()
}

async fn in_time<T>(future: impl Future<Output = T>) -> T {
    tokio::time::timeout(DEADLINE, future).await.expect("in time")
}

#[tokio::test]
async fn keys_have_revisions_and_history() {
    let Some(etcd) = Etcd::start() else { return };
    let client = etcd.client().await;
    let (first, none) = client.put(Put { previous: true, ..Put::new("/a/1", "one") }).await.unwrap();
    assert_eq!(none, None);
    let (second, old) = client.put(Put { previous: true, ..Put::new("/a/1", "two") }).await.unwrap();
    let old = old.unwrap();
    assert_eq!(
        (second, old.value.as_slice(), old.mod_revision, old.version),
        (first + 1, &b"one"[..], first, 1)
    );
    let now = client.get("/a/1").await.unwrap().unwrap();
    assert_eq!((now.value.as_slice(), now.create_revision, now.version), (&b"two"[..], first, 2));
    let mut then = Range::new(KeyRange::one("/a/1"));
    then.revision = Some(first);
    assert_eq!(client.range(&then).await.unwrap().kvs[0].value, b"one");
    then.revision = Some(second + 100);
    assert!(matches!(client.range(&then).await, Err(EtcdError::Future)));
    client.compact(second).await.unwrap();
    then.revision = Some(first);
    assert!(matches!(client.range(&then).await, Err(EtcdError::Compacted { .. })));
    let deleted = client.delete(&KeyRange::prefix("/a/"), true).await.unwrap();
    assert_eq!((deleted.count, deleted.previous[0].value.as_slice()), (1, &b"two"[..]));
    assert_eq!(client.get("/a/1").await.unwrap(), None);
}

#[tokio::test]
async fn pages_are_of_one_moment() {
    let Some(etcd) = Etcd::start() else { return };
    let client = etcd.client().await;
    for n in 0..25 {
        client.put(Put::new(format!("/n/{n:02}"), "x")).await.unwrap();
    }
    client.put(Put::new("/o", "beside")).await.unwrap();
    let mut range = Range::new(KeyRange::prefix("/n/"));
    range.limit = Some(10);
    range.keys_only = true;
    let page = client.range(&range).await.unwrap();
    assert_eq!((page.kvs.len(), page.more, page.count), (10, true, 25));
    assert!(page.kvs[0].value.is_empty());
    let all = client.range_all(KeyRange::prefix("/n/"), 10).await.unwrap();
    let keys: Vec<_> = all.kvs.iter().map(|kv| String::from_utf8_lossy(&kv.key).into_owned()).collect();
    assert_eq!(keys, (0..25).map(|n| format!("/n/{n:02}")).collect::<Vec<_>>());
    assert_eq!(client.range_all(KeyRange::prefix(""), 7).await.unwrap().kvs.len(), 26);
}

#[tokio::test]
async fn a_transaction_is_done_whole_or_otherwise() {
    let Some(etcd) = Etcd::start() else { return };
    let client = etcd.client().await;
    let create = |value: &str| Txn {
        when: vec![Compare::Absent(b"k".to_vec())],
        then: vec![Op::Put(Put::new("k", value)), Op::Put(Put::new("side", value))],
        otherwise: vec![Op::Range(Range::new(KeyRange::one("k")))],
    };
    let first = client.txn(create("mine")).await.unwrap();
    assert!(first.succeeded);
    assert_eq!(first.answers, [OpAnswer::Put { previous: None }, OpAnswer::Put { previous: None }]);
    let second = client.txn(create("yours")).await.unwrap();
    assert!(!second.succeeded);
    let OpAnswer::Range(there) = &second.answers[0] else { panic!("{second:?}") };
    assert_eq!((there.kvs[0].value.as_slice(), there.kvs[0].mod_revision), (&b"mine"[..], first.revision));
    let change = |revision| Txn {
        when: vec![Compare::ModRevision(b"k".to_vec(), revision)],
        then: vec![Op::Delete { keys: KeyRange::one("k"), previous: true }],
        otherwise: vec![],
    };
    assert!(!client.txn(change(first.revision - 1)).await.unwrap().succeeded);
    let deleted = client.txn(change(first.revision)).await.unwrap();
    let OpAnswer::Delete(deleted) = &deleted.answers[0] else { panic!() };
    assert_eq!(deleted.count, 1);
}

#[tokio::test]
async fn keys_go_with_their_lease() {
    let Some(etcd) = Etcd::start() else { return };
    let client = etcd.client().await;
    let lease = client.grant(Duration::from_hours(1)).await.unwrap();
    client.put(Put::new("k", "v").lease(Some(lease.id))).await.unwrap();
    assert_eq!(client.get("k").await.unwrap().unwrap().lease, Some(lease.id));
    assert_eq!(client.keep_alive(lease.id).await.unwrap().ttl, Duration::from_hours(1));
    assert!(client.time_to_live(lease.id).await.unwrap().ttl > Duration::from_secs(3590));
    client.revoke(lease.id).await.unwrap();
    assert_eq!(client.get("k").await.unwrap(), None);
    let gone = lease.id.number();
    assert!(matches!(client.keep_alive(lease.id).await, Err(EtcdError::NoLease(id)) if id == gone));
    assert!(matches!(client.time_to_live(lease.id).await, Err(EtcdError::NoLease(id)) if id == gone));
    assert!(matches!(client.revoke(lease.id).await, Err(EtcdError::NoLease(id)) if id == gone));
    let put = client.put(Put::new("k", "v").lease(LeaseId::of(42))).await;
    assert!(matches!(put, Err(EtcdError::NoLease(42))), "{put:?}");
}

#[tokio::test]
async fn a_watch_tells_every_change_in_order() {
    let Some(etcd) = Etcd::start() else { return };
    let client = etcd.client().await;
    let (before, _) = client.put(Put::new("/w/a", "0")).await.unwrap();
    let mut live = client.watch(Watch::new(KeyRange::prefix("/w/"))).await.unwrap();
    client.put(Put::new("/w/a", "1")).await.unwrap();
    client.put(Put::new("/x", "not watched")).await.unwrap();
    client.delete(&KeyRange::one("/w/a"), false).await.unwrap();
    let mut seen = Vec::new();
    while seen.len() < 2 {
        let changes = in_time(live.next()).await.unwrap();
        seen.extend(changes.changes);
    }
    let Change::Put { kv, .. } = &seen[0] else { panic!("{seen:?}") };
    assert_eq!((kv.value.as_slice(), kv.mod_revision), (&b"1"[..], before + 1));
    assert!(
        matches!(&seen[1], Change::Delete { key, at, .. } if key == b"/w/a" && *at == before + 3),
        "{seen:?}"
    );
    // From history, with what was there before.
    let mut past = Watch::new(KeyRange::prefix("/w/"));
    past.start = Some(before + 1);
    past.previous = true;
    let mut watcher = client.watch(past.clone()).await.unwrap();
    let changes = in_time(watcher.next()).await.unwrap();
    let Change::Put { previous: Some(previous), .. } = &changes.changes[0] else { panic!("{changes:?}") };
    assert_eq!(previous.value, b"0");
    live.ask_progress().await.unwrap();
    assert_eq!(in_time(live.next()).await.unwrap().changes, []);
}

#[tokio::test]
async fn a_watch_of_what_was_compacted_says_so() {
    let Some(etcd) = Etcd::start() else { return };
    let client = etcd.client().await;
    let (first, _) = client.put(Put::new("/w/a", "0")).await.unwrap();
    let (last, _) = client.put(Put::new("/w/a", "1")).await.unwrap();
    client.compact(last).await.unwrap();
    let mut watch = Watch::new(KeyRange::prefix("/w/"));
    watch.start = Some(first);
    let error = match client.watch(watch).await {
        Err(error) => error,
        Ok(mut watcher) => in_time(watcher.next()).await.unwrap_err(),
    };
    assert!(matches!(error, EtcdError::Compacted { oldest: Some(oldest) } if oldest == last), "{error}");
}

#[tokio::test]
async fn the_next_endpoint_answers_for_one_that_is_down() {
    let Some(etcd) = Etcd::start() else { return };
    let dead = format!("http://127.0.0.1:{}", free_port());
    let config = Config::new([dead.clone(), etcd.client_url.clone()]);
    let client = etcd.client_with(&config).await;
    client.put(Put::new("k", "v")).await.unwrap();
    assert_eq!(client.get("k").await.unwrap().unwrap().value, b"v");
    let error = Client::connect(&Config::new([dead.clone()])).await.err().unwrap();
    assert!(
        error.passes() && error.to_string().contains(&dead) && error.to_string().contains("refused"),
        "{error}"
    );
}

#[tokio::test]
async fn a_restart_breaks_the_watch_and_nothing_else() {
    let Some(mut etcd) = Etcd::start() else { return };
    let client = etcd.client().await;
    let (revision, _) = client.put(Put::new("k", "v")).await.unwrap();
    let mut watcher = client.watch(Watch::new(KeyRange::one("k"))).await.unwrap();
    etcd.stop();
    let error = in_time(watcher.next()).await.unwrap_err();
    assert!(error.passes(), "{error}");
    let error = client.get("k").await.unwrap_err();
    assert!(error.passes() && error.to_string().contains(&etcd.client_url), "{error}");
    etcd.run();
    let end = Instant::now() + DEADLINE;
    let value = loop {
        match client.get("k").await {
            Ok(kv) => break kv.unwrap().value,
            Err(error) => assert!(error.passes() && Instant::now() < end, "{error}"),
        }
        tokio::time::sleep(Duration::from_millis(50)).await;
    };
    assert_eq!(value, b"v");
    let mut watch = Watch::new(KeyRange::one("k"));
    watch.start = Some(revision);
    let mut watcher = client.watch(watch).await.unwrap();
    assert_eq!(in_time(watcher.next()).await.unwrap().changes.len(), 1);
}

#[tokio::test]
async fn a_user_logs_in_and_logs_in_again() {
    let Some(mut etcd) = Etcd::start() else { return };
    let client = etcd.client().await;
    client.enable_authentication("secret").await.unwrap();
    let error = client.get("k").await.unwrap_err();
    assert!(!error.passes(), "{error}");
    let mut config = etcd.config();
    config.user = Some(("root".into(), "wrong".into()));
    let error = Client::connect(&config).await.err().unwrap();
    assert!(matches!(&error, EtcdError::Authentication { user, .. } if user == "root"), "{error}");
    config.user = Some(("root".into(), "secret".into()));
    let client = etcd.client_with(&config).await;
    client.put(Put::new("k", "v")).await.unwrap();
    let mut watcher = client.watch(Watch::new(KeyRange::one("k"))).await.unwrap();
    client.put(Put::new("k", "w")).await.unwrap();
    assert_eq!(in_time(watcher.next()).await.unwrap().changes.len(), 1);
    // A server that restarted knows no token it gave before.
    etcd.stop();
    etcd.run();
    let end = Instant::now() + DEADLINE;
    while let Err(error) = client.put(Put::new("k", "x")).await {
        assert!(error.passes() && Instant::now() < end, "{error}");
        tokio::time::sleep(Duration::from_millis(50)).await;
    }
}

fn openssl(dir: &Path, arguments: &str) {
    let output =
        Command::new("openssl").current_dir(dir).args(arguments.split(' ')).output().expect("openssl");
    assert!(output.status.success(), "openssl {arguments}: {}", String::from_utf8_lossy(&output.stderr));
}

/// An authority, a server's and a client's certificate from it, and another authority's client.
fn certificates(dir: &Path) {
    std::fs::write(
        dir.join("server.ext"),
        "subjectAltName=IP:127.0.0.1\nextendedKeyUsage=serverAuth,clientAuth\n",
    )
    .expect("write");
    std::fs::write(dir.join("client.ext"), "extendedKeyUsage=clientAuth\n").expect("write");
    const NEW: &str = "-newkey ec -pkeyopt ec_paramgen_curve:prime256v1 -nodes";
    for ca in ["ca", "other"] {
        openssl(dir, &format!("req -x509 {NEW} -keyout {ca}.key -out {ca}.pem -subj /CN={ca} -days 2"));
    }
    for (name, ca, ext) in
        [("server", "ca", "server"), ("client", "ca", "client"), ("stranger", "other", "client")]
    {
        openssl(dir, &format!("req {NEW} -keyout {name}.key -out {name}.csr -subj /CN={name}"));
        openssl(
            dir,
            &format!(
                "x509 -req -in {name}.csr -CA {ca}.pem -CAkey {ca}.key -CAcreateserial -out {name}.pem -days 2 \
                 -extfile {ext}.ext"
            ),
        );
    }
}

#[tokio::test]
async fn both_sides_show_certificates() {
    if Command::new("openssl").arg("version").stdout(Stdio::null()).status().is_err() {
        println!("SKIP: openssl is not installed");
        return;
    }
    let dir = tempfile::tempdir().unwrap();
    certificates(dir.path());
    let file = |name: &str| dir.path().join(name);
    let flag = |flag: &str, name: &str| format!("--{flag}={}", file(name).display());
    let Some(etcd) = Etcd::start_with("https", || {
        vec![
            flag("cert-file", "server.pem"),
            flag("key-file", "server.key"),
            flag("trusted-ca-file", "ca.pem"),
            "--client-cert-auth".into(),
        ]
    }) else {
        return;
    };
    let mut config = etcd.config();
    config.tls.ca = Some(file("ca.pem"));
    config.tls.identity = Some((file("client.pem"), file("client.key")));
    let client = etcd.client_with(&config).await;
    client.put(Put::new("k", "v")).await.unwrap();

    config.tls.ca = Some(file("other.pem"));
    let error = Client::connect(&config).await.err().unwrap();
    assert!(error.to_string().contains("invalid peer certificate"), "{error}");
    config.tls.ca = Some(file("ca.pem"));
    config.tls.identity = Some((file("stranger.pem"), file("stranger.key")));
    let refused = match Client::connect(&config).await {
        Ok(client) => client.get("k").await.err().unwrap(),
        Err(error) => error,
    };
    assert!(refused.passes(), "{refused}");
    config.tls.identity = Some((file("none.pem"), file("client.key")));
    let error = Client::connect(&config).await.err().unwrap();
    assert!(error.to_string().contains("none.pem"), "{error}");
    let mut plain = Config::new(["http://127.0.0.1:1"]);
    plain.tls.ca = Some(file("ca.pem"));
    let error = Client::connect(&plain).await.err().unwrap();
    assert!(error.to_string().contains("write https://"), "{error}");
}
