//! Two nodes on a wire, each with a bridge and pods, the overlay between them set up by hand as flanneld does.

use std::collections::BTreeMap;
use std::net::IpAddr;
use std::path::PathBuf;
use std::process::{Command, Stdio};
use std::time::Duration;

use corten_ebpf::datapath::{Hook, Reason};
use corten_netd::fastpath::{Fastpath, Input, Options};
use corten_netd::net_conf::{BackendConf, VxlanConf};
use corten_netd::node::{Backend, Dual, Node as ClusterNode};
use corten_netd::options::Fastpath as Wish;
use corten_netlink::route::Mac;

use super::{Background, Netns, Stage};

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Overlay {
    Vxlan,
    HostGw,
    /// vxlan with DirectRouting: the nodes share a layer 2, so plain routes.
    Direct,
    /// vxlan, made by corten-netd itself.
    Daemon,
}

/// Node `number` (1 or 2): underlay 192.0.2.N and 2001:db8::N, pods 10.244.N.0/24 and fd00:N::/64.
pub struct Node {
    pub number: u8,
    pub netns: Netns,
    pub overlay: Overlay,
    pub fastpath: Fastpath,
    pub bpf_dir: PathBuf,
    uplink: u32,
    pods: u8,
}

pub struct Pod {
    pub netns: Netns,
    pub v4: IpAddr,
    pub v6: IpAddr,
    pub veth: String,
}

impl Pod {
    pub fn ips(&self) -> [IpAddr; 2] {
        [self.v4, self.v6]
    }
}

pub fn two_nodes(stage: &Stage, overlay: Overlay) -> [Node; 2] {
    let (a, b) = (stage.netns("node1"), stage.netns("node2"));
    a.sh(&format!("ip link add eth0 type veth peer name eth0 netns {}", b.path.display()));
    [node(stage, 1, a, overlay), node(stage, 2, b, overlay)]
}

fn node(stage: &Stage, number: u8, netns: Netns, overlay: Overlay) -> Node {
    let other = 3 - number;
    netns.sh(&format!(
        "ip addr add 192.0.2.{number}/24 dev eth0; ip addr add 2001:db8::{number}/64 dev eth0 nodad
         ip link set eth0 up
         ip link add cni0 type bridge; ip link set cni0 address 0a:58:0a:f4:0{number}:01 up
         ip addr add 10.244.{number}.1/24 dev cni0; ip addr add fd00:{number}::1/64 dev cni0 nodad"
    ));
    match overlay {
        Overlay::Daemon => {}
        Overlay::HostGw | Overlay::Direct => drop(netns.sh(&format!(
            "ip route add 10.244.{other}.0/24 via 192.0.2.{other}; ip route add fd00:{other}::/64 via 2001:db8::{other}"
        ))),
        Overlay::Vxlan => drop(netns.sh(&format!(
            "ip link add flannel.1 address {} type vxlan id 1 dev eth0 local 192.0.2.{number} dstport 8472 nolearning
             ip link add flannel-v6.1 address {} type vxlan id 1 dev eth0 local 2001:db8::{number} dstport 8472 \
                 nolearning udp6zerocsumrx
             ip addr add 10.244.{number}.0/32 dev flannel.1; ip addr add fd00:{number}::/128 dev flannel-v6.1 nodad
             ip link set flannel.1 up; ip link set flannel-v6.1 up
             ip neigh add 10.244.{other}.0 lladdr {} dev flannel.1 nud permanent
             ip neigh add fd00:{other}:: lladdr {} dev flannel-v6.1 nud permanent
             bridge fdb add {} dev flannel.1 dst 192.0.2.{other} self permanent
             bridge fdb add {} dev flannel-v6.1 dst 2001:db8::{other} self permanent
             ip route add 10.244.{other}.0/24 via 10.244.{other}.0 dev flannel.1 onlink
             ip route add fd00:{other}::/64 via fd00:{other}:: dev flannel-v6.1 onlink",
            vtep(number, 4),
            vtep(number, 6),
            vtep(other, 4),
            vtep(other, 6),
            vtep(other, 4),
            vtep(other, 6),
        ))),
    }
    let uplink = netns.index("eth0");
    let options = options(stage, number);
    let fastpath = netns.within(|| Fastpath::new(options).expect("sockets"));
    let bpf_dir = stage.path("bpf").join(format!("node{number}"));
    Node { number, netns, overlay, fastpath, bpf_dir, uplink, pods: 1 }
}

