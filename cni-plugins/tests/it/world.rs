//! A host, its pods, and calls of plugins.
#![expect(clippy::unused_self, reason = "a Host stands for the namespace of the thread that made it")]

use std::collections::BTreeMap;
use std::fs::File;
use std::io::{Read, Write};
use std::net::{IpAddr, SocketAddr, TcpListener, TcpStream};
use std::os::fd::AsRawFd;
use std::path::PathBuf;
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

use corten_netlink::nft::{Family, Table};
use corten_netlink::route::{LinkChange, Peer, Veth, encode};
use corten_netlink::{Protocol, Socket};
use corten_sys::netns::NetNs;
use nix::sched::{CloneFlags, unshare};
use serde_json::{Value, json};

pub const DEADLINE: Duration = Duration::from_secs(10);
const DEBIAN: &str = "/usr/lib/cni";

/// Where a plugin's program is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Maker {
    Corten,
    Debian,
}

impl Maker {
    /// False prints why the test skips.
    pub fn is_here(self) -> bool {
        let here = self == Self::Corten || PathBuf::from(DEBIAN).join("bridge").exists();
        if !here {
            println!("SKIP: no Go plugins in {DEBIAN} (apt-get install containernetworking-plugins)");
        }
        here
    }

    fn command(self, plugin: &str) -> Command {
        match self {
            Self::Corten => {
                let mut command = Command::new(env!("CARGO_BIN_EXE_corten-cni"));
                command.arg(plugin);
                command
            }
            Self::Debian => Command::new(PathBuf::from(DEBIAN).join(plugin)),
        }
    }
}

/// The calling thread's network namespace, and a directory for addresses.
pub struct Host {
    pub dir: tempfile::TempDir,
}

/// A network namespace reached as a descriptor of this process: dropping it makes the path vanish.
pub struct Pod {
    pub id: String,
    file: File,
}

pub struct Outcome {
    pub code: Option<i32>,
    pub value: Value,
    text: String,
}

impl Host {
    pub fn new() -> Self {
        unshare(CloneFlags::CLONE_NEWNET).expect("a network namespace, as root");
        let host = Self { dir: tempfile::tempdir().expect("a directory") };
        host.up("lo");
        host
    }

    pub fn up(&self, name: &str) {
        let mut socket = self.socket();
        let link = socket.link(name).expect("looked up").expect("a link");
        let change = LinkChange { up: Some(true), ..LinkChange::default() };
        socket.transact(vec![encode::set_link(link.index, &change)]).expect("up");
    }

    pub fn socket(&self) -> Socket {
        Socket::open(Protocol::Route).expect("a socket")
    }

    pub fn pod(&self, id: &str) -> Pod {
        let host = NetNs::current().expect("the host");
        let made = host.run(|| {
            unshare(CloneFlags::CLONE_NEWNET).expect("a network namespace, as root");
            File::open("/proc/thread-self/ns/net").expect("the pod's namespace")
        });
        Pod { id: id.to_owned(), file: made.expect("back on the host") }
    }

    /// A machine beside the host at 192.0.2.2 that knows no route to pods; the host is 192.0.2.1.
    pub fn neighbour(&self) -> Pod {
        let pod = self.pod("neighbour");
        let netns = NetNs::open(pod.path()).expect("its namespace");
        let mut socket = self.socket();
        let peer = Peer { name: "eth0", netns: std::os::fd::AsFd::as_fd(&netns), mac: None };
        let veth = Veth { name: "wire", master: None, mtu: 0, peer };
        socket.transact(vec![encode::create_veth(&veth)]).expect("a wire");
        let wire = socket.link("wire").expect("looked up").expect("the wire");
        socket
            .transact(vec![encode::add_address(wire.index, "192.0.2.1/24".parse().unwrap())])
            .expect("addressed");
        pod.run(|| {
            let mut inside = Socket::open(Protocol::Route).expect("a socket");
            let eth0 = inside.link("eth0").expect("looked up").expect("eth0").index;
            let change = LinkChange { up: Some(true), ..LinkChange::default() };
            let address = encode::add_address(eth0, "192.0.2.2/24".parse().unwrap());
            inside.transact(vec![address, encode::set_link(eth0, &change)]).expect("up");
        });
        pod
    }

