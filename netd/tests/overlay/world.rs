//! Nodes as network namespaces on a switch, each with pods behind a bridge, and the overlay running on them.

use std::net::{IpAddr, SocketAddr, UdpSocket};
use std::process::{Command, Stdio};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

use corten_netd::net_conf::NetConf;
use corten_netd::node::{Backend, Dual, Node};
pub use corten_netd::overlay::Config;
use corten_netd::overlay::{Overlay, OverlayError, Status, Underlay};
use corten_netd::source::{Remembered, Snapshot};
use corten_netlink::{Protocol, Socket};
use corten_sys::netns::NetNs;
use nix::sched::{CloneFlags, unshare};
use tokio::sync::watch;

pub const VXLAN: &str = r#"{"Network": "10.244.0.0/16", "Backend": {"Type": "vxlan"}}"#;
pub const VXLAN_DUAL: &str = r#"{"Network": "10.244.0.0/16", "EnableIPv6": true, "IPv6Network": "fd44::/16",
    "Backend": {"Type": "vxlan"}}"#;
pub const HOST_GW_DUAL: &str = r#"{"Network": "10.244.0.0/16", "EnableIPv6": true, "IPv6Network": "fd44::/16",
    "Backend": {"Type": "host-gw"}}"#;

/// What heals heals within this.
pub const HEALED: Duration = Duration::from_secs(1);
const SOON: Duration = Duration::from_secs(10);

pub fn namespace() -> NetNs {
    let fresh = || {
        unshare(CloneFlags::CLONE_NEWNET).expect("a network namespace, as root");
        NetNs::current().expect("the namespace")
    };
    let namespace = std::thread::spawn(fresh).join().expect("made");
    sh(&namespace, "ip link set lo up; echo 0 > /proc/sys/net/ipv6/conf/default/accept_dad");
    namespace
}

pub fn try_sh(namespace: &NetNs, script: &str) -> Result<String, String> {
    let mut shell = Command::new("sh");
    shell.args(["-ec", script]).stdin(Stdio::null());
    let output = namespace.run(|| shell.output()).expect("inside").expect("sh runs");
    let text = |bytes: &[u8]| String::from_utf8_lossy(bytes).into_owned();
    if output.status.success() { Ok(text(&output.stdout)) } else { Err(text(&output.stderr)) }
}

pub fn sh(namespace: &NetNs, script: &str) -> String {
    try_sh(namespace, script).unwrap_or_else(|error| panic!("{script}: {error}"))
}

/// Waits for a condition; panics with `what` and the last text it gave.
pub fn wait(within: Duration, what: &str, mut holds: impl FnMut() -> Result<(), String>) {
    let deadline = Instant::now() + within;
    loop {
        match holds() {
            Ok(()) => return,
            Err(why) if Instant::now() > deadline => panic!("{what}: not within {within:?}: {why}"),
            Err(_) => std::thread::sleep(Duration::from_millis(5)),
        }
    }
}

pub struct Switch {
    pub namespace: NetNs,
}

impl Switch {
    pub fn new() -> Self {
        let namespace = namespace();
        sh(&namespace, "ip link add br0 type bridge mcast_snooping 0; ip link set br0 up");
        Self { namespace }
    }

    /// A node with uplink eth0 (10.9.0.N/24, fd09::N/64) and one pod.
    pub fn node(&self, number: u8) -> Host {
        self.node_with(number, &format!("10.9.0.{number}/24"), &format!("fd09::{number}/64"))
    }

    pub fn node_with(&self, number: u8, v4: &str, v6: &str) -> Host {
        let node = namespace();
        let path = |name: &NetNs| format!("/proc/{}/fd/{}", std::process::id(), fd(name));
        sh(
            &self.namespace,
            &format!(
                "ip link add port{number} type veth peer name eth0 netns {}
                 ip link set port{number} master br0 up",
                path(&node)
            ),
        );
        sh(
            &node,
            &format!("ip link set eth0 up; ip addr add {v4} dev eth0; ip addr add {v6} dev eth0 nodad"),
        );
        let pod = namespace();
        sh(
            &node,
            &format!(
                "ip link add cni0 type bridge; ip link set cni0 up
                 ip addr add 10.244.{number}.1/24 dev cni0; ip addr add fd44:{number}::1/64 dev cni0 nodad
                 ip link add veth0 type veth peer name eth0 netns {}
                 ip link set veth0 master cni0 up",
                path(&pod)
            ),
        );
        sh(
            &pod,
            &format!(
                "ip link set eth0 mtu 1400 up
                 ip addr add 10.244.{number}.2/24 dev eth0; ip addr add fd44:{number}::2/64 dev eth0 nodad
                 ip route add default via 10.244.{number}.1; ip -6 route add default via fd44:{number}::1"
            ),
        );
        Host { number, namespace: node, pod, v4: bare(v4), v6: bare(v6) }
    }
}

