//! A static node list: one YAML or JSON file, the same on every node, watched.
//!
//! ```yaml
//! nodes:
//! - name: node-a
//!   podCIDRs: [10.244.1.0/24, "fd42:244:0:1::/64"]
//!   publicIPs: [192.0.2.1, "2001:db8::1"]
//! ```
//!
//! Nobody publishes into a file, so the tunnel device's MAC is made from the node's name, alike on all nodes;
//! `vtepMAC` and `vtepMACv6` give another one, for a node whose tunnel is set up by others. A file that cannot be
//! understood changes nothing: the last good list stays and [`Snapshot::fault`] says why.

use std::net::IpAddr;
use std::path::{Path, PathBuf};

use corten_netlink::route::Mac;
use futures::FutureExt;
use futures::future::BoxFuture;
use ipnetwork::{IpNetwork, Ipv4Network, Ipv6Network};
use serde::Deserialize;
use tokio::sync::watch;

use super::admit::admit;
use super::{Announcement, NodeSource, Remembered, Snapshot, SourceError, local_node, publish};
use crate::net_conf::{BackendConf, NetConf};
use crate::node::{Backend, Dual, Node, PodCidrs, PublicIps};
use crate::watched::Watched;

/// A list of ten thousand nodes has about 1.5 MB.
const MAX_BYTES: u64 = 16 << 20;

#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
struct List {
    nodes: Vec<Entry>,
}

#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
struct Entry {
    name: String,
    #[serde(rename = "podCIDRs")]
    pod_cidrs: Vec<String>,
    #[serde(rename = "publicIPs")]
    public_ips: Vec<IpAddr>,
    #[serde(rename = "vtepMAC")]
    vtep_mac: Option<String>,
    #[serde(rename = "vtepMACv6")]
    vtep_mac_v6: Option<String>,
}

pub struct FileSource {
    file: PathBuf,
    node: String,
    conf: NetConf,
    announced: watch::Sender<Option<Announcement>>,
}

impl FileSource {
    /// `node`: which of the list this node is.
    pub fn new(file: &Path, node: &str, conf: NetConf) -> Self {
        Self { file: file.to_owned(), node: node.to_owned(), conf, announced: watch::Sender::new(None) }
    }

    fn list(&self) -> Result<Vec<Node>, SourceError> {
        let text = read(&self.file)?;
        parse(&text, &self.conf).map_err(|problem| self.invalid(problem))
    }

    fn invalid(&self, problem: String) -> SourceError {
        SourceError::Invalid { place: format!("node list {}", self.file.display()), problem }
    }

    fn find<'a>(&self, nodes: &'a [Node]) -> Result<&'a Node, SourceError> {
        nodes.iter().find(|node| node.name == self.node).ok_or_else(|| SourceError::NoSuchNode {
            node: self.node.clone(),
            place: format!("node list {}", self.file.display()),
            remedy: "add it, or say with --node-name which of the list this node is".into(),
        })
    }

    fn local(&self, nodes: &[Node], announcement: &Announcement) -> Result<Node, SourceError> {
        let place = format!("node list {}", self.file.display());
        let listed = self.find(nodes)?;
        // The others go by the list, whatever the uplink has.
        let told = announcement.public_ips;
        let public_ips = Dual { v4: listed.public_ips.v4.or(told.v4), v6: listed.public_ips.v6.or(told.v6) };
        let announcement = Announcement { public_ips, ..announcement.clone() };
        local_node(&self.conf, &self.node, &place, listed.pod_cidrs, &announcement)
    }
}

fn read(file: &Path) -> Result<String, SourceError> {
    use std::io::Read;
    let at = |error| SourceError::Read { file: file.display().to_string(), error };
    let mut text = String::new();
    let opened = std::fs::File::open(file).map_err(at)?;
    opened.take(MAX_BYTES + 1).read_to_string(&mut text).map_err(at)?;
    if text.len() as u64 > MAX_BYTES {
        return Err(at(std::io::Error::other(format!("larger than {MAX_BYTES} bytes"))));
    }
    Ok(text)
}

/// JSON when it begins as such (it is ten times faster), else YAML.
fn parse(text: &str, conf: &NetConf) -> Result<Vec<Node>, String> {
    let list: List = if text.trim_start().starts_with('{') {
        serde_json::from_str(text).map_err(|error| error.to_string())?
    } else {
        serde_yaml_ng::from_str(text).map_err(|error| error.to_string())?
    };
    let mut names = std::collections::HashSet::new();
    if let Some(twice) = list.nodes.iter().find(|entry| !names.insert(entry.name.as_str())) {
        return Err(format!("node {} stands there twice; remove one", twice.name));
    }
    list.nodes
        .iter()
        .map(|entry| node(entry, conf).map_err(|problem| format!("node {}: {problem}", entry.name)))
        .collect()
}

