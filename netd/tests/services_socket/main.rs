//! From objects to connections: Services and EndpointSlices as an apiserver has them, the model, the maps, and sockets
//! that connect. No packet rule is there.

#[path = "../common/mod.rs"]
mod common;

use std::collections::BTreeSet;
use std::io::ErrorKind;
use std::net::{IpAddr, SocketAddr, TcpListener, TcpStream, UdpSocket};
use std::time::Duration;

use common::{Cgroup, Stage, move_to};
use corten_ebpf::socket::Options;
use corten_netd::services::maps::{Applied, Applier, desired};
use corten_netd::services::model::{Objects, Place};

const DEADLINE: Duration = Duration::from_secs(10);

/// A node with its name, pods' addresses on its loopback, and Services served at its sockets.
struct Node {
    applier: Applier,
    objects: Objects,
    stage: Stage,
    cgroup: Cgroup,
}

impl Node {
    fn new() -> Option<Self> {
        let cgroup = Cgroup::new()?;
        let stage = Stage::new();
        stage.sh("ip addr add 192.0.2.1/32 dev lo; ip addr add 2001:db8::1/128 dev lo nodad");
        let options =
            Options { pin_directory: stage.path("bpf").join("socket"), cgroup: cgroup.path.clone() };
        let applier = Applier::open(options).expect("loaded");
        move_to(&cgroup.path);
        Some(Self { applier, objects: Objects::default(), stage, cgroup })
    }

    fn read(&mut self, yaml: &str) -> Applied {
        for document in serde_yaml_ng::Deserializer::from_str(yaml) {
            let value: serde_json::Value = serde::Deserialize::deserialize(document).expect("yaml");
            if value["kind"] == "Service" {
                self.objects.put_service(&serde_json::from_value(value).expect("a Service"));
            } else {
                self.objects.put_slice(&serde_json::from_value(value).expect("an EndpointSlice"));
            }
        }
        let model = self.objects.model(&Place { node: "n1".into(), zone: None });
        assert_eq!(model.refusals, []);
        let addresses = ["192.0.2.1", "2001:db8::1"].map(|a| a.parse::<IpAddr>().expect("an address"));
        let desired = desired(&model, &addresses);
        let applied = self.applier.apply(&desired).expect("applied");
        assert_eq!(applied.refused, [""; 0]);
        let again = self.applier.apply(&desired).expect("applied");
        assert_eq!(again, Applied::default(), "a second pass has nothing to do");
        applied
    }

    /// A pod's port that accepts; its address goes onto the loopback device.
    fn pod(&self, address: &str) -> Pod {
        let address: SocketAddr = address.parse().expect("an address and a port");
        // The kernel makes IPv6's local route later, by a worker.
        self.stage.sh(&format!(
            "ip addr add {0} dev lo nodad; until ip route get {0} | grep -q ^local; do :; done",
            address.ip()
        ));
        let tcp = TcpListener::bind(address).expect("a listener");
        tcp.set_nonblocking(true).expect("set");
        let udp = UdpSocket::bind(address).expect("a socket");
        udp.set_read_timeout(Some(DEADLINE)).expect("set");
        Pod { tcp, udp }
    }
}

impl Drop for Node {
    fn drop(&mut self) {
        move_to(&self.cgroup.parent);
    }
}

struct Pod {
    tcp: TcpListener,
    udp: UdpSocket,
}

/// Which of the pods are reached by connections to a frontend.
fn reached(pods: &[&Pod], frontend: &str) -> Vec<usize> {
    let frontend: SocketAddr = frontend.parse().expect("an address and a port");
    let mut reached = BTreeSet::new();
    for _ in 0..48 {
        let client = TcpStream::connect_timeout(&frontend, DEADLINE).expect("connected");
        assert_eq!(client.peer_addr().expect("a peer"), frontend);
        reached.extend(pods.iter().position(|pod| pod.tcp.accept().is_ok()));
    }
    reached.into_iter().collect()
}

fn refused(frontend: &str) -> ErrorKind {
    let frontend: SocketAddr = frontend.parse().expect("an address and a port");
    TcpStream::connect_timeout(&frontend, DEADLINE).expect_err("nobody is there").kind()
}

const WEB: &str = "
kind: Service
metadata: {name: web, namespace: shop}
spec:
  type: NodePort
  clusterIP: 10.96.0.10
  clusterIPs: [10.96.0.10, 'fd00:96::10']
  ipFamilies: [IPv4, IPv6]
  externalTrafficPolicy: Local
  ports: [{name: http, port: 80, targetPort: 8080, nodePort: 30080}]
";

fn slice(service: &str, family: &str, endpoints: &[&str]) -> String {
    format!(
        "---
kind: EndpointSlice
metadata: {{name: {service}-{family}, namespace: shop, labels: {{kubernetes.io/service-name: {service}}}}}
addressType: {family}
ports: [{{name: http, port: 8080, protocol: TCP}}, {{name: dns, port: 8080, protocol: UDP}}]
endpoints: [{}]
",
        endpoints.join(", ")
    )
}

