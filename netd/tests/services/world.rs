//! ```text
//! client 192.0.2.9 ─┐
//!                   ├─ switch ─ node 192.0.2.1 ─ cni0 10.244.1.1 ─ pods 10.244.1.11, .12, ...
//! far 192.0.2.2 ────┘           (Services)
//! (10.244.2.11, a pod of another node)
//! ```
//! and the same in IPv6. Every pod answers on port 8080, TCP and UDP, with its name and the address it sees.

use std::fmt::Write as _;
use std::io::{ErrorKind, Read, Write};
use std::net::{IpAddr, SocketAddr, TcpListener, TcpStream, UdpSocket};
use std::time::Duration;

use corten_netd::services::model::{Model, Objects, Place};
use corten_netd::services::nft::{Applied, KernelTable, Settings, render};

use crate::common::{Netns, Stage, wait_for};

pub const CLUSTER_IP: [&str; 2] = ["10.96.0.1", "fd00:96::1"];
pub const NODE_IP: [&str; 2] = ["192.0.2.1", "2001:db8::1"];
pub const CLIENT_IP: [&str; 2] = ["192.0.2.9", "2001:db8::9"];
const PATIENCE: Duration = Duration::from_secs(3);

pub struct World {
    pub stage: Stage,
    pub node: Netns,
    pub client: Netns,
    pub far: Netns,
    pub kernel: KernelTable,
}