fn node(entry: &Entry, conf: &NetConf) -> Result<Node, String> {
    if entry.name.is_empty() {
        return Err("name is empty".into());
    }
    Ok(Node {
        name: entry.name.clone(),
        pod_cidrs: pod_cidrs(&entry.pod_cidrs)?,
        public_ips: public_ips(&entry.public_ips)?,
        backend: match conf.backend {
            BackendConf::HostGw => Backend::HostGw,
            BackendConf::Vxlan(vxlan) => Backend::Vxlan {
                vni: vxlan.vni,
                vtep: Dual {
                    v4: Some(mac("vtepMAC", entry.vtep_mac.as_ref(), &entry.name, "v4")?),
                    v6: Some(mac("vtepMACv6", entry.vtep_mac_v6.as_ref(), &entry.name, "v6")?),
                },
            },
        },
    })
}

/// At most one range a family, without host bits.
pub(super) fn pod_cidrs<Text: AsRef<str>>(list: &[Text]) -> Result<PodCidrs, String> {
    let mut cidrs = PodCidrs::default();
    for text in list.iter().map(AsRef::as_ref) {
        let wrong = |why: &str| format!("pod CIDR {text} {why}");
        if !text.contains('/') {
            return Err(wrong("has no prefix length; write it like 10.244.1.0/24"));
        }
        let twice = match text.parse().map_err(|_| wrong("is no range such as 10.244.1.0/24"))? {
            IpNetwork::V4(cidr) => cidrs
                .v4
                .replace(Ipv4Network::new(cidr.network(), cidr.prefix()).expect("valid before"))
                .is_some(),
            IpNetwork::V6(cidr) => cidrs
                .v6
                .replace(Ipv6Network::new(cidr.network(), cidr.prefix()).expect("valid before"))
                .is_some(),
        };
        if twice {
            return Err(wrong("is the second of its family; a node has one of each"));
        }
    }
    Ok(cidrs)
}

fn public_ips(list: &[IpAddr]) -> Result<PublicIps, String> {
    let mut ips = PublicIps::default();
    for ip in list {
        let twice = match ip {
            IpAddr::V4(ip) => ips.v4.replace(*ip).is_some(),
            IpAddr::V6(ip) => ips.v6.replace(*ip).is_some(),
        };
        if twice {
            return Err(format!("public IP {ip} is the second of its family; a node has one of each"));
        }
    }
    Ok(ips)
}

fn mac(key: &str, given: Option<&String>, name: &str, family: &str) -> Result<Mac, String> {
    match given {
        Some(text) => text.parse().map_err(|error| format!("{key}: {error}")),
        None => Ok(vtep_mac(name, family)),
    }
}

/// A locally administered address that every node makes alike from `name`: 46 bits of FNV-1a. Two names that meet
/// (one in 10⁸ for a thousand nodes) are found as a clone by [`admit`].
pub fn vtep_mac(name: &str, family: &str) -> Mac {
    let bytes = [b"corten vtep ", family.as_bytes(), b" ", name.as_bytes()].concat();
    let hash = bytes.iter().fold(0xcbf2_9ce4_8422_2325_u64, |hash, byte| {
        (hash ^ u64::from(*byte)).wrapping_mul(0x0100_0000_01b3)
    });
    // Names differ at their end, which FNV brings to the low bits alone.
    let mixed = (hash ^ (hash >> 31)).wrapping_mul(0x94d0_49bb_1331_11eb);
    let [first, rest @ .., _, _] = mixed.to_be_bytes();
    let mut mac = [0; 6];
    mac[0] = (first & 0xfc) | 0x02;
    mac[1..].copy_from_slice(&rest);
    Mac(mac)
}

impl NodeSource for FileSource {
    fn name(&self) -> String {
        format!("node list {}", self.file.display())
    }

    fn net_conf(&self) -> &NetConf {
        &self.conf
    }

