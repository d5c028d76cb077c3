//! The daemon as a program, in a network namespace of its own with an uplink whose other end is a second namespace.

use std::io::Read;
use std::os::unix::net::UnixDatagram;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, ExitStatus, Output, Stdio};
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

use corten_sys::netns::NetNs;
use nix::sched::{CloneFlags, unshare};
use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;
use serde_json::Value;

const NETD: &str = env!("CARGO_BIN_EXE_corten-netd");
const DEADLINE: Duration = Duration::from_secs(20);
const VXLAN: &str = r#"{"Network": "10.244.0.0/16", "Backend": {"Type": "vxlan"}}"#;
const LIST: &str = "
nodes:
- {name: a, podCIDRs: [10.244.1.0/24], publicIPs: [192.0.2.1]}
- {name: b, podCIDRs: [10.244.2.0/24], publicIPs: [192.0.2.2]}
";

/// A node: its namespaces and its files. The daemon is killed with it.
struct Node {
    daemon: Option<Child>,
    namespace: NetNs,
    /// Where the uplink's other end is.
    wire: NetNs,
    dir: tempfile::TempDir,
}

impl Drop for Node {
    fn drop(&mut self) {
        if let Some(mut daemon) = self.daemon.take() {
            let _ = daemon.kill();
            let _ = daemon.wait();
        }
    }
}

fn namespace() -> NetNs {
    let fresh = || {
        unshare(CloneFlags::CLONE_NEWNET).expect("a network namespace");
        NetNs::current().expect("the namespace")
    };
    std::thread::spawn(fresh).join().expect("made")
}

/// `None` (after saying why) where the test cannot run.
fn node() -> Option<Node> {
    if !nix::unistd::geteuid().is_root() {
        println!("SKIP: not root");
        return None;
    }
    if Command::new("ip").arg("-V").output().is_err() {
        println!("SKIP: iproute2 is not installed");
        return None;
    }
    let (namespace, wire) = (namespace(), namespace());
    let dir = tempfile::Builder::new().prefix("corten-netd-").tempdir().expect("temporary directory");
    let node = Node { daemon: None, namespace, wire, dir };
    node.sh("ip link set lo up; echo 0 > /proc/sys/net/ipv6/conf/default/accept_dad");
    let path = {
        use std::os::fd::{AsFd, AsRawFd};
        format!("/proc/{}/fd/{}", std::process::id(), node.wire.as_fd().as_raw_fd())
    };
    node.sh(&format!("ip link add eth0 type veth peer name wire netns {path}"));
    let mut up = Command::new("ip");
    up.args(["link", "set", "wire", "up"]);
    node.wire.run(|| up.status()).expect("inside").expect("ip");
    // No default route: the uplink is found by the address that the node list says.
    node.sh("ip addr add 192.0.2.1/24 dev eth0; ip link set eth0 up");
    node.write("net-conf.json", VXLAN);
    node.write("nodes.yaml", LIST);
    Some(node)
}

/// Waits for a condition.
fn until<T>(what: &str, mut condition: impl FnMut() -> Option<T>) -> T {
    let end = Instant::now() + DEADLINE;
    loop {
        if let Some(value) = condition() {
            return value;
        }
        assert!(Instant::now() < end, "no {what} within {DEADLINE:?}");
        std::thread::sleep(Duration::from_millis(10));
    }
}

impl Node {
    fn path(&self, name: &str) -> PathBuf {
        self.dir.path().join(name)
    }

    /// By rename, as editors do.
    fn write(&self, name: &str, text: &str) {
        let new = self.path(&format!(".new-{name}"));
        std::fs::write(&new, text).expect("write");
        std::fs::rename(&new, self.path(name)).expect("rename");
    }

    fn sh(&self, script: &str) -> String {
        let mut shell = Command::new("sh");
        shell.args(["-ec", script]).stdin(Stdio::null());
        let output = self.namespace.run(|| shell.output()).expect("inside").expect("sh runs");
        assert!(output.status.success(), "{script}: {}", String::from_utf8_lossy(&output.stderr));
        String::from_utf8_lossy(&output.stdout).into_owned()
    }

