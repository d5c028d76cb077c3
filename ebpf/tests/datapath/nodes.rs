//! Two nodes on a wire, each with a bridge and two pods, of both families; flannel's devices between them by hand.

use std::fs::File;
use std::path::PathBuf;
use std::thread;

use corten_ebpf::datapath::{Config, Datapath, Endpoint, Hook, address, mode, range, state};
use nix::mount::{MsFlags, mount};
use nix::sched::{CloneFlags, setns};

use crate::frame::Mac;
use crate::netns::{ifindex, private, run};
use crate::world::{VNI, node, parse, prefix};

pub const NODES: [u8; 2] = [1, 2];

/// How pods of other nodes are reached.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Backend {
    Vxlan,
    HostGw,
}

pub struct Nodes {
    directory: PathBuf,
    backend: Backend,
}

impl Nodes {
    pub fn new(backend: Backend) -> Option<Self> {
        let directory = private()?;
        // Names of network namespaces are mounts below /run/netns.
        mount(Some("tmpfs"), "/run", Some("tmpfs"), MsFlags::empty(), None::<&str>)
            .expect("mount a private /run");
        let nodes = Self { directory, backend };
        for node in NODES {
            nodes.make(node);
        }
        for (device, peer) in [("n1", "n2"), ("n2", "n1")] {
            assert!(
                run(&format!("ip -n {device} -o link show eth0")).contains("LOWER_UP"),
                "{device} to {peer}"
            );
        }
        Some(nodes)
    }

    fn make(&self, n: u8) {
        let ip = |words: String| run(&format!("ip -n n{n} {words}"));
        run(&format!("ip netns add n{n}"));
        ip("link set lo up".into());
        sysctl(n, &["net/ipv4/ip_forward", "net/ipv6/conf/all/forwarding"], "1");
        if n == 1 {
            ip("link add eth0 address 02:00:00:00:09:01 type veth peer name eth0x address 02:00:00:00:09:02"
                .into());
        } else {
            run("ip -n n1 link set eth0x netns n2 name eth0");
            run("ip -n n1 link set eth0 up");
        }
        for family in [format!("192.168.0.{n}/24"), format!("fd99::{n}/64 nodad")] {
            ip(format!("addr add {family} dev eth0"));
        }
        ip("link set eth0 up".into());
        ip(format!("link add cni0 address 02:00:00:00:0{n}:fe type bridge"));
        ip("link set cni0 up".into());
        ip(format!("addr add 10.244.{n}.1/24 dev cni0"));
        ip(format!("addr add fd00:{n}::1/64 dev cni0 nodad"));
        for pod in [2, 3] {
            self.make_pod(n, pod);
        }
        let other = 3 - n;
        match self.backend {
            Backend::HostGw => {
                ip(format!("route add 10.244.{other}.0/24 via 192.168.0.{other} dev eth0 onlink"));
                ip(format!("route add fd00:{other}::/64 via fd99::{other} dev eth0 onlink"));
            }
            Backend::Vxlan => make_tunnels(n, other),
        }
    }

    pub fn make_pod(&self, n: u8, pod: u8) {
        let name = pod_name(n, pod);
        let mtu = match self.backend {
            Backend::Vxlan => 1430,
            Backend::HostGw => 1500,
        };
        run(&format!("ip netns add {name}"));
        run(&format!(
            "ip -n n{n} link add v{pod} mtu {mtu} address 02:00:00:00:0{n}:a{pod} type veth \
             peer name eth0 mtu {mtu} netns {name} address 02:00:00:00:0{n}:0{pod}"
        ));
        run(&format!("ip -n n{n} link set v{pod} up master cni0"));
        run(&format!("ip -n {name} link set eth0 up"));
        run(&format!("ip -n {name} link set lo up"));
        run(&format!("ip -n {name} addr add 10.244.{n}.{pod}/24 dev eth0"));
        run(&format!("ip -n {name} addr add fd00:{n}::{pod}/64 dev eth0 nodad"));
        run(&format!("ip -n {name} route add default via 10.244.{n}.1"));
        run(&format!("ip -n {name} route add default via fd00:{n}::1"));
    }

