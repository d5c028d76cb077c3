//! A node, its pods, and backends that say who was reached.

use std::collections::BTreeSet;
use std::fs;
use std::io;
use std::net::{IpAddr, SocketAddr, TcpListener, TcpStream, UdpSocket};
use std::os::fd::AsFd;
use std::path::PathBuf;
use std::sync::atomic::{AtomicU32, Ordering};
use std::time::{Duration, Instant};

use corten_ebpf::socket::{At, Desired, Entry, Options, SocketServices};
use corten_netlink::route::{LinkChange, Peer, Route, Veth, encode};
use corten_netlink::{Cidr, Protocol, Socket};
use corten_sys::netns::NetNs;
use nix::mount::{MsFlags, mount};
use nix::sched::{CloneFlags, unshare};
use nix::unistd::gettid;

pub const DEADLINE: Duration = Duration::from_secs(10);
pub const NODE: &str = "192.0.2.1";
pub const NODE6: &str = "2001:db8::1";

/// The calling thread's namespaces and cgroup. Threads started from it are in the same.
pub struct Node {
    pub services: SocketServices,
    pub bpffs: tempfile::TempDir,
    pub cgroup: Cgroup,
}

impl Node {
    /// Services attached and empty. `None`: said why not.
    pub fn new() -> Option<Self> {
        let cgroup = Cgroup::new()?;
        unshare(CloneFlags::CLONE_NEWNET | CloneFlags::CLONE_NEWNS).expect("namespaces, as root");
        private_mounts();
        let bpffs = tempfile::tempdir().expect("a directory");
        mount(Some("bpf"), bpffs.path(), Some("bpf"), MsFlags::empty(), None::<&str>)
            .expect("a BPF file system");
        let lo = device("lo");
        set_up(lo);
        for address in [NODE, NODE6] {
            add_address(lo, address);
        }
        let services = open(&bpffs, &cgroup);
        services.set_enabled(true);
        services.attach().expect("attached");
        cgroup.join();
        Some(Self { services, bpffs, cgroup })
    }

    /// Another start of the daemon: the old one is gone without a word.
    pub fn restart(&mut self) {
        self.services = open(&self.bpffs, &self.cgroup);
        self.services.attach().expect("attached");
    }

    pub fn pin_directory(&self) -> PathBuf {
        self.bpffs.path().join("socket")
    }

    pub fn serve(&mut self, entries: &[Entry]) {
        let node_addresses = [NODE, NODE6].map(ip).into();
        let desired = Desired { entries: entries.to_vec(), node_addresses };
        let applied = self.services.apply(&desired).expect("applied");
        assert_eq!(applied.refused, []);
        let again = self.services.apply(&desired).expect("applied");
        assert_eq!(again.changes, 0, "a second pass has nothing to do");
    }
}

pub fn open(bpffs: &tempfile::TempDir, cgroup: &Cgroup) -> SocketServices {
    let options = Options { pin_directory: bpffs.path().join("socket"), cgroup: cgroup.path.clone() };
    SocketServices::open(options).expect("loaded")
}

fn private_mounts() {
    let flags = MsFlags::MS_REC | MsFlags::MS_PRIVATE;
    mount(None::<&str>, "/", None::<&str>, flags, None::<&str>).expect("private mounts");
}

/// A cgroup v2 directory whose members are threads, so that each test's thread is in its own.
pub struct Cgroup {
    pub path: PathBuf,
    parent: PathBuf,
}

static NEXT: AtomicU32 = AtomicU32::new(0);

impl Cgroup {
    pub fn new() -> Option<Self> {
        let Some(parent) = own_cgroup() else {
            println!("SKIP: no cgroup v2 hierarchy is mounted");
            return None;
        };
        let number = NEXT.fetch_add(1, Ordering::Relaxed);
        let path = parent.join(format!("corten-socket-{}-{number}", std::process::id()));
        fs::create_dir(&path).expect("a cgroup, as root");
        let cgroup = Self { path, parent };
        fs::write(cgroup.path.join("cgroup.type"), "threaded").expect("a threaded cgroup");
        Some(cgroup)
    }

    /// The calling thread moves in; sockets it had stay with the cgroup they were made in.
    pub fn join(&self) {
        move_to(&self.path).expect("joined");
    }

    /// And out again.
    pub fn leave(&self) {
        move_to(&self.parent).expect("left");
    }
}