pub fn options(stage: &Stage, number: u8) -> Options {
    Options {
        wish: Wish::Auto,
        directory: stage.path("bpf").join(format!("node{number}")),
        bridge: "cni0".into(),
        zero_checksum_v6: true,
    }
}

fn vtep(number: u8, family: u8) -> Mac {
    Mac([2, 0, 0, 0, family, number])
}

fn cluster_node(number: u8, overlay: Overlay) -> ClusterNode {
    let backend = match overlay {
        Overlay::HostGw => Backend::HostGw,
        Overlay::Vxlan | Overlay::Direct | Overlay::Daemon => {
            Backend::Vxlan { vni: 1, vtep: Dual { v4: Some(vtep(number, 4)), v6: Some(vtep(number, 6)) } }
        }
    };
    ClusterNode {
        name: format!("node{number}"),
        pod_cidrs: Dual {
            v4: Some(format!("10.244.{number}.0/24").parse().expect("a CIDR")),
            v6: Some(format!("fd00:{number}::/64").parse().expect("a CIDR")),
        },
        public_ips: Dual {
            v4: Some(format!("192.0.2.{number}").parse().expect("an address")),
            v6: Some(format!("2001:db8::{number}").parse().expect("an address")),
        },
        backend,
    }
}

impl Node {
    pub fn input(&self) -> Input {
        Input {
            local: cluster_node(self.number, self.overlay),
            peers: vec![cluster_node(3 - self.number, self.overlay)],
            networks: Dual {
                v4: Some("10.244.0.0/16".parse().expect("a CIDR")),
                v6: Some("fd00::/16".parse().expect("a CIDR")),
            },
            backend: match self.overlay {
                Overlay::HostGw => BackendConf::HostGw,
                Overlay::Vxlan | Overlay::Daemon => BackendConf::Vxlan(VxlanConf::default()),
                Overlay::Direct => {
                    BackendConf::Vxlan(VxlanConf { direct_routing: true, ..VxlanConf::default() })
                }
            },
            uplink: self.uplink,
        }
    }

    /// A pass that must succeed and find nothing wrong.
    pub fn pass(&mut self) {
        let input = self.input();
        let (netns, fastpath) = (&self.netns, &mut self.fastpath);
        let status = netns.within(|| fastpath.pass(&input).expect("a pass").clone());
        assert!(status.errors.is_empty(), "{status}");
    }

    /// A pod at the next free address.
    pub fn pod(&mut self, stage: &Stage) -> Pod {
        self.pods += 1;
        self.pod_at(stage, self.pods)
    }

    pub fn pod_at(&mut self, stage: &Stage, last: u8) -> Pod {
        let number = self.number;
        let name = format!("pod{number}-{last}-{}", unique());
        let netns = stage.netns(&name);
        let veth = format!("veth{number}{last}");
        let mtu = if self.overlay == Overlay::HostGw { 1500 } else { 1430 };
        self.netns.sh(&format!(
            "ip link add {veth} mtu {mtu} type veth peer name eth0 mtu {mtu} netns {}; ip link set {veth} master cni0 up",
            netns.path.display()
        ));
        netns.sh(&format!(
            "ip addr add 10.244.{number}.{last}/24 dev eth0; ip addr add fd00:{number}::{last:x}/64 dev eth0 nodad
             ip link set eth0 up
             ip route add default via 10.244.{number}.1; ip -6 route add default via fd00:{number}::1"
        ));
        Pod {
            netns,
            veth,
            v4: format!("10.244.{number}.{last}").parse().expect("an address"),
            v6: format!("fd00:{number}::{last:x}").parse().expect("an address"),
        }
    }