    fn remembered(&self) -> BoxFuture<'_, Result<Remembered, SourceError>> {
        let remembered = self.list().and_then(|nodes| {
            let node = self.find(&nodes)?;
            let vtep = match node.backend {
                Backend::HostGw => Dual::default(),
                Backend::Vxlan { vtep, .. } => vtep,
            };
            Ok(Remembered { vtep, public_ips: node.public_ips })
        });
        std::future::ready(remembered).boxed()
    }

    fn acquire<'a>(&'a self, announcement: &'a Announcement) -> BoxFuture<'a, Result<Node, SourceError>> {
        let local = self.list().and_then(|nodes| self.local(&nodes, announcement));
        if local.is_ok() {
            self.announced.send_replace(Some(announcement.clone()));
        }
        std::future::ready(local).boxed()
    }

    fn watch(&self) -> BoxFuture<'_, Result<watch::Receiver<Snapshot>, SourceError>> {
        let watcher = Watcher {
            source: Self::new(&self.file, &self.node, self.conf.clone()),
            announced: self.announced.subscribe(),
        };
        // Watched before it is read: a change in between is seen twice, none is missed.
        let watched = Watched::around(&self.file);
        let first = watcher.snapshot(None);
        std::future::ready(first.map(|first| {
            let (sender, receiver) = publish::channel(first);
            tokio::spawn(watcher.run(watched, sender));
            receiver
        }))
        .boxed()
    }

    fn network_is_up(&self) -> BoxFuture<'_, Result<(), SourceError>> {
        std::future::ready(Ok(())).boxed()
    }
}

struct Watcher {
    source: FileSource,
    announced: watch::Receiver<Option<Announcement>>,
}

impl Watcher {
    fn snapshot(&self, previous: Option<&Snapshot>) -> Result<Snapshot, SourceError> {
        let announcement = self.announced.borrow().clone().expect("watch comes after acquire");
        let nodes = self.source.list()?;
        let local = self.source.local(&nodes, &announcement)?;
        Ok(admit(&self.source.conf, local, previous, nodes))
    }