impl Drop for Cgroup {
    fn drop(&mut self) {
        let _ = move_to(&self.parent);
        // Threads that the test started leave with their end.
        let gone = until(|| fs::remove_dir(&self.path).is_ok().then_some(()));
        assert!(gone.is_some() || std::thread::panicking(), "{} is left", self.path.display());
    }
}

fn move_to(cgroup: &std::path::Path) -> io::Result<()> {
    fs::write(cgroup.join("cgroup.threads"), gettid().to_string())
}

fn own_cgroup() -> Option<PathBuf> {
    let mounts = fs::read_to_string("/proc/self/mountinfo").ok()?;
    let mut fields = mounts.lines().filter(|l| l.contains(" - cgroup2 ")).map(|l| l.split(' '));
    let mount_point = PathBuf::from(fields.next()?.nth(4)?);
    let own = fs::read_to_string("/proc/self/cgroup").ok()?;
    let path = own.lines().find_map(|line| line.strip_prefix("0::/"))?.to_owned();
    Some(mount_point.join(path))
}

/// A pod beside the node: 192.0.2.<number>, 2001:db8::<number>.
pub fn pod(number: u8) -> NetNs {
    let node = NetNs::current().expect("the node");
    unshare(CloneFlags::CLONE_NEWNET).expect("a network namespace");
    let pod = NetNs::current().expect("the pod");
    set_up(device("lo"));
    let there = node.run(|| {
        let name = format!("pod{number}");
        let peer = Peer { name: "eth0", netns: pod.as_fd(), mac: None };
        let veth = Veth { name: &name, master: None, mtu: 0, peer };
        route_socket().transact(vec![encode::create_veth(&veth)]).expect("a wire");
        let wire = device(&name);
        set_up(wire);
        for host in [format!("192.0.2.{number}/32"), format!("2001:db8::{number}/128")] {
            route(wire, &host, None);
        }
    });
    there.expect("back");
    let eth0 = device("eth0");
    add_address(eth0, &format!("192.0.2.{number}"));
    add_address(eth0, &format!("2001:db8::{number}"));
    set_up(eth0);
    route(eth0, &format!("{NODE}/32"), None);
    route(eth0, &format!("{NODE6}/128"), None);
    route(eth0, "0.0.0.0/0", Some(NODE));
    route(eth0, "::/0", Some(NODE6));
    setns_back(&node);
    pod
}

fn setns_back(node: &NetNs) {
    nix::sched::setns(node.as_fd(), CloneFlags::CLONE_NEWNET).expect("back on the node");
}

fn route(link: u32, to: &str, via: Option<&str>) {
    let to: Cidr = to.parse().expect("a range");
    let scope = if via.is_some() { libc::RT_SCOPE_UNIVERSE } else { libc::RT_SCOPE_LINK };
    let route = Route { link: Some(link), gateway: via.map(ip), scope, ..Route::to(to) };
    route_socket().transact(vec![encode::add_route(&route)]).expect("a route");
}

fn route_socket() -> Socket {
    Socket::open(Protocol::Route).expect("a socket")
}

fn device(name: &str) -> u32 {
    route_socket().link(name).expect("looked up").expect("a link").index
}

fn set_up(link: u32) {
    let change = LinkChange { up: Some(true), ..LinkChange::default() };
    route_socket().transact(vec![encode::set_link(link, &change)]).expect("up");
}

/// Whole, without duplicate address detection. The kernel makes IPv6's local route later, by a worker: until it is there
/// datagrams to the address are lost.
pub fn add_address(link: u32, address: &str) {
    let bits = if ip(address).is_ipv4() { 32 } else { 128 };
    let cidr: Cidr = format!("{address}/{bits}").parse().expect("a range");
    route_socket().transact(vec![encode::add_address_undetected(link, cidr)]).expect("an address");
    if let IpAddr::V6(v6) = ip(address) {
        let destination = format!("{:032x} 80 ", v6.to_bits());
        until(|| is_local(&destination).then_some(())).expect("a local route");
    }
}

fn is_local(destination: &str) -> bool {
    let routes = fs::read_to_string("/proc/thread-self/net/ipv6_route").expect("read");
    let flags = |line: &str| u32::from_str_radix(line.split_ascii_whitespace().nth(8)?, 16).ok();
    let mut found = routes.lines().filter(|line| line.starts_with(destination)).filter_map(flags);
    found.any(|flags| flags & RTF_LOCAL != 0)
}