    pub fn delete_pod(&self, pod: Pod) {
        self.netns.sh(&format!("ip link del {}", pod.veth));
    }

    pub fn counters(&self) -> BTreeMap<(&'static str, &'static str), u64> {
        let name = |hook| if hook == Hook::FromPod { "from-pod" } else { "from-nic" };
        self.fastpath
            .counters()
            .into_iter()
            .map(|(hook, reason, n)| ((name(hook), reason.name()), n))
            .collect()
    }

    pub fn count(&self, hook: &'static str, reason: Reason) -> u64 {
        self.counters().get(&(hook, reason.name())).copied().unwrap_or_default()
    }
}

/// corten-netd, running on a node of [`Overlay::Daemon`].
pub struct Daemon {
    pub process: Background,
    pub directory: PathBuf,
}

impl Daemon {
    /// With these options beside the usual ones.
    pub fn start(stage: &Stage, node: &Node, more: &[&str]) -> Self {
        let number = node.number;
        let directory = stage.path(&format!("netd{number}"));
        let file = |name: &str, text: &str| {
            let path = stage.path(name);
            std::fs::write(&path, text).expect("written");
            path
        };
        let nodes = [1, 2].map(|n| {
            format!("- {{name: node{n}, podCIDRs: [10.244.{n}.0/24, 'fd00:{n}::/64'], publicIPs: [192.0.2.{n}, '2001:db8::{n}']}}")
        });
        let list = file("nodes.yaml", &format!("nodes:\n{}\n", nodes.join("\n")));
        let conf = file(
            "net-conf.json",
            r#"{"Network": "10.244.0.0/16", "EnableIPv6": true, "IPv6Network": "fd00::/16", "Backend": {"Type": "vxlan"}}"#,
        );
        let mut command = node.netns.command(env!("CARGO_BIN_EXE_corten-netd"));
        command.arg("run").args(["--iface", "eth0", "--fastpath-ipv6-vxlan", "--ip-masq"]);
        command.arg("--node-name").arg(format!("node{number}"));
        command.arg("--node-list").arg(list).arg("--net-config-path").arg(conf);
        command.arg("--subnet-file").arg(stage.path(&format!("subnet{number}.env")));
        command.arg("--bpf-dir").arg(&node.bpf_dir);
        command.arg("--state-dir").arg(&directory).args(more).stdin(Stdio::null());
        Self { process: Background(command.spawn().expect("corten-netd")), directory }
    }

    pub fn pid(&self) -> u32 {
        self.process.0.id()
    }

    /// `corten-netd status -o json`; `None` while it does not answer.
    pub fn status(&self) -> Option<serde_json::Value> {
        let output = Command::new(env!("CARGO_BIN_EXE_corten-netd"))
            .args(["status", "-o", "json", "--state-dir"])
            .arg(&self.directory)
            .output()
            .expect("corten-netd");
        serde_json::from_slice(&output.stdout).ok()
    }

    /// Until the fast path says this of itself.
    pub fn wait(&self, what: &str, condition: impl Fn(&serde_json::Value) -> bool) -> serde_json::Value {
        let mut last = serde_json::Value::Null;
        let start = std::time::Instant::now();
        while start.elapsed() < Duration::from_secs(15) {
            if let Some(status) = self.status() {
                last = status["fastpath"].clone();
                if condition(&last) {
                    return last;
                }
            }
            std::thread::sleep(Duration::from_millis(20));
        }
        panic!("not in time: {what}; the last was {last:#}");
    }
}

fn unique() -> u32 {
    use std::sync::atomic::{AtomicU32, Ordering};
    static NEXT: AtomicU32 = AtomicU32::new(0);
    NEXT.fetch_add(1, Ordering::Relaxed)
}

/// IPv6 routers and neighbours need a moment after links come up.
pub fn settle(from: &Netns, to: IpAddr) {
    super::wait_for(&format!("{to} answers"), Duration::from_secs(10), || {
        from.try_sh(&format!("busybox ping -c 1 -W 1 {to} >/dev/null 2>&1")).then_some(())
    });
}