    /// A bridge network with host-local addresses of 10.22.0.0/24; `extra` keys are added.
    pub fn network(&self, version: &str, extra: Value) -> Value {
        let mut config = json!({
            "cniVersion": version, "name": "net", "type": "bridge", "bridge": "cni0",
            "ipam": {"type": "host-local", "dataDir": self.data(), "subnet": "10.22.0.0/24"},
        });
        merge(&mut config, extra);
        config
    }

    pub fn data(&self) -> PathBuf {
        self.dir.path().join("data")
    }

    /// Where flannel records what it rendered.
    pub fn records(&self) -> PathBuf {
        self.dir.path().join("records")
    }

    /// Where tuning keeps what interfaces had before.
    pub fn backups(&self) -> PathBuf {
        self.dir.path().join("backups")
    }

    pub fn call(&self, plugin: &str, verb: &str, pod: &Pod, config: &Value) -> Outcome {
        self.call_of(Maker::Corten, plugin, verb, pod, config, &[])
    }

    pub fn call_of(
        &self,
        maker: Maker,
        plugin: &str,
        verb: &str,
        pod: &Pod,
        config: &Value,
        environment: &[(&str, &str)],
    ) -> Outcome {
        Outcome::of(self.spawn(maker, plugin, verb, pod, config, environment))
    }

    /// With a configuration that [`Value`] cannot hold.
    pub fn call_text(
        &self,
        maker: Maker,
        plugin: &str,
        verb: &str,
        pod: &Pod,
        config: &str,
        environment: &[(&str, &str)],
    ) -> Outcome {
        Outcome::of(self.spawn_text(maker, plugin, verb, pod, config, environment))
    }

    pub fn spawn(
        &self,
        maker: Maker,
        plugin: &str,
        verb: &str,
        pod: &Pod,
        config: &Value,
        environment: &[(&str, &str)],
    ) -> Child {
        self.spawn_text(maker, plugin, verb, pod, &config.to_string(), environment)
    }

    fn spawn_text(
        &self,
        maker: Maker,
        plugin: &str,
        verb: &str,
        pod: &Pod,
        config: &str,
        environment: &[(&str, &str)],
    ) -> Child {
        let mut child = maker
            .command(plugin)
            .env("CNI_COMMAND", verb)
            .env("CNI_CONTAINERID", &pod.id)
            .env("CNI_NETNS", pod.path())
            .env("CNI_IFNAME", "eth0")
            .env("CNI_PATH", DEBIAN)
            .envs(environment.iter().copied())
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .stderr(Stdio::piped())
            .spawn()
            .expect("the plugin starts");
        // It may exit before reading everything: then its answer says why.
        let _ = child.stdin.take().expect("piped").write_all(config.as_bytes());
        child
    }

    /// What attachments leave behind when they should not: links but lo, the bridge and the wire, reserved addresses,
    /// records, rules of containers.
    pub fn traces(&self) -> Vec<String> {
        let links = self.socket().links().expect("listed").into_iter().map(|l| l.name);
        let links = links.filter(|name| !["lo", "cni0", "wire"].contains(&name.as_str()));
        let addresses =
            self.files().into_keys().filter(|name| name.parse::<IpAddr>().is_ok() || name == ".new");
        let records =
            [self.records(), self.backups()].into_iter().filter_map(|dir| std::fs::read_dir(dir).ok());
        let records =
            records.flatten().map(|entry| entry.expect("an entry").file_name().into_string().expect("text"));
        let mut socket = Socket::open(Protocol::Netfilter).expect("a socket");
        let mut rules = Vec::new();
        for (family, table, chain) in [
            (Family::Inet, "cni_plugins_masquerade", "masq_checks"),
            (Family::Ipv4, "cni_hostport", "hostports"),
            (Family::Ipv4, "cni_hostport", "masquerading"),
            (Family::Ipv6, "cni_hostport", "hostports"),
            (Family::Ipv6, "cni_hostport", "masquerading"),
            (Family::Bridge, "nat", "PREROUTING"),
        ] {
            let found = socket.nft_rules(Table { family, name: table }, chain).expect("listed");
            rules.extend(found.into_iter().map(|rule| format!("{chain}: {:?}", rule.comment)));
        }
        for family in [Family::Ipv4, Family::Ipv6] {
            let found = socket.nft_rules(Table { family, name: "filter" }, "CNI-FORWARD").expect("listed");
            rules.extend(found.into_iter().filter_map(|rule| Some(format!("CNI-FORWARD: {}", rule.tag?))));
        }
        links.chain(addresses).chain(records).chain(rules).collect()
    }