const RTF_LOCAL: u32 = 0x8000_0000;

pub fn ip(text: &str) -> IpAddr {
    text.parse().expect("an address")
}

pub fn at(text: &str) -> SocketAddr {
    text.parse().expect("an address and a port")
}

/// A service port at each of the frontends.
pub fn entry(frontends: &[At], backends: &[SocketAddr]) -> Entry {
    Entry {
        frontends: frontends.iter().copied().collect(),
        backends: backends.iter().copied().collect(),
        affinity: None,
    }
}

/// Pods' ports on the node's loopback: who is reached says its address.
pub struct Backends {
    tcp: Vec<TcpListener>,
    udp: Vec<UdpSocket>,
    pub addresses: Vec<SocketAddr>,
}

impl Backends {
    /// `count` of them, 10.244.0.<n>:8080 or [fd00:244::<n>]:8080.
    pub fn new(v6: bool, first: u16, count: u16) -> Self {
        let addresses: Vec<SocketAddr> = (first..first + count)
            .map(|n| at(&if v6 { format!("[fd00:244::{n}]:8080") } else { format!("10.244.0.{n}:8080") }))
            .collect();
        let lo = device("lo");
        for address in &addresses {
            add_address(lo, &address.ip().to_string());
        }
        let tcp = addresses.iter().map(|a| TcpListener::bind(a).expect("a listener")).collect::<Vec<_>>();
        let udp = addresses.iter().map(|a| UdpSocket::bind(a).expect("a socket")).collect::<Vec<_>>();
        for listener in &tcp {
            listener.set_nonblocking(true).expect("set");
        }
        for socket in &udp {
            socket.set_nonblocking(true).expect("set");
        }
        Self { tcp, udp, addresses }
    }

    pub fn v4(count: u16) -> Self {
        Self::new(false, 1, count)
    }

    pub fn v6(count: u16) -> Self {
        Self::new(true, 1, count)
    }

    /// Which backend the one open connection reached.
    pub fn accepted(&self) -> (SocketAddr, TcpStream) {
        let accept = || self.tcp.iter().find_map(|l| Some((l.local_addr().ok()?, l.accept().ok()?.0)));
        until(accept).expect("a connection at a backend")
    }

    /// Takes one connection that waits, if there is one.
    pub fn accept_one(&self) -> bool {
        self.tcp.iter().any(|listener| listener.accept().is_ok())
    }

    /// Connects to a frontend; who was reached.
    pub fn connect(&self, frontend: SocketAddr) -> SocketAddr {
        let client = TcpStream::connect_timeout(&frontend, DEADLINE).expect("connected");
        assert_eq!(client.peer_addr().expect("a peer"), frontend, "the peer's name is the service");
        self.accepted().0
    }

    /// Who of them is reached by `times` connections.
    pub fn reached(&self, frontend: SocketAddr, times: usize) -> BTreeSet<SocketAddr> {
        (0..times).map(|_| self.connect(frontend)).collect()
    }

    /// Which backend the one datagram under way reached, and from where; it is answered.
    pub fn answered(&self) -> (SocketAddr, SocketAddr) {
        let receive = || {
            self.udp.iter().find_map(|socket| {
                let mut buffer = [0; 64];
                let (len, client) = socket.recv_from(&mut buffer).ok()?;
                socket.send_to(&buffer[..len], client).expect("answered");
                Some((socket.local_addr().ok()?, client))
            })
        };
        until(receive).expect("a datagram at a backend")
    }
}

/// A UDP client that fails instead of waiting for ever.
pub fn udp(local: &str) -> UdpSocket {
    let socket = UdpSocket::bind(at(local)).expect("a socket");
    socket.set_read_timeout(Some(DEADLINE)).expect("set");
    socket
}

/// Tries until there is something.
pub fn until<T>(mut attempt: impl FnMut() -> Option<T>) -> Option<T> {
    let deadline = Instant::now() + DEADLINE;
    loop {
        if let Some(found) = attempt() {
            return Some(found);
        }
        if Instant::now() > deadline {
            return None;
        }
        std::thread::sleep(Duration::from_millis(1));
    }
}

pub fn connect_error(frontend: SocketAddr) -> io::ErrorKind {
    TcpStream::connect_timeout(&frontend, DEADLINE).expect_err("refused").kind()
}