impl World {
    pub fn new() -> Self {
        let stage = Stage::new();
        let [switch, node, client, far] = ["switch", "node", "client", "far"].map(|name| stage.netns(name));
        switch.sh("ip link add br0 type bridge; ip link set br0 up");
        for (netns, number) in [(&node, 1), (&far, 2), (&client, 9)] {
            switch.sh(&format!(
                "ip link add port{number} type veth peer name eth0 netns {}; ip link set port{number} master br0 up",
                netns.path.display()
            ));
            netns.sh(&format!(
                "ip addr add 192.0.2.{number}/24 dev eth0; ip addr add 2001:db8::{number}/64 dev eth0 nodad
                 ip link set eth0 up"
            ));
        }
        node.sh("ip link add cni0 type bridge; ip link set cni0 up
                 ip addr add 10.244.1.1/24 dev cni0; ip addr add fd00:244:1::1/64 dev cni0 nodad
                 ip route add 10.244.2.0/24 via 192.0.2.2; ip route add fd00:244:2::/64 via 2001:db8::2
             ip route add default via 192.0.2.2; ip route add default via 2001:db8::2");
        far.sh("ip addr add 10.244.2.11/32 dev lo; ip addr add fd00:244:2::11/128 dev lo
                ip route add 10.244.1.0/24 via 192.0.2.1; ip route add fd00:244:1::/64 via 2001:db8::1");
        for prefix in
            ["10.96.0.0/16 via 192.0.2.1", "203.0.113.0/24 via 192.0.2.1", "fd00:96::/112 via 2001:db8::1"]
        {
            client.sh(&format!("ip route add {prefix}"));
        }
        let kernel = node.within(KernelTable::open).expect("nf_tables");
        let world = Self { stage, node, client, far, kernel };
        for address in ["10.244.2.11", "fd00:244:2::11"] {
            serve(&world.far, address, "far");
        }
        world
    }

    /// A pod of the node with the last number of its addresses.
    pub fn pod(&self, number: u8) -> Netns {
        let pod = self.stage.netns(&format!("pod{number}"));
        self.node.sh(&format!(
            "ip link add veth{number} type veth peer name eth0 netns {}
             ip link set veth{number} master cni0 up; ip link set veth{number} type bridge_slave hairpin on",
            pod.path.display()
        ));
        pod.sh(&format!(
            "ip addr add 10.244.1.{number}/24 dev eth0; ip addr add fd00:244:1::{number}/64 dev eth0 nodad
             ip link set eth0 up; ip route add default via 10.244.1.1; ip route add default via fd00:244:1::1"
        ));
        for address in [format!("10.244.1.{number}"), format!("fd00:244:1::{number}")] {
            serve(&pod, &address, &format!("pod{number}"));
        }
        pod
    }

    /// Puts these objects in force.
    pub fn apply(&mut self, yaml: &str) -> Applied {
        let model = model(yaml);
        let kernel = &mut self.kernel;
        self.node.within(|| {
            let mut applied = kernel.apply(render(&model, &settings())).expect("applied");
            let udp = corten_netd::services::nft::stale::Udp::of(&model);
            applied.flows = kernel.forget_stale_flows(udp).expect("flows");
            applied
        })
    }
}

pub fn settings() -> Settings {
    let network = |text: &str| text.parse().expect("a network");
    Settings { pod_networks: vec![network("10.244.0.0/16"), network("fd00:244::/32")] }
}

pub fn model(yaml: &str) -> Model {
    let mut objects = Objects::default();
    for document in serde_yaml_ng::Deserializer::from_str(yaml) {
        let value: serde_json::Value = serde::Deserialize::deserialize(document).expect("yaml");
        if value["kind"] == "Service" {
            objects.put_service(&serde_json::from_value(value).expect("a Service"));
        } else {
            objects.put_slice(&serde_json::from_value(value).expect("an EndpointSlice"));
        }
    }
    let model = objects.model(&Place { node: "node".into(), zone: None });
    assert_eq!(model.refusals, []);
    model
}

/// A Service `web` in both families, TCP and UDP port 80, with the pods of these numbers (1xx: pods of `far`).
pub fn service(spec: &str, pods: &[u8]) -> String {
    let mut yaml = format!(
        "kind: Service
metadata: {{name: web, namespace: test}}
spec:
  clusterIPs: [{}, '{}']
  ports: [{{name: t, port: 80, nodePort: 30080}}, {{name: u, port: 80, protocol: UDP, nodePort: 30080}}]
  {spec}
",
        CLUSTER_IP[0], CLUSTER_IP[1]
    );
    for (kind, prefix) in [("IPv4", "10.244."), ("IPv6", "fd00:244:")] {
        let endpoint = |pod: &u8| {
            let (subnet, host, node) = if *pod >= 100 { (2, pod - 100, "far") } else { (1, *pod, "node") };
            let separator = if kind == "IPv4" { "." } else { "::" };
            format!("{{addresses: ['{prefix}{subnet}{separator}{host}'], nodeName: {node}}}")
        };
        let endpoints: Vec<_> = pods.iter().map(endpoint).collect();
        let _ = write!(
            yaml,
            "---
kind: EndpointSlice
metadata: {{name: web-{kind}, namespace: test, labels: {{kubernetes.io/service-name: web}}}}
addressType: {kind}
ports: [{{name: t, port: 8080}}, {{name: u, port: 8080, protocol: UDP}}]
endpoints: [{}]
",
            endpoints.join(", ")
        );
    }
    yaml
}

/// Threads that end with the test's process.
fn serve(netns: &Netns, address: &str, name: &str) {
    let address = SocketAddr::new(address.parse().expect("an address"), 8080);
    // The kernel makes an IPv6 address usable a little after it was added.
    let (tcp, udp) = netns.within(|| {
        wait_for("an address to listen at", PATIENCE, || {
            Some((TcpListener::bind(address).ok()?, UdpSocket::bind(address).ok()?))
        })
    });
    let answer = |name: &str, peer: SocketAddr| format!("{name} {}", peer.ip());
    let tcp_name = name.to_owned();
    std::thread::spawn(move || {
        while let Ok((mut stream, peer)) = tcp.accept() {
            let _ = stream.write_all(answer(&tcp_name, peer).as_bytes());
        }
    });
    let udp_name = name.to_owned();
    std::thread::spawn(move || {
        let mut buffer = [0; 16];
        while let Ok((_, peer)) = udp.recv_from(&mut buffer) {
            let _ = udp.send_to(answer(&udp_name, peer).as_bytes(), peer);
        }
    });
}

pub fn socket(address: &str, port: u16) -> SocketAddr {
    SocketAddr::new(address.parse::<IpAddr>().expect("an address"), port)
}

/// Who answers, and what address it saw; or why nobody did.
pub fn tcp(from: &Netns, to: SocketAddr) -> Result<(String, String), ErrorKind> {
    let mut stream = from.within(|| TcpStream::connect_timeout(&to, PATIENCE)).map_err(|e| e.kind())?;
    stream.set_read_timeout(Some(PATIENCE)).expect("a timeout");
    let mut text = String::new();
    stream.read_to_string(&mut text).map_err(|e| e.kind())?;
    Ok(split(&text))
}

pub fn udp(from: &Netns, to: SocketAddr) -> Result<(String, String), ErrorKind> {
    ask(&udp_socket(from, to), Duration::from_secs(1))
}

pub fn udp_socket(from: &Netns, to: SocketAddr) -> UdpSocket {
    let any: SocketAddr = if to.is_ipv4() { "0.0.0.0:0" } else { "[::]:0" }.parse().expect("any address");
    from.within(|| {
        let socket = UdpSocket::bind(any).expect("a socket");
        socket.connect(to).expect("a route");
        socket
    })
}

pub fn ask(socket: &UdpSocket, patience: Duration) -> Result<(String, String), ErrorKind> {
    socket.set_read_timeout(Some(patience)).expect("a timeout");
    socket.send(b"?").map_err(|e| e.kind())?;
    let mut buffer = [0; 64];
    let length = socket.recv(&mut buffer).map_err(|e| e.kind())?;
    Ok(split(&String::from_utf8_lossy(&buffer[..length])))
}

fn split(text: &str) -> (String, String) {
    let (name, peer) = text.split_once(' ').expect("a name and an address");
    (name.to_owned(), peer.to_owned())
}