fn bare(cidr: &str) -> IpAddr {
    cidr.split('/').next().and_then(|address| address.parse().ok()).expect("an address")
}

fn fd(namespace: &NetNs) -> i32 {
    use std::os::fd::{AsFd, AsRawFd};
    namespace.as_fd().as_raw_fd()
}

/// A node's namespaces.
pub struct Host {
    pub number: u8,
    pub namespace: NetNs,
    pub pod: NetNs,
    pub v4: IpAddr,
    pub v6: IpAddr,
}

impl Host {
    pub fn sh(&self, script: &str) -> String {
        sh(&self.namespace, script)
    }

    pub fn socket(&self) -> Socket {
        self.namespace.run(|| Socket::open(Protocol::Route)).expect("inside").expect("a socket")
    }

    pub fn ifindex(&self, link: &str) -> Option<u32> {
        self.socket().link(link).expect("looked up").map(|link| link.index)
    }

    pub fn pod_v4(&self) -> IpAddr {
        format!("10.244.{}.2", self.number).parse().expect("an address")
    }

    pub fn pod_v6(&self) -> IpAddr {
        format!("fd44:{}::2", self.number).parse().expect("an address")
    }

    /// Everything that a restart must not change, ifindexes included; without counters and times.
    pub fn dump(&self) -> String {
        self.sh(
            "for d in eth0 flannel.1 flannel-v6.1; do
                if ip link show $d >/dev/null 2>&1; then
                    ip -d link show $d | sed 's/link-netns.*//'; ip addr show $d | sed 's/valid_lft.*//'
                    (ip neigh show dev $d nud permanent; ip -6 neigh show dev $d nud permanent) | sort; bridge fdb show dev $d | sort
                fi
             done
             (ip route show table all; ip -6 route show table all) | grep -v 'dev cni0'
             nft -a list ruleset; cat /proc/sys/net/ipv4/ip_forward /proc/sys/net/ipv6/conf/all/forwarding",
        )
    }

    /// As a source would describe it once the overlay has chosen its address and MACs.
    pub fn as_node(&self, underlay: &Underlay) -> Node {
        let number = self.number;
        let announcement = &underlay.announcement;
        Node {
            name: format!("node{number}"),
            pod_cidrs: Dual {
                v4: announcement
                    .public_ips
                    .v4
                    .map(|_| format!("10.244.{number}.0/24").parse().expect("cidr")),
                v6: announcement.public_ips.v6.map(|_| format!("fd44:{number}::/64").parse().expect("cidr")),
            },
            public_ips: announcement.public_ips,
            backend: announcement.backend,
        }
    }

    pub fn open(&self, config: Config) -> Result<Daemon, OverlayError> {
        self.open_with(config, Remembered::default())
    }

    /// Opens the overlay in the node, on a thread of its own, as a daemon would.
    pub fn open_with(&self, config: Config, remembered: Remembered) -> Result<Daemon, OverlayError> {
        let (opened, told) = std::sync::mpsc::channel();
        let (snapshots, receiver) = watch::channel(None::<Snapshot>);
        let namespace = self.namespace.run(NetNs::current).expect("inside").expect("the namespace");
        let thread = std::thread::spawn(move || {
            namespace.run(|| {
                let overlay = match Overlay::open(config, remembered) {
                    Ok(overlay) => overlay,
                    Err(error) => {
                        opened.send(Err(error)).expect("the test waits");
                        return Ok(());
                    }
                };
                opened.send(Ok((overlay.underlay(), overlay.status()))).expect("the test waits");
                let runtime =
                    tokio::runtime::Builder::new_current_thread().enable_all().build().expect("a runtime");
                runtime.block_on(run(overlay, receiver))
            })
        });
        let (underlay, status) = told.recv().expect("an answer")?;
        Ok(Daemon { snapshots, underlay, status, thread: Some(thread) })
    }
}