    /// The kernel removes links of destroyed namespaces a little later.
    pub fn wait_for_no_traces(&self) {
        wait_for("no traces", || {
            self.traces().is_empty().then_some(()).ok_or_else(|| self.traces().join(", "))
        });
    }

    /// Name and content of the files of network `net`.
    pub fn files(&self) -> BTreeMap<String, String> {
        let Ok(entries) = std::fs::read_dir(self.data().join("net")) else { return BTreeMap::new() };
        entries
            .map(|entry| entry.expect("an entry"))
            .map(|e| {
                (
                    e.file_name().into_string().expect("text"),
                    std::fs::read_to_string(e.path()).expect("a file"),
                )
            })
            .collect()
    }
}

impl Pod {
    pub fn path(&self) -> PathBuf {
        format!("/proc/{}/fd/{}", std::process::id(), self.file.as_raw_fd()).into()
    }

    pub fn run<T>(&self, inside: impl FnOnce() -> T) -> T {
        NetNs::open(self.path()).expect("the namespace").run(inside).expect("entered and left")
    }

    /// A second handle: keeps the namespace alive when the path vanishes.
    pub fn handle(&self) -> File {
        self.file.try_clone().expect("a descriptor")
    }

    /// A TCP server at `port` that tells every client the address it sees.
    pub fn serve(&self, port: u16) {
        let bind = |any: &str| TcpListener::bind((any.parse::<IpAddr>().expect("an address"), port));
        let listener = self.run(|| bind("::").or_else(|_| bind("0.0.0.0"))).expect("a server");
        std::thread::spawn(move || {
            while let Ok((mut stream, peer)) = listener.accept() {
                let _ = stream.write_all(peer.ip().to_canonical().to_string().as_bytes());
            }
        });
    }
}

/// What the server at `address` says; called in the client's namespace.
pub fn ask(address: &str) -> std::io::Result<String> {
    let address: SocketAddr = address.parse().expect("address and port");
    let mut stream = TcpStream::connect_timeout(&address, Duration::from_secs(3))?;
    stream.set_read_timeout(Some(Duration::from_secs(3)))?;
    let mut text = String::new();
    stream.read_to_string(&mut text)?;
    Ok(text)
}

impl Outcome {
    pub fn of(child: Child) -> Self {
        let output = child.wait_with_output().expect("the plugin ends");
        let text = String::from_utf8_lossy(&output.stdout).into_owned();
        let value = serde_json::from_str(&text).unwrap_or(Value::Null);
        let text = format!("{text}{}", String::from_utf8_lossy(&output.stderr));
        Self { code: output.status.code(), value, text }
    }

    #[track_caller]
    pub fn ok(self) -> Value {
        assert_eq!(self.code, Some(0), "{}", self.text);
        self.value
    }

    /// Asserts a CNI error of this code whose text holds `wanted`.
    #[track_caller]
    pub fn error(self, code: u32, wanted: &str) {
        assert_eq!(self.code, Some(1), "{}", self.text);
        assert_eq!(self.value["code"], code, "{}", self.text);
        let said = ["msg", "details"].map(|key| self.value[key].as_str().unwrap_or_default()).join(" ");
        assert!(said.contains(wanted), "{wanted:?} is not in {said}");
    }
}

pub fn merge(into: &mut Value, extra: Value) {
    match (into, extra) {
        (Value::Object(into), Value::Object(extra)) => {
            for (key, value) in extra {
                merge(into.entry(key).or_insert(Value::Null), value);
            }
        }
        (into, extra) => *into = extra,
    }
}

/// `config` with a key more.
pub fn with(config: &Value, key: &str, value: Value) -> Value {
    let mut config = config.clone();
    config[key] = value;
    config
}

#[track_caller]
pub fn wait_for<T, E: std::fmt::Display>(what: &str, mut probe: impl FnMut() -> Result<T, E>) -> T {
    let deadline = Instant::now() + DEADLINE;
    loop {
        match probe() {
            Ok(value) => return value,
            Err(error) if Instant::now() > deadline => panic!("{what}: {error}"),
            Err(_) => std::thread::sleep(Duration::from_millis(5)),
        }
    }
}

/// The address of the result's first IP, without prefix.
pub fn first_address(result: &Value) -> String {
    let address =
        result["ips"][0]["address"].as_str().or_else(|| result["ip4"]["ip"].as_str()).expect("an address");
    address.split('/').next().expect("text").to_owned()
}
