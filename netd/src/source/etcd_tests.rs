//! Choosing a subnet, and the source against Debian's etcd: real processes on temporary directories and ports.

use std::net::TcpListener;
use std::process::{Child, Command, Stdio};

use corten_netlink::route::Mac;

use super::*;
use crate::node::{Backend, PublicIps};

const DEADLINE: Duration = Duration::from_secs(20);

fn conf(subnet_max: &str) -> NetConf {
    format!(r#"{{"Network": "10.5.0.0/16", "SubnetMax": "{subnet_max}", "Backend": {{"Type": "vxlan"}}}}"#)
        .parse()
        .unwrap()
}

fn announcement(last: u8) -> Announcement {
    Announcement {
        public_ips: PublicIps { v4: Some([192, 0, 2, last].into()), v6: None },
        backend: Backend::Vxlan { vni: 1, vtep: Dual { v4: Some(Mac([2, 0, 0, 0, 0, last])), v6: None } },
    }
}

fn cidrs(text: &str) -> PodCidrs {
    PodCidrs { v4: Some(text.parse().unwrap()), v6: None }
}

fn lease_of(last: u8, cidr: &str) -> Found {
    let cidrs = cidrs(cidr);
    found("p/", format!("p/{}", key(cidrs)).as_bytes(), value(&announcement(last)).as_bytes()).unwrap()
}

#[test]
fn a_subnet_is_found_by_address_then_by_subnet_env_then_taken() {
    let pools = pools(&conf("10.5.3.0")).unwrap();
    let choice =
        |found: &[Found], previous: PodCidrs| choose(&pools, found, None, &announcement(1), previous);
    let none = PodCidrs::default();
    let others = [lease_of(2, "10.5.1.0/24"), lease_of(3, "10.5.2.0/24")];
    assert_eq!(choice(&others, none), Choice::Take(cidrs("10.5.3.0/24")), "the only free one");
    assert_eq!(choice(&[lease_of(2, "10.5.1.0/24"), lease_of(1, "10.5.2.0/24")], none), Choice::Keep(1));
    assert_eq!(choice(&others[..1], cidrs("10.5.2.0/24")), Choice::Take(cidrs("10.5.2.0/24")));
    assert_eq!(choice(&others, cidrs("10.5.2.0/24")), Choice::Take(cidrs("10.5.3.0/24")), "another has it");
    assert_eq!(
        choice(&others, cidrs("10.9.2.0/24")),
        Choice::Take(cidrs("10.5.3.0/24")),
        "of another network"
    );
    assert_eq!(choice(&[lease_of(1, "10.5.9.0/24")], none), Choice::Drop(0), "behind SubnetMax");
    assert_eq!(choice(&[lease_of(1, "10.5.2.0/25")], none), Choice::Drop(0), "another length");
    let all = [lease_of(2, "10.5.1.0/24"), lease_of(3, "10.5.2.0/24"), lease_of(4, "10.5.3.0/24")];
    assert_eq!(choice(&all, none), Choice::Exhausted);
    let held = choose(&pools, &all, Some("p/10.5.2.0-24"), &announcement(99), none);
    assert_eq!(held, Choice::Keep(1), "what is held stays when the address changes");
}

struct Etcd {
    process: Child,
    dir: tempfile::TempDir,
    url: String,
}

impl Drop for Etcd {
    fn drop(&mut self) {
        let _ = self.process.kill();
        let _ = self.process.wait();
    }
}

fn free_port() -> u16 {
    TcpListener::bind("127.0.0.1:0").expect("a port").local_addr().expect("address").port()
}

impl Etcd {
    /// `None` (after saying why) where there is no etcd.
    async fn start(conf: &str) -> Option<Self> {
        if Command::new("etcd").arg("--version").stdout(Stdio::null()).status().is_err() {
            println!("SKIP: etcd is not installed");
            return None;
        }
        let dir =
            tempfile::Builder::new().prefix("corten-netd-etcd-").tempdir().expect("temporary directory");
        let url = format!("http://127.0.0.1:{}", free_port());
        let etcd = Self { process: run(&dir, &url, free_port()), dir, url };
        let client = etcd.client().await;
        client.put(Put::new("/net/config", conf)).await.expect("put the configuration");
        Some(etcd)
    }

    async fn client(&self) -> Client {
        let all = async {
            loop {
                if let Ok(client) = Client::connect(&Config::new([&self.url])).await
                    && client.get("ready").await.is_ok()
                {
                    return client;
                }
                tokio::time::sleep(Duration::from_millis(50)).await;
            }
        };
        in_time(all).await
    }

    fn restart(&mut self) {
        let _ = self.process.kill();
        let _ = self.process.wait();
        self.process = run(&self.dir, &self.url, free_port());
    }

    fn options(&self) -> EtcdOptions {
        EtcdOptions {
            endpoints: vec![self.url.clone()],
            prefix: "/net/".into(),
            cafile: None,
            identity: None,
            user: None,
            renew_margin: Duration::from_hours(1),
        }
    }

    async fn source(&self) -> EtcdSource {
        EtcdSource::connect(&self.options(), PodCidrs::default()).await.expect("source")
    }
}

fn run(dir: &tempfile::TempDir, url: &str, peer_port: u16) -> Child {
    let log = std::fs::File::create(dir.path().join("log")).expect("log");
    let peer = format!("http://127.0.0.1:{peer_port}");
    Command::new("etcd")
        .arg("--data-dir")
        .arg(dir.path().join("data"))
        .arg(format!("--listen-client-urls={url}"))
        .arg(format!("--advertise-client-urls={url}"))
        .arg(format!("--listen-peer-urls={peer}"))
        .arg(format!("--initial-advertise-peer-urls={peer}"))
        .arg(format!("--initial-cluster=default={peer}"))
        .arg("--unsafe-no-fsync")
        .stdout(log.try_clone().expect("log"))
        .stderr(log)
        .spawn()
        .expect("start etcd")
}

async fn in_time<T>(future: impl Future<Output = T>) -> T {
    tokio::time::timeout(DEADLINE, future).await.expect("in time")
}

async fn until(nodes: &mut watch::Receiver<Snapshot>, wanted: impl FnMut(&Snapshot) -> bool) -> Snapshot {
    in_time(nodes.wait_for(wanted)).await.expect("watched").clone()
}

const CONF: &str = r#"{"Network": "10.5.0.0/16", "Backend": {"Type": "vxlan"}}"#;

#[tokio::test]
async fn nodes_take_subnets_and_see_each_other_come_move_and_go() {
    let Some(etcd) = Etcd::start(CONF).await else { return };
    let (a, b) = (etcd.source().await, etcd.source().await);
    let node_a = a.acquire(&announcement(1)).await.unwrap();
    let mut seen = a.watch().await.unwrap();
    assert!(seen.borrow().peers.is_empty());
    let node_b = b.acquire(&announcement(2)).await.unwrap();
    assert_ne!(node_a.pod_cidrs, node_b.pod_cidrs);
    let snapshot = until(&mut seen, |s| s.peers.len() == 1).await;
    assert_eq!((snapshot.peers[0].clone(), snapshot.local), (node_b.clone(), node_a.clone()));
    // b moves: the same subnet, another address, under the same key.
    let moved = b.acquire(&announcement(7)).await.unwrap();
    assert_eq!(moved.pod_cidrs, node_b.pod_cidrs);
    until(&mut seen, |s| s.peers == [moved.clone()]).await;
    // The key and value are flannel's, with a lease of a day.
    let client = etcd.client().await;
    let key = format!("/net/subnets/{}", key(node_b.pod_cidrs));
    let kv = client.get(key.as_str()).await.unwrap().unwrap();
    assert_eq!(String::from_utf8_lossy(&kv.value), value(&announcement(7)));
    let left = client.time_to_live(kv.lease.unwrap()).await.unwrap().ttl;
    assert!(left > Duration::from_hours(23), "{left:?}");
    client.put(Put::new("/net/subnets/10.5.77.0-24", "{")).await.unwrap();
    let snapshot = until(&mut seen, |s| !s.left_out.is_empty()).await;
    assert!(snapshot.left_out[0].node.contains("10.5.77.0-24"), "{:?}", snapshot.left_out);
    client.delete(&KeyRange::one(key), false).await.unwrap();
    until(&mut seen, |s| s.peers.is_empty()).await;
}

#[tokio::test]
async fn a_restart_finds_the_subnet_by_address_and_a_reservation_keeps_without_lease() {
    let Some(etcd) = Etcd::start(CONF).await else { return };
    let client = etcd.client().await;
    client.put(Put::new("/net/subnets/10.5.33.0-24", value(&announcement(3)))).await.unwrap();
    let first = etcd.source().await.acquire(&announcement(1)).await.unwrap();
    let again = etcd.source().await.acquire(&announcement(1)).await.unwrap();
    assert_eq!(first, again);
    let reserved = etcd.source().await.acquire(&announcement(3)).await.unwrap();
    assert_eq!(reserved.pod_cidrs, cidrs("10.5.33.0/24"));
    let kv = client.get("/net/subnets/10.5.33.0-24").await.unwrap().unwrap();
    assert_eq!(kv.lease, None, "a reservation stays one");
    let leases = client.range_all(KeyRange::prefix("/net/subnets/"), 100).await.unwrap();
    assert_eq!(leases.kvs.len(), 2);
    // Its lease gone with its node, subnet.env still says what it was.
    client.revoke(leases.kvs.iter().find_map(|kv| kv.lease).unwrap()).await.unwrap();
    let source = EtcdSource::connect(&etcd.options(), first.pod_cidrs).await.unwrap();
    assert_eq!(source.acquire(&announcement(5)).await.unwrap().pod_cidrs, first.pod_cidrs);
}

#[tokio::test]
async fn ten_nodes_at_once_take_ten_subnets() {
    let Some(etcd) = Etcd::start(CONF).await else { return };
    let takes = (1..=10).map(|last| {
        let options = etcd.options();
        tokio::spawn(async move {
            let source = EtcdSource::connect(&options, PodCidrs::default()).await.expect("source");
            source.acquire(&announcement(last)).await.expect("subnet").pod_cidrs.v4.expect("IPv4").to_string()
        })
    });
    let mut taken = Vec::new();
    for take in takes.collect::<Vec<_>>() {
        taken.push(in_time(take).await.unwrap());
    }
    taken.sort();
    taken.dedup();
    assert_eq!(taken.len(), 10);
}

#[tokio::test]
async fn a_revoked_lease_ends_the_watch() {
    let Some(etcd) = Etcd::start(CONF).await else { return };
    let source = etcd.source().await;
    let node = source.acquire(&announcement(1)).await.unwrap();
    let mut seen = source.watch().await.unwrap();
    let client = etcd.client().await;
    let kv = client.get(format!("/net/subnets/{}", key(node.pod_cidrs))).await.unwrap().unwrap();
    client.revoke(kv.lease.unwrap()).await.unwrap();
    in_time(async { while seen.changed().await.is_ok() {} }).await;
}

#[tokio::test]
async fn a_lease_is_renewed_before_its_end() {
    let Some(etcd) = Etcd::start(CONF).await else { return };
    let mut options = etcd.options();
    options.renew_margin = Duration::from_millis(2500);
    let source =
        EtcdSource::connect_with(&options, PodCidrs::default(), Duration::from_secs(4)).await.unwrap();
    let node = source.acquire(&announcement(1)).await.unwrap();
    let seen = source.watch().await.unwrap();
    tokio::time::sleep(Duration::from_secs(7)).await;
    assert!(seen.has_changed().is_ok(), "the node lives longer than its first lease");
    let key = format!("/net/subnets/{}", key(node.pod_cidrs));
    assert!(etcd.client().await.get(key).await.unwrap().is_some());
}

#[tokio::test]
async fn a_restart_of_etcd_loses_no_change() {
    let Some(mut etcd) = Etcd::start(CONF).await else { return };
    let source = etcd.source().await;
    source.acquire(&announcement(1)).await.unwrap();
    let mut seen = source.watch().await.unwrap();
    etcd.restart();
    until(&mut seen, |s| s.fault.is_some()).await;
    etcd.client().await;
    let node = etcd.source().await.acquire(&announcement(2)).await.unwrap();
    until(&mut seen, |s| s.fault.is_none() && s.peers == [node.clone()]).await;
}

#[tokio::test]
async fn what_was_missed_and_compacted_is_listed_anew() {
    let Some(etcd) = Etcd::start(CONF).await else { return };
    let source = etcd.source().await;
    source.acquire(&announcement(1)).await.unwrap();
    let mut follower = Follower::new(source.shared.clone());
    follower.list().await.unwrap();
    let (sender, mut seen) = watch::channel(follower.snapshot(None, None));
    let node = etcd.source().await.acquire(&announcement(2)).await.unwrap();
    let client = etcd.client().await;
    let (revision, _) = client.put(Put::new("/else", "x")).await.unwrap();
    client.compact(revision).await.unwrap();
    tokio::spawn(follower.run(sender));
    until(&mut seen, |s| s.peers == [node.clone()]).await;
    assert_eq!(seen.borrow().fault, None);
    // And the same when it was this node's lease that went meanwhile.
    let mut follower = Follower::new(source.shared.clone());
    follower.list().await.unwrap();
    let (sender, mut seen) = watch::channel(follower.snapshot(None, None));
    client.delete(&KeyRange::prefix("/net/subnets/"), false).await.unwrap();
    let (revision, _) = client.put(Put::new("/else", "y")).await.unwrap();
    client.compact(revision).await.unwrap();
    tokio::spawn(follower.run(sender));
    in_time(async { while seen.changed().await.is_ok() {} }).await;
}

#[tokio::test]
async fn what_is_wrong_in_etcd_is_said() {
    let Some(etcd) =
        Etcd::start(r#"{"Network": "10.5.0.0/16", "SubnetLen": 17, "Backend": {"Type": "vxlan"}}"#).await
    else {
        return;
    };
    let connect = || async { EtcdSource::connect(&etcd.options(), PodCidrs::default()).await.err().unwrap() };
    let error = connect().await;
    assert!(
        error.is_final() && error.to_string().contains("key /net/config of etcd: SubnetLen is 17"),
        "{error}"
    );
    let client = etcd.client().await;
    client.put(Put::new("/net/config", r#"{"Network": "10.5.0.0/16"}"#)).await.unwrap();
    let error = connect().await;
    assert!(error.is_final() && error.to_string().contains("Backend is missing"), "{error}");
    client.delete(&KeyRange::one("/net/config"), false).await.unwrap();
    let error = connect().await;
    assert!(!error.is_final() && error.to_string().contains("etcdctl put /net/config"), "{error}");
    let tiny = r#"{"Network": "10.5.0.0/28", "Backend": {"Type": "vxlan"}}"#;
    client.put(Put::new("/net/config", tiny)).await.unwrap();
    for last in 1..=3 {
        etcd.source().await.acquire(&announcement(last)).await.unwrap();
    }
    let error = etcd.source().await.acquire(&announcement(4)).await.unwrap_err();
    assert!(
        !error.is_final() && error.to_string().contains("no free subnet in 10.5.0.0/28: 3 nodes"),
        "{error}"
    );
}