    /// The fast path on a node, as netd would set it up.
    pub fn fast_path(&self, n: u8) -> Datapath {
        enter(&format!("n{n}"));
        let mut datapath = Datapath::load_or_open(&self.directory.join(format!("n{n}"))).expect("load");
        let gateway_mac: Mac = [2, 0, 0, 0, n, 0xfe];
        for pod in [2, 3] {
            let endpoint =
                Endpoint { ifindex: ifindex(&format!("v{pod}")), mac: [2, 0, 0, 0, n, pod], gateway_mac };
            for ip in [format!("10.244.{n}.{pod}"), format!("fd00:{n}::{pod}")] {
                datapath.insert_endpoint(parse(&ip), &endpoint).unwrap();
            }
        }
        let other = 3 - n;
        let uplink = ifindex("eth0");
        let (mode, mtu4, mtu6) = match self.backend {
            Backend::Vxlan => (mode::VXLAN, 1450, 1430),
            Backend::HostGw => (mode::GATEWAY, 1500, 1500),
        };
        for (pods, ip, mtu) in [
            (format!("10.244.{other}.0/24"), format!("192.168.0.{other}"), mtu4),
            (format!("fd00:{other}::/64"), format!("fd99::{other}"), mtu6),
        ] {
            let mut entry = node(&ip, &ip, uplink, mode, mtu);
            entry.vtep_mac = [2, 0, 0, 0, 8, other];
            datapath.insert_node(prefix(&pods), &entry).unwrap();
        }
        let vtep = [2, 0, 0, 0, 8, n];
        let config = Config {
            state: state::ON,
            vni: VNI,
            port: 8472_u16.to_be_bytes(),
            ip4: address(parse(&format!("192.168.0.{n}"))),
            ip6: address(parse(&format!("fd99::{n}"))),
            pods4: range(prefix(&format!("10.244.{n}.0/24"))),
            pods6: range(prefix(&format!("fd00:{n}::/64"))),
            cluster4: range(prefix("10.244.0.0/16")),
            cluster6: range(prefix("fd00::/16")),
            vtep4_mac: vtep,
            vtep6_mac: vtep,
            ..Config::default()
        };
        // Attached only then: the kernel's own packets (duplicate address detection) would be counted as "off".
        datapath.set_config(&config).unwrap();
        for pod in [2, 3] {
            datapath.attach(Hook::FromPod, ifindex(&format!("v{pod}"))).unwrap();
        }
        datapath.attach(Hook::FromNic, uplink).unwrap();
        datapath
    }
}

/// As flanneld does it; the IPv6 device also takes what comes without a checksum.
fn make_tunnels(n: u8, other: u8) {
    let ip = |words: String| run(&format!("ip -n n{n} {words}"));
    let mac = format!("02:00:00:00:08:0{n}");
    let peer = format!("02:00:00:00:08:0{other}");
    let common = format!("id {VNI} dev eth0 dstport 8472 nolearning");
    ip(format!("link add flannel.1 mtu 1450 address {mac} type vxlan {common} local 192.168.0.{n}"));
    ip(format!(
        "link add flannel-v6.1 mtu 1430 address {mac} type vxlan {common} local fd99::{n} udp6zerocsumrx"
    ));
    ip(format!("addr add 10.244.{n}.0/32 dev flannel.1"));
    ip(format!("addr add fd00:{n}::/128 dev flannel-v6.1 nodad"));
    for (device, via, pods, underlay) in [
        (
            "flannel.1",
            format!("10.244.{other}.0"),
            format!("10.244.{other}.0/24"),
            format!("192.168.0.{other}"),
        ),
        ("flannel-v6.1", format!("fd00:{other}::"), format!("fd00:{other}::/64"), format!("fd99::{other}")),
    ] {
        ip(format!("link set {device} up"));
        ip(format!("neigh add {via} lladdr {peer} dev {device} nud permanent"));
        run(&format!("bridge -n n{n} fdb add {peer} dev {device} dst {underlay} self permanent"));
        ip(format!("route add {pods} via {via} dev {device} onlink"));
    }
}

pub fn pod_name(n: u8, pod: u8) -> String {
    format!("p{n}{pod}")
}

/// Addresses of a pod, IPv4 and IPv6.
pub fn pod_addresses(n: u8, pod: u8) -> [String; 2] {
    [format!("10.244.{n}.{pod}"), format!("fd00:{n}::{pod}")]
}

/// Moves this thread into a named network namespace.
pub fn enter(name: &str) {
    let file = File::open(format!("/run/netns/{name}")).unwrap_or_else(|error| panic!("{name}: {error}"));
    setns(file, CloneFlags::CLONE_NEWNET).expect("setns");
}

/// Runs `work` in a named network namespace, on a thread of its own.
pub fn inside<'scope, T: Send + 'scope>(
    scope: &'scope thread::Scope<'scope, '_>,
    name: String,
    work: impl FnOnce() -> T + Send + 'scope,
) -> thread::ScopedJoinHandle<'scope, T> {
    // Opened here: a new thread sees the mounts of this one, but so nothing depends on it.
    let file = File::open(format!("/run/netns/{name}")).unwrap_or_else(|error| panic!("{name}: {error}"));
    scope.spawn(move || {
        setns(file, CloneFlags::CLONE_NEWNET).expect("setns");
        work()
    })
}

fn sysctl(n: u8, keys: &[&str], value: &str) {
    for key in keys {
        let setting = format!("{}={value}", key.replace('/', "."));
        run(&format!("ip netns exec n{n} sysctl -qw {setting}"));
    }
}