#[test]
fn a_service_of_both_families_is_reached_by_cluster_ip_and_node_port() {
    let Some(mut node) = Node::new() else { return };
    let (here, there, six) =
        (node.pod("10.244.1.1:8080"), node.pod("10.244.2.1:8080"), node.pod("[fd00:244::1]:8080"));
    let pods = [&here, &there, &six];
    let four = [
        "{addresses: [10.244.1.1], nodeName: n1, conditions: {ready: true}}",
        "{addresses: [10.244.2.1], nodeName: n2, conditions: {ready: true}}",
    ];
    node.read(&format!(
        "{WEB}{}{}",
        slice("web", "IPv4", &four),
        slice("web", "IPv6", &["{addresses: ['fd00:244::1'], nodeName: n2, conditions: {ready: true}}"])
    ));
    assert_eq!(reached(&pods, "10.96.0.10:80"), [0, 1]);
    assert_eq!(reached(&pods, "[fd00:96::10]:80"), [2]);
    // externalTrafficPolicy Local is for clients outside: the node and its pods reach every endpoint.
    assert_eq!(reached(&pods, "192.0.2.1:30080"), [0, 1]);
    assert_eq!(reached(&pods, "127.0.0.1:30080"), [0, 1]);
    assert_eq!(reached(&pods, "[2001:db8::1]:30080"), [2]);
}

#[test]
fn a_pod_that_terminates_is_left_and_taken_only_when_nobody_else_is_there() {
    let Some(mut node) = Node::new() else { return };
    let (first, second) = (node.pod("10.244.1.1:8080"), node.pod("10.244.1.2:8080"));
    let pods = [&first, &second];
    let ready = |n: u8| format!("{{addresses: [10.244.1.{n}], nodeName: n1, conditions: {{ready: true}}}}");
    let leaving = |n: u8| {
        format!(
            "{{addresses: [10.244.1.{n}], nodeName: n1, conditions: {{ready: false, serving: true, terminating: true}}}}"
        )
    };
    node.read(&format!("{WEB}{}", slice("web", "IPv4", &[&ready(1), &ready(2)])));
    assert_eq!(reached(&pods, "10.96.0.10:80"), [0, 1]);
    node.read(&slice("web", "IPv4", &[&leaving(1), &ready(2)]));
    assert_eq!(reached(&pods, "10.96.0.10:80"), [1]);
    node.read(&slice("web", "IPv4", &[&leaving(1)]));
    assert_eq!(reached(&pods, "10.96.0.10:80"), [0]);
    node.read(&slice("web", "IPv4", &[]));
    assert_eq!(refused("10.96.0.10:80"), ErrorKind::ConnectionRefused);
}

#[test]
fn internal_traffic_policy_local_takes_this_nodes_pods_only() {
    let Some(mut node) = Node::new() else { return };
    let (here, there) = (node.pod("10.244.1.1:8080"), node.pod("10.244.2.1:8080"));
    let service = WEB.replace("externalTrafficPolicy: Local", "internalTrafficPolicy: Local");
    let there_only = "{addresses: [10.244.2.1], nodeName: n2, conditions: {ready: true}}";
    let both = ["{addresses: [10.244.1.1], nodeName: n1, conditions: {ready: true}}", there_only];
    node.read(&format!("{service}{}", slice("web", "IPv4", &both)));
    assert_eq!(reached(&[&here, &there], "10.96.0.10:80"), [0]);
    assert_eq!(reached(&[&here, &there], "192.0.2.1:30080"), [0, 1]);
    node.read(&slice("web", "IPv4", &[there_only]));
    assert_eq!(refused("10.96.0.10:80"), ErrorKind::ConnectionRefused, "as if it had no endpoints");
}

#[test]
fn session_affinity_holds_over_cluster_ip_and_node_port() {
    let Some(mut node) = Node::new() else { return };
    let pods: Vec<Pod> = (1..=6).map(|n| node.pod(&format!("10.244.1.{n}:8080"))).collect();
    let pods: Vec<&Pod> = pods.iter().collect();
    let service = WEB.replace(
        "externalTrafficPolicy: Local",
        "sessionAffinity: ClientIP\n  sessionAffinityConfig: {clientIP: {timeoutSeconds: 600}}",
    );
    let endpoints: Vec<String> = (1..=6)
        .map(|n| format!("{{addresses: [10.244.1.{n}], nodeName: n1, conditions: {{ready: true}}}}"))
        .collect();
    let endpoints: Vec<&str> = endpoints.iter().map(String::as_str).collect();
    node.read(&format!("{service}{}", slice("web", "IPv4", &endpoints)));
    let first = reached(&pods, "10.96.0.10:80");
    assert_eq!(first.len(), 1);
    assert_eq!(reached(&pods, "192.0.2.1:30080"), first);
}

#[test]
fn a_resolver_whose_pod_was_replaced_is_told_and_asks_the_new_one() {
    let Some(mut node) = Node::new() else { return };
    let (old, new) = (node.pod("10.244.1.1:8080"), node.pod("10.244.1.2:8080"));
    let dns = "
kind: Service
metadata: {name: dns, namespace: shop}
spec: {clusterIP: 10.96.0.53, ports: [{name: dns, port: 53, protocol: UDP}]}
";
    let pod = |n: u8| format!("{{addresses: [10.244.1.{n}], nodeName: n1, conditions: {{ready: true}}}}");
    node.read(&format!("{dns}{}", slice("dns", "IPv4", &[&pod(1)])));
    let resolver = UdpSocket::bind("0.0.0.0:0").expect("a socket");
    resolver.set_read_timeout(Some(DEADLINE)).expect("set");
    resolver.connect("10.96.0.53:53").expect("connected");
    resolver.send(b"who?").expect("sent");
    old.udp.recv(&mut [0; 8]).expect("received");

    assert_eq!(node.read(&slice("dns", "IPv4", &[&pod(2)])).ended, 1);
    assert_eq!(resolver.recv(&mut [0; 8]).expect_err("told").kind(), ErrorKind::ConnectionAborted);
    resolver.connect("10.96.0.53:53").expect("connected anew");
    resolver.send(b"who?").expect("sent");
    new.udp.recv(&mut [0; 8]).expect("received");
}