/// Waits for the first snapshot, then runs until the sender is dropped.
async fn run(overlay: Overlay, mut given: watch::Receiver<Option<Snapshot>>) -> Result<(), OverlayError> {
    let Ok(first) = given.wait_for(Option::is_some).await.map(|s| s.clone().expect("some")) else {
        return Ok(());
    };
    let (sender, receiver) = watch::channel(first);
    let forward = async move {
        while given.changed().await.is_ok() {
            sender.send_replace(given.borrow_and_update().clone().expect("some"));
        }
    };
    let running = overlay.run(receiver);
    tokio::pin!(running);
    tokio::select! {
        outcome = &mut running => outcome,
        // The sender is gone with `forward`, so it ends.
        () = forward => running.await,
    }
}

pub struct Daemon {
    snapshots: watch::Sender<Option<Snapshot>>,
    pub underlay: watch::Receiver<Underlay>,
    pub status: watch::Receiver<Status>,
    thread: Option<JoinHandle<Result<Result<(), OverlayError>, corten_sys::netns::NetNsError>>>,
}

impl Daemon {
    pub fn give(&self, local: Node, peers: Vec<Node>) {
        self.snapshots.send_replace(Some(Snapshot { local, peers, left_out: Vec::new(), fault: None }));
    }

    pub fn change(&self, change: impl FnOnce(&mut Snapshot)) {
        self.snapshots.send_modify(|snapshot| change(snapshot.as_mut().expect("a snapshot was given")));
    }

    pub fn wait_ready(&self) {
        wait(SOON, "ready", || {
            let status = self.status.borrow();
            let problems = status.problems();
            if status.ready && problems.is_empty() { Ok(()) } else { Err(format!("{problems:?}")) }
        });
    }

    /// The daemon ends, as at its death: nothing is taken away.
    pub fn stop(mut self) -> Result<(), OverlayError> {
        let (dead, _) = watch::channel(None);
        drop(std::mem::replace(&mut self.snapshots, dead));
        self.thread.take().expect("running").join().expect("no panic").expect("in the namespace")
    }

    /// The error of the first pass.
    pub fn failure(mut self) -> OverlayError {
        self.thread
            .take()
            .expect("running")
            .join()
            .expect("no panic")
            .expect("in the namespace")
            .expect_err("it fails")
    }
}

impl Drop for Daemon {
    fn drop(&mut self) {
        let (dead, _) = watch::channel(None);
        drop(std::mem::replace(&mut self.snapshots, dead));
        if let Some(thread) = self.thread.take() {
            let _ = thread.join();
        }
    }
}

pub fn config(net_conf: &str) -> Config {
    let mut config = Config::new(net_conf.parse::<NetConf>().expect("a net-conf"));
    config.uplink.iface = vec!["eth0".into()];
    config.ip_masq = true;
    // Healing is to come from notifications, not from the clock.
    config.resync = Duration::from_hours(1);
    config
}

/// Nodes with running overlays that know each other.
pub struct Cluster {
    pub hosts: Vec<Host>,
    pub daemons: Vec<Daemon>,
    pub switch: Switch,
}

impl Cluster {
    pub fn new(count: u8, config: &Config) -> Self {
        let switch = Switch::new();
        let hosts: Vec<Host> = (1..=count).map(|number| switch.node(number)).collect();
        Self::of(switch, hosts, config)
    }

    pub fn of(switch: Switch, hosts: Vec<Host>, config: &Config) -> Self {
        let daemons: Vec<Daemon> =
            hosts.iter().map(|host| host.open(config.clone()).expect("opened")).collect();
        let cluster = Self { hosts, daemons, switch };
        let nodes = cluster.nodes();
        for (place, daemon) in cluster.daemons.iter().enumerate() {
            let mut peers = nodes.clone();
            let local = peers.remove(place);
            daemon.give(local, peers);
        }
        cluster.daemons.iter().for_each(Daemon::wait_ready);
        cluster
    }