    /// The daemon's line with everything below the directory of this node.
    fn command(&self, flags: &[&str]) -> Command {
        let mut command = Command::new(NETD);
        command
            .args(["--fastpath", "off", "-node-name=a", "--net-config-path"])
            .arg(self.path("net-conf.json"))
            .arg("--node-list")
            .arg(self.path("nodes.yaml"))
            .arg("-subnet-file")
            .arg(self.path("run/subnet.env"))
            .arg("--state-dir")
            .arg(self.path("state"))
            .arg("--bpf-dir")
            .arg(self.path("bpf"))
            .args(flags)
            .stdin(Stdio::null());
        command
    }

    fn spawn(&mut self, mut command: Command) {
        let log = std::fs::File::create(self.path("log")).expect("log");
        command.stdout(log.try_clone().expect("log")).stderr(log);
        self.daemon =
            Some(self.namespace.run(|| command.spawn()).expect("inside").expect("start corten-netd"));
    }

    fn start(&mut self, flags: &[&str]) {
        self.spawn(self.command(flags));
    }

    /// The daemon's whole run, when it ends by itself.
    fn run(&self, mut command: Command) -> Output {
        command.stdout(Stdio::piped()).stderr(Stdio::piped());
        let mut child = self.namespace.run(|| command.spawn()).expect("inside").expect("start corten-netd");
        let end = Instant::now() + DEADLINE;
        while child.try_wait().expect("wait").is_none() {
            if Instant::now() > end {
                let _ = child.kill();
            }
            std::thread::sleep(Duration::from_millis(10));
        }
        child.wait_with_output().expect("output")
    }

    fn log(&self) -> String {
        std::fs::read_to_string(self.path("log")).unwrap_or_default()
    }

    fn signal(&mut self, signal: Signal) -> ExitStatus {
        let mut daemon = self.daemon.take().expect("a daemon");
        kill(Pid::from_raw(daemon.id() as i32), signal).expect("signal");
        daemon.wait().expect("wait")
    }

    fn status(&self) -> Option<Value> {
        let output = Command::new(NETD)
            .args(["status", "-o", "json", "--state-dir"])
            .arg(self.path("state"))
            .output()
            .expect("status");
        output.status.success().then(|| serde_json::from_slice(&output.stdout).expect("JSON"))
    }

    fn until_status(&self, what: &str, wanted: impl Fn(&Value) -> bool) -> Value {
        until(&format!("{what}; log: {}", self.log()), || self.status().filter(|status| wanted(status)))
    }

    fn ready(&self) -> Value {
        self.until_status("ready", |status| status["ready"] == true)
    }

    fn routes(&self) -> String {
        self.sh("ip route show proto 67")
    }
}

fn stderr(output: &Output) -> String {
    String::from_utf8_lossy(&output.stderr).into_owned()
}

#[test]
fn ready_means_rules_and_subnet_env_and_stopping_leaves_them() {
    let Some(mut node) = node() else { return };
    let socket = UnixDatagram::bind(node.path("notify")).expect("bind");
    socket.set_read_timeout(Some(DEADLINE)).expect("timeout");
    let mut command = node.command(&["--ip-masq", "--healthz-ip=127.0.0.1", "--healthz-port=8471"]);
    command.arg("--cni-conf-dir").arg(node.path("cni")).env("NOTIFY_SOCKET", node.path("notify"));
    node.spawn(command);
    let mut buffer = [0; 32];
    let n = socket.recv(&mut buffer).expect("told within the deadline");
    assert_eq!(&buffer[..n], b"READY=1");
    let env = std::fs::read_to_string(node.path("run/subnet.env")).expect("subnet.env");
    assert_eq!(
        env,
        "FLANNEL_NETWORK=10.244.0.0/16\nFLANNEL_SUBNET=10.244.1.1/24\nFLANNEL_MTU=1450\nFLANNEL_IPMASQ=true\n"
    );
    let conflist = std::fs::read(node.path("cni/10-flannel.conflist")).expect("conflist");
    let conflist: Value = serde_json::from_slice(&conflist).expect("JSON");
    assert_eq!(conflist["plugins"][0]["subnetFile"], node.path("run/subnet.env").to_str().unwrap());
    assert!(node.sh("nft list tables").contains("corten-flannel"));
    assert!(node.routes().contains("10.244.2.0/24 via 10.244.2.0 dev flannel.1"));
    let http = "curl -s http://127.0.0.1:8471";
    assert_eq!(node.sh(&format!("{http}/readyz")), "corten-netd is ready\n");
    assert!(node.sh(&format!("{http}/metrics")).contains("\ncorten_netd_peers 1\n"));

    let before = node.sh("ip -o link show flannel.1; ip route; nft -a list ruleset");
    assert!(node.signal(Signal::SIGTERM).success(), "{}", node.log());
    assert!(!node.path("state/netd.sock").exists());
    assert_eq!(node.sh("ip -o link show flannel.1; ip route; nft -a list ruleset"), before);
    node.start(&["--ip-masq"]);
    node.ready();
    assert_eq!(
        node.sh("ip -o link show flannel.1; ip route; nft -a list ruleset"),
        before,
        "taken over as it is"
    );
    node.signal(Signal::SIGKILL);
    assert_eq!(node.sh("ip -o link show flannel.1; ip route; nft -a list ruleset"), before);
}