    async fn run(mut self, mut watched: Watched, sender: watch::Sender<Snapshot>) {
        loop {
            tokio::select! {
                () = sender.closed() => return,
                () = watched.changed() => {}
                changed = self.announced.changed() => if changed.is_err() { return },
            }
            publish::publish(&sender, |previous| {
                self.snapshot(Some(previous)).unwrap_or_else(|error| Snapshot {
                    fault: Some(format!("{error}; the last good list stays")),
                    ..previous.clone()
                })
            });
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::time::Duration;

    const LIST: &str = "
nodes:
- name: a
  podCIDRs: [10.244.1.0/24]
  publicIPs: [192.0.2.1]
- name: b
  podCIDRs: [10.244.2.0/24]
  publicIPs: [192.0.2.2]
  vtepMAC: 02:00:00:00:00:0b
";

    fn conf() -> NetConf {
        r#"{"Network": "10.244.0.0/16", "Backend": {"Type": "vxlan"}}"#.parse().unwrap()
    }

    fn announcement() -> Announcement {
        Announcement {
            public_ips: Dual { v4: Some("192.0.2.1".parse().unwrap()), v6: None },
            backend: Backend::Vxlan { vni: 1, vtep: Dual { v4: Some(vtep_mac("a", "v4")), v6: None } },
        }
    }

    /// A source of node a on a file of its own, and the file.
    fn source(list: &str) -> (tempfile::TempDir, FileSource) {
        let dir = tempfile::tempdir().unwrap();
        let file = dir.path().join("nodes.yaml");
        std::fs::write(&file, list).unwrap();
        (dir, FileSource::new(&file, "a", conf()))
    }

    #[tokio::test]
    async fn macs_are_the_same_on_all_nodes_unless_given() {
        let (_dir, a) = source(LIST);
        let remembered = a.remembered().await.unwrap();
        assert_eq!(remembered.vtep.v4, Some(vtep_mac("a", "v4")));
        assert_ne!(vtep_mac("a", "v4"), vtep_mac("a", "v6"));
        assert_ne!(vtep_mac("a", "v4"), vtep_mac("b", "v4"));
        assert_eq!(vtep_mac("a", "v4").0[0] & 3, 2, "locally administered, unicast");
        a.acquire(&announcement()).await.unwrap();
        let snapshot = a.watch().await.unwrap().borrow().clone();
        let Backend::Vxlan { vtep, .. } = snapshot.peers[0].backend else { panic!() };
        assert_eq!(vtep.v4.unwrap().to_string(), "02:00:00:00:00:0b");
    }

    #[tokio::test]
    async fn an_edit_is_a_new_snapshot_and_a_bad_one_keeps_the_last_good_list() {
        let (dir, a) = source(LIST);
        assert_eq!(
            a.acquire(&announcement()).await.unwrap().pod_cidrs.v4.unwrap().to_string(),
            "10.244.1.0/24"
        );
        let mut nodes = a.watch().await.unwrap();
        let edit = |text: &str| {
            let new = dir.path().join("new");
            std::fs::write(&new, text).unwrap();
            std::fs::rename(&new, dir.path().join("nodes.yaml")).unwrap();
        };
        let wait = Duration::from_secs(5);
        edit("nodes: [");
        let bad =
            tokio::time::timeout(wait, nodes.wait_for(|s| s.fault.is_some())).await.unwrap().unwrap().clone();
        assert_eq!(bad.peers.len(), 1);
        assert!(bad.fault.unwrap().contains("nodes.yaml"), "the file is named");
        edit(&LIST.replace("10.244.2.0", "10.244.9.0"));
        let good =
            tokio::time::timeout(wait, nodes.wait_for(|s| s.fault.is_none())).await.unwrap().unwrap().clone();
        assert_eq!(good.peers[0].pod_cidrs.v4.unwrap().to_string(), "10.244.9.0/24");
        edit("nodes: []");
        let gone =
            tokio::time::timeout(wait, nodes.wait_for(|s| s.fault.is_some())).await.unwrap().unwrap().clone();
        assert!(gone.fault.unwrap().contains("node a is not in"), "a list without this node is no list");
    }

    #[tokio::test]
    async fn a_new_address_of_this_node_is_a_new_snapshot() {
        let (dir, a) = source(LIST);
        a.acquire(&announcement()).await.unwrap();
        let mut nodes = a.watch().await.unwrap();
        let moved: Option<std::net::Ipv4Addr> = Some("192.0.2.77".parse().unwrap());
        // In the list: what the others send to, whatever was announced at the start.
        let new = dir.path().join("new");
        std::fs::write(&new, LIST.replace("192.0.2.1", "192.0.2.77")).unwrap();
        std::fs::rename(&new, &a.file).unwrap();
        let found = nodes.wait_for(|s| s.local.public_ips.v4 == moved);
        tokio::time::timeout(Duration::from_secs(5), found).await.unwrap().unwrap();
        // Announced, where the list says nothing.
        std::fs::write(&new, LIST.replace("publicIPs: [192.0.2.1", "publicIPs: [")).unwrap();
        std::fs::rename(&new, &a.file).unwrap();
        let announced = Announcement { public_ips: Dual { v4: moved, v6: None }, ..announcement() };
        a.acquire(&announced).await.unwrap();
        let found = nodes.wait_for(|s| s.local.public_ips == announced.public_ips);
        tokio::time::timeout(Duration::from_secs(5), found).await.unwrap().unwrap();
    }

    #[test]
    fn what_is_wrong_in_a_list_is_said() {
        let table = [
            (
                "nodes: [{name: a, podCIDRs: [10.0.0.0/33], publicIPs: []}]",
                "node a: pod CIDR 10.0.0.0/33 is no range",
            ),
            ("nodes: [{name: a, podCIDRs: [10.0.0.0], publicIPs: []}]", "has no prefix length"),
            (
                "nodes: [{name: a, podCIDRs: [10.0.0.0/24, 10.0.1.0/24], publicIPs: []}]",
                "10.0.1.0/24 is the second of its family",
            ),
            (
                "nodes: [{name: a, podCIDRs: [], publicIPs: []}, {name: a, podCIDRs: [], publicIPs: []}]",
                "node a stands there twice",
            ),
            ("nodes: [{name: a, podCIDRs: [], publicIPs: [], vtepMAC: x}]", "vtepMAC: "),
            ("nodes: [{name: a, podCIDRs: [], publicIPs: [], mtu: 3}]", "mtu"),
            ("{\"nodes\": 3}", "invalid type"),
        ];
        for (text, wanted) in table {
            let error = parse(text, &conf()).unwrap_err();
            assert!(error.contains(wanted), "{text}: {error}");
        }
    }

    #[tokio::test]
    async fn a_pod_cidr_that_is_missing_may_come_and_one_outside_is_final() {
        let (_dir, a) = source(&LIST.replace("[10.244.1.0/24]", "[]"));
        let error = a.acquire(&announcement()).await.unwrap_err();
        assert!(!error.is_final() && error.to_string().contains("node a has no pod CIDR of IPv4"), "{error}");
        let (_dir, a) = source(&LIST.replace("10.244.1.0/24", "10.9.1.0/24"));
        let error = a.acquire(&announcement()).await.unwrap_err();
        assert!(
            error.is_final() && error.to_string().contains("not inside the network 10.244.0.0/16"),
            "{error}"
        );
    }
}