    pub fn nodes(&self) -> Vec<Node> {
        let described = |(host, daemon): (&Host, &Daemon)| host.as_node(&daemon.underlay.borrow());
        self.hosts.iter().zip(&self.daemons).map(described).collect()
    }

    /// Ends the daemon of one node and starts another one, with the same knowledge.
    pub fn restart(&mut self, place: usize, config: &Config) {
        let nodes = self.nodes();
        let old = self.daemons.remove(place);
        old.stop().expect("ended");
        let daemon = self.hosts[place].open(config.clone()).expect("opened");
        let mut peers = nodes;
        peers.remove(place);
        daemon.give(self.hosts[place].as_node(&daemon.underlay.borrow()), peers);
        daemon.wait_ready();
        self.daemons.insert(place, daemon);
    }
}

/// The tunnel addresses of a node.
pub fn vtep(node: &Node) -> Dual<corten_netlink::route::Mac, corten_netlink::route::Mac> {
    match node.backend {
        Backend::Vxlan { vtep, .. } => vtep,
        Backend::HostGw => Dual::default(),
    }
}

/// Answers every datagram in a pod, with the address of its sender, until dropped.
pub struct Echo {
    pub address: SocketAddr,
    stop: Arc<AtomicBool>,
    thread: Option<JoinHandle<()>>,
}

pub fn udp(namespace: &NetNs, address: IpAddr) -> UdpSocket {
    let socket = namespace.run(|| UdpSocket::bind((address, 0))).expect("inside").expect("bound");
    socket.set_read_timeout(Some(Duration::from_millis(100))).expect("set");
    socket
}

impl Echo {
    pub fn new(namespace: &NetNs, address: IpAddr) -> Self {
        let socket = udp(namespace, address);
        let address = socket.local_addr().expect("bound");
        let stop = Arc::new(AtomicBool::new(false));
        let stopped = Arc::clone(&stop);
        let thread = std::thread::spawn(move || {
            let mut buffer = [0; 2048];
            while !stopped.load(Ordering::Relaxed) {
                if let Ok((length, from)) = socket.recv_from(&mut buffer) {
                    let mut answer = format!("{from} ").into_bytes();
                    answer.extend_from_slice(&buffer[..length]);
                    let _ = socket.send_to(&answer, from);
                }
            }
        });
        Self { address, stop, thread: Some(thread) }
    }

    /// One question from `namespace`, bound to `source`; gives the sender's address as the echo saw it.
    pub fn ask(&self, namespace: &NetNs, source: IpAddr) -> Result<SocketAddr, String> {
        let socket = udp(namespace, source);
        socket.send_to(b"hello", self.address).map_err(|e| format!("send: {e}"))?;
        let mut buffer = [0; 2048];
        let (length, _) = socket.recv_from(&mut buffer).map_err(|e| format!("no answer: {e}"))?;
        let text = String::from_utf8_lossy(&buffer[..length]).into_owned();
        text.split(' ').next().and_then(|s| s.parse().ok()).ok_or(text)
    }
}

impl Drop for Echo {
    fn drop(&mut self) {
        self.stop.store(true, Ordering::Relaxed);
        if let Some(thread) = self.thread.take() {
            let _ = thread.join();
        }
    }
}

/// A pod of `from` asks a pod of `to`, whose answer shows that nothing was translated.
pub fn reaches(from: &Host, to: &Host, ipv4: bool) -> Result<(), String> {
    let (source, target) = if ipv4 { (from.pod_v4(), to.pod_v4()) } else { (from.pod_v6(), to.pod_v6()) };
    let echo = Echo::new(&to.pod, target);
    match echo.ask(&from.pod, source)? {
        seen if seen.ip() == source => Ok(()),
        seen => Err(format!("{source} was translated to {seen}")),
    }
}

/// The same, within the time of healing.
pub fn assert_reaches(from: &Host, to: &Host, ipv4: bool) {
    wait(HEALED, &format!("pod of node{} to pod of node{}, IPv4 {ipv4}", from.number, to.number), || {
        reaches(from, to, ipv4)
    });
}