#[test]
fn an_edit_of_the_node_list_moves_routes_and_a_bad_one_keeps_them() {
    let Some(mut node) = node() else { return };
    node.start(&[]);
    node.ready();
    node.write(
        "nodes.yaml",
        &format!("{LIST}- {{name: c, podCIDRs: [10.244.3.0/24], publicIPs: [192.0.2.3]}}\n"),
    );
    until("route to c", || node.routes().contains("10.244.3.0/24").then_some(()));
    node.write("nodes.yaml", "nodes: [{name: a,");
    let status = node.until_status("fault", |status| status["nodes"]["fault"].is_string());
    assert_eq!(status["nodes"]["peers"].as_array().unwrap().len(), 2);
    assert!(status["problems"][0].as_str().unwrap().contains("the last good list stays"), "{status}");
    assert!(node.routes().contains("10.244.3.0/24"));
    node.write("nodes.yaml", &LIST.replace("name: b", "name: d"));
    until("no route to c", || (!node.routes().contains("10.244.3.0/24")).then_some(()));
    let status = node.until_status("no fault", |status| status["nodes"]["fault"].is_null());
    assert_eq!(status["nodes"]["peers"][0]["name"], "d");
    assert!(status["ready"].as_bool().unwrap());
}

#[test]
fn two_nodes_with_one_pod_cidr_are_both_named_and_one_is_left_out() {
    let Some(mut node) = node() else { return };
    node.write(
        "nodes.yaml",
        &format!("{LIST}- {{name: c, podCIDRs: [10.244.2.0/25], publicIPs: [192.0.2.3]}}\n"),
    );
    node.start(&[]);
    let status = node.ready();
    let left = &status["nodes"]["left_out"][0];
    assert_eq!(left["node"], "c");
    let why = left["why"].as_str().unwrap();
    assert!(why.contains("10.244.2.0/25 overlaps 10.244.2.0/24 of node b"), "{why}");
    assert!(!node.routes().contains("10.244.2.0/25"));
    let text = Command::new(NETD).args(["status", "--state-dir"]).arg(node.path("state")).output().unwrap();
    let text = String::from_utf8(text.stdout).unwrap();
    assert!(text.contains("problems\n  c: its pod CIDR"), "{text}");
}

#[test]
fn a_missing_pod_cidr_is_waited_for_and_said() {
    let Some(mut node) = node() else { return };
    node.write("nodes.yaml", &LIST.replace("[10.244.1.0/24]", "[]"));
    node.start(&["--healthz-ip=127.0.0.1", "--healthz-port=8471"]);
    let status = node.until_status("waiting", |status| {
        status["waiting"]
            .as_str()
            .is_some_and(|waiting| waiting.contains("node a has no pod CIDR of IPv4 yet"))
    });
    assert_eq!(status["ready"], false);
    assert_eq!(node.sh("curl -s http://127.0.0.1:8471/healthz"), "corten-netd is running\n");
    let ready = node.sh("curl -s -w %{http_code} http://127.0.0.1:8471/readyz");
    assert!(ready.contains("no pod CIDR") && ready.ends_with("503"), "{ready}");
    assert!(!node.path("run/subnet.env").exists());
    assert!(!node.sh("ip link").contains("flannel.1"), "nothing is half made");
    node.write("nodes.yaml", LIST);
    node.ready();
}

#[test]
fn bad_configuration_is_refused_with_its_remedy_and_nothing_is_made() {
    let Some(node) = node() else { return };
    let table = [
        ("net-conf.json", r#"{"Network": "10.244.0.0/16"}"#, "Backend is missing"),
        (
            "net-conf.json",
            r#"{"Network": "10.244.0.0/16", "Backend": {"Type": "wireguard"}}"#,
            "encrypted tunnels are not supported; use \"vxlan\"",
        ),
        ("net-conf.json", r#"{"Network": "10.244.0.0/16", "Netmask": 1}"#, "unknown key Netmask"),
        ("nodes.yaml", "nodes: {}", "nodes.yaml: nodes: invalid type"),
        (
            "nodes.yaml",
            "nodes: [{name: a, podCIDRs: [10.9.1.0/24], publicIPs: [192.0.2.1]}]",
            "pod CIDR 10.9.1.0/24 of node a is not inside the network 10.244.0.0/16",
        ),
    ];
    for (file, text, wanted) in table {
        node.write("net-conf.json", VXLAN);
        node.write("nodes.yaml", LIST);
        node.write(file, text);
        let output = node.run(node.command(&[]));
        assert_eq!(output.status.code(), Some(1), "{text}");
        let said = stderr(&output);
        assert!(said.contains(wanted), "{text}: {said}");
        assert!(said.contains(file), "the file is named: {said}");
    }
    node.write("net-conf.json", VXLAN);
    node.write("nodes.yaml", LIST);
    let output = node.run(node.command(&["--kube-subnet-mgr"]));
    assert!(stderr(&output).contains("--node-list and --kube-subnet-mgr exclude each other"));
    assert!(!node.sh("ip link; nft list tables").contains("flannel"));
    assert!(!node.path("run/subnet.env").exists());
}

#[test]
fn the_command_line_counts_more_than_the_environment() {
    let Some(mut node) = node() else { return };
    let mut command = node.command(&[]);
    command
        .env("FLANNELD_SUBNET_FILE", node.path("never.env"))
        .env("FLANNELD_IP_MASQ", "true")
        .env("FLANNELD_IFACE", "eth0");
    node.spawn(command);
    node.ready();
    assert!(!node.path("never.env").exists());
    let env = std::fs::read_to_string(node.path("run/subnet.env")).expect("subnet.env");
    assert!(env.contains("FLANNEL_IPMASQ=true"), "{env}");
}

#[test]
fn subnet_env_follows_the_mtu_and_is_never_seen_in_part() {
    let Some(mut node) = node() else { return };
    node.start(&[]);
    node.ready();
    let file = node.path("run/subnet.env");
    let done = AtomicBool::new(false);
    std::thread::scope(|scope| {
        let reader = scope.spawn(|| {
            let mut reads = 0;
            while !done.load(Ordering::Relaxed) {
                let text = std::fs::read_to_string(&file).expect("always there");
                assert!(
                    text.starts_with("FLANNEL_NETWORK=") && text.ends_with("FLANNEL_IPMASQ=false\n"),
                    "{text}"
                );
                reads += 1;
            }
            reads
        });
        for mtu in [1400, 1300, 9000, 1200, 1500] {
            node.sh(&format!("ip link set eth0 mtu {mtu}"));
            let wanted = format!("FLANNEL_MTU={}\n", mtu - 50);
            until(&wanted, || std::fs::read_to_string(&file).expect("there").contains(&wanted).then_some(()));
        }
        done.store(true, Ordering::Relaxed);
        assert!(reader.join().expect("whole at every read") > 100);
    });
    assert_eq!(std::fs::read_dir(node.path("run")).unwrap().count(), 1, "nothing is left beside it");
}

#[test]
fn without_privileges_it_says_which_are_missing() {
    let Some(node) = node() else { return };
    if Command::new("setpriv").arg("--version").output().is_err() {
        println!("SKIP: util-linux is not installed");
        return;
    }
    // Where nobody may read and write: the files of the test and the program itself.
    let open = Command::new("chmod").args(["-R", "a+rwX"]).arg(node.dir.path()).status().expect("chmod");
    assert!(open.success());
    let program = node.path("corten-netd");
    std::fs::copy(NETD, &program).expect("copy");
    let given = node.command(&[]);
    let mut command = Command::new("setpriv");
    command
        .args(["--reuid=65534", "--regid=65534", "--clear-groups", "--inh-caps=-all"])
        .arg(program)
        .args(given.get_args());
    let output = node.run(command);
    let said = stderr(&output);
    assert_eq!(output.status.code(), Some(1), "{said}");
    assert!(said.contains("CAP_NET_ADMIN"), "{said}");
    assert!(!node.sh("ip link").contains("flannel.1"));
}

#[test]
fn a_second_daemon_on_one_state_directory_is_refused() {
    let Some(mut node) = node() else { return };
    node.start(&[]);
    node.ready();
    let output = node.run(node.command(&[]));
    assert!(stderr(&output).contains("another corten-netd runs with --state-dir"), "{}", stderr(&output));
    assert!(node.status().is_some(), "the first one answers still");
}

#[test]
fn an_address_of_this_node_that_changes_is_the_tunnels_new_source() {
    let Some(mut node) = node() else { return };
    node.start(&["--iface", "eth0"]);
    node.ready();
    // The list is edited first, then the node moves.
    node.write("nodes.yaml", &LIST.replace("192.0.2.1]", "192.0.2.99]"));
    node.sh("ip addr del 192.0.2.1/24 dev eth0; ip addr add 192.0.2.99/24 dev eth0");
    until("the tunnel's new source", || {
        node.sh("ip -d link show flannel.1").contains("local 192.0.2.99").then_some(())
    });
    let status = node.status().expect("status");
    assert_eq!(status["nodes"]["local"]["public_ips"][0], "192.0.2.99");
}

#[test]
fn help_teaches_and_status_without_a_daemon_says_so() {
    let help = Command::new(NETD).arg("--help").output().expect("help");
    let help = String::from_utf8(help.stdout).unwrap();
    for wanted in ["net-conf.json", "nodes.yaml", "corten-netd status", "FLANNELD_SUBNET_FILE"] {
        assert!(help.contains(wanted), "{wanted} in {help}");
    }
    let flags = Command::new(NETD).args(["run", "--help"]).output().expect("help");
    let flags = String::from_utf8(flags.stdout).unwrap();
    for wanted in ["--etcd-endpoints", "--kube-subnet-mgr", "--iface-can-reach", "--fastpath", "--node-list"]
    {
        assert!(flags.contains(wanted), "{wanted} in {flags}");
    }
    let version = Command::new(NETD).arg("-version").output().expect("version");
    assert!(version.status.success());
    let dir = tempfile::tempdir().unwrap();
    let status = Command::new(NETD).args(["status", "--state-dir"]).arg(dir.path()).output().expect("status");
    assert!(!status.status.success() && stderr(&status).contains("is it running"), "{}", stderr(&status));
    let conflist = Command::new(NETD).args(["conflist", "--bridge", "br7"]).output().expect("conflist");
    let conflist: Value = serde_json::from_slice(&conflist.stdout).unwrap();
    assert_eq!(conflist["plugins"][0]["delegate"]["bridge"], "br7");
}

struct Etcd {
    process: Child,
}

impl Drop for Etcd {
    fn drop(&mut self) {
        let _ = self.process.kill();
        let _ = self.process.wait();
    }
}

fn etcd(node: &Node, dir: &Path) -> Option<Etcd> {
    if Command::new("etcd").arg("--version").stdout(Stdio::null()).status().is_err() {
        println!("SKIP: etcd is not installed");
        return None;
    }
    let log = std::fs::File::create(dir.join("etcd.log")).expect("log");
    let mut command = Command::new("etcd");
    command
        .arg("--data-dir")
        .arg(dir.join("etcd"))
        .args(["--listen-client-urls=http://127.0.0.1:2379", "--advertise-client-urls=http://127.0.0.1:2379"])
        .arg("--unsafe-no-fsync")
        .stdout(log.try_clone().expect("log"))
        .stderr(log);
    Some(Etcd { process: node.namespace.run(|| command.spawn()).expect("inside").expect("start etcd") })
}

#[test]
fn with_etcd_it_waits_for_the_configuration_and_ends_with_its_lease() {
    let Some(mut node) = node() else { return };
    let Some(_etcd) = etcd(&node, node.dir.path()) else { return };
    let mut command = Command::new(NETD);
    command
        .args(["--fastpath=off", "-iface=eth0", "-etcd-prefix=/net", "-etcd-endpoints=http://127.0.0.1:2379"])
        .arg("-subnet-file")
        .arg(node.path("run/subnet.env"))
        .arg("--state-dir")
        .arg(node.path("state"))
        .arg("--bpf-dir")
        .arg(node.path("bpf"));
    node.spawn(command);
    node.until_status("waiting for the configuration", |status| {
        status["waiting"].as_str().is_some_and(|waiting| waiting.contains("etcdctl put /net/config"))
    });
    let put = |key: &str, value: &str| {
        let body = format!(r#"{{"key": "{}", "value": "{}"}}"#, base64(key), base64(value));
        node.sh(&format!("curl -sf http://127.0.0.1:2379/v3/kv/put -d '{body}'"));
    };
    put("/net/config", VXLAN);
    let status = node.ready();
    let cidr = status["nodes"]["local"]["pod_cidrs"][0].as_str().unwrap().to_owned();
    assert!(cidr.starts_with("10.244.") && cidr.ends_with(".0/24"), "{cidr}");
    let other = if cidr == "10.244.77.0/24" { "10.244.78.0" } else { "10.244.77.0" };
    put(
        &format!("/net/subnets/{other}-24"),
        r#"{"PublicIP":"192.0.2.2","PublicIPv6":null,"BackendType":"vxlan","BackendData":{"VNI":1,"VtepMAC":"12:c6:65:89:b4:e3"}}"#,
    );
    until("a route to the other node", || node.routes().contains(other).then_some(()));
    let key = format!("/net/subnets/{}", cidr.replace('/', "-"));
    node.sh(&format!(
        "curl -sf http://127.0.0.1:2379/v3/kv/deleterange -d '{{\"key\": \"{}\"}}'",
        base64(&key)
    ));
    let mut daemon = node.daemon.take().expect("a daemon");
    let status = until("end", || daemon.try_wait().expect("wait"));
    assert_eq!(status.code(), Some(1));
    assert!(node.log().contains("lease was revoked"), "{}", node.log());
}

/// As etcd's JSON gateway wants keys and values.
fn base64(text: &str) -> String {
    let mut child = Command::new("base64")
        .arg("-w0")
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .spawn()
        .expect("base64");
    std::io::Write::write_all(&mut child.stdin.take().expect("piped"), text.as_bytes()).expect("write");
    let mut out = String::new();
    child.stdout.take().expect("piped").read_to_string(&mut out).expect("read");
    child.wait().expect("base64");
    out
}

#[test]
fn services_of_a_file_are_in_force_and_go_when_they_are_off() {
    let Some(mut node) = node() else { return };
    node.write(
        "services.yaml",
        "
apiVersion: v1
kind: Service
metadata: {name: web, namespace: default}
spec: {clusterIP: 10.96.0.9, clusterIPs: [10.96.0.9], ports: [{name: http, port: 80, targetPort: 8080}]}
---
apiVersion: discovery.k8s.io/v1
kind: EndpointSlice
metadata: {name: web-1, namespace: default, labels: {kubernetes.io/service-name: web}}
addressType: IPv4
endpoints: [{addresses: [10.244.2.7], conditions: {ready: true}}]
ports: [{name: http, port: 8080, protocol: TCP}]
",
    );
    let services = node.path("services.yaml").display().to_string();
    node.start(&["--services", &services]);
    let status = node.until_status("Services", |status| status["services"]["in_force"] == true);
    assert_eq!(status["services"]["services"], 1, "{status}");
    assert!(node.sh("nft list table inet corten-services").contains("10.96.0.9"));
    assert!(node.signal(Signal::SIGTERM).success());
    assert!(node.sh("nft list tables").contains("corten-services"), "stopping leaves them");
    node.start(&["--services", "off"]);
    node.ready();
    assert!(!node.sh("nft list tables").contains("corten-services"));
}
