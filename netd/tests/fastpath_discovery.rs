//! Pods are found by what the kernel says of the bridge, whoever made them.

mod common;

use std::collections::BTreeSet;
use std::net::IpAddr;
use std::path::Path;

use common::{Netns, Stage, cni, go_plugins, our_plugins};
use corten_netd::fastpath::discovery::{self, Found};
use corten_netd::fastpath::endpoints::{FarEnd, Reason, Resolved, resolve};
use corten_netd::node::PodCidrs;
use corten_netlink::{Protocol, Socket};
use serde_json::json;

fn found(node: &Netns) -> Found {
    node.within(|| {
        let mut socket = Socket::open(Protocol::Route).expect("a socket");
        discovery::read(&mut socket, "cni0", false).expect("read")
    })
}

fn pods(node: &Netns) -> Resolved {
    let cidrs =
        PodCidrs { v4: Some("10.244.1.0/24".parse().unwrap()), v6: Some("fd00:1::/64".parse().unwrap()) };
    let found = found(node);
    resolve(&found.bridge.expect("the bridge"), &found.ports, &cidrs, &found.host)
}

fn config(stage: &Stage) -> serde_json::Value {
    json!({
        "cniVersion": "0.4.0", "name": "pods", "type": "bridge", "bridge": "cni0", "isGateway": true,
        "ipam": {
            "type": "host-local", "dataDir": stage.path("ipam"),
            "ranges": [[{"subnet": "10.244.1.0/24"}], [{"subnet": "fd00:1::/64"}]]
        }
    })
}

fn pods_of_these_plugins_are_found(stage: &Stage, plugins: &Path) {
    let node = stage.netns("node");
    let config = config(stage);
    for index in 0..3 {
        let pod = stage.netns(&format!("pod{index}"));
        let result = cni(plugins, &node, "ADD", &format!("id{index}"), &pod, &config);
        let result: serde_json::Value = serde_json::from_str(&result).expect("a result");
        let wanted: BTreeSet<IpAddr> = result["ips"].as_array().expect("ips").iter().map(address).collect();
        let mac = pod.mac("eth0");
        let gateway = node.mac("cni0");
        let resolved = pods(&node);
        assert_eq!(resolved.left_out, []);
        let endpoints = || resolved.endpoints.iter().filter(|(_, e)| e.mac.to_string() == mac);
        assert_eq!(endpoints().map(|(ip, _)| *ip).collect::<BTreeSet<_>>(), wanted);
        assert!(endpoints().all(|(_, e)| e.gateway_mac.to_string() == gateway));
        assert_eq!(resolved.veths().len(), index + 1);
    }
    cni(plugins, &node, "DEL", "id1", &Netns { path: stage.path("pod1") }, &config);
    let resolved = pods(&node);
    assert_eq!((resolved.endpoints.len(), resolved.veths().len()), (4, 2));
}

fn address(ip: &serde_json::Value) -> IpAddr {
    let cidr = ip["address"].as_str().expect("an address");
    cidr.split('/').next().and_then(|a| a.parse().ok()).expect("an address")
}

#[test]
fn pods_of_our_plugins_are_found() {
    let stage = Stage::new();
    if let Some(plugins) = our_plugins(&stage) {
        pods_of_these_plugins_are_found(&stage, &plugins);
    }
}

#[test]
fn pods_of_the_go_plugins_are_found() {
    let stage = Stage::new();
    if let Some(plugins) = go_plugins() {
        pods_of_these_plugins_are_found(&stage, &plugins);
    }
}

#[test]
fn without_a_bridge_there_are_no_pods() {
    let stage = Stage::new();
    let node = stage.netns("node");
    let nothing = found(&node);
    assert_eq!((nothing.bridge, nothing.ports.len()), (None, 0));
}

#[test]
fn ports_that_are_no_pods_are_told_apart() {
    let stage = Stage::new();
    let node = stage.netns("node");
    stage.netns("pod");
    node.sh("ip link add cni0 type bridge; ip link set cni0 up; ip addr add 10.244.1.1/24 dev cni0
             ip link add here type veth peer name there; ip link set here master cni0
             ip link add tunnel type vxlan id 9 dstport 4789; ip link set tunnel master cni0");
    let pod = stage.path("pod");
    node.sh(&format!(
        "ip link add veth0 type veth peer name eth0 netns {}; ip link set veth0 master cni0 up",
        pod.display()
    ));
    let ports: Vec<(String, FarEnd)> = found(&node).ports.into_iter().map(|p| (p.name, p.far_end)).collect();
    let end = |name: &str| &ports.iter().find(|(n, _)| n == name).expect("the port").1;
    assert_eq!(end("here"), &FarEnd::SameNamespace);
    assert_eq!(end("tunnel"), &FarEnd::NotVeth(Some("vxlan".into())));
    assert!(matches!(end("veth0"), FarEnd::Pod { .. }), "{ports:?}");
    assert_eq!(pods(&node).left_out.len(), 1, "the pod has no address yet");
}

#[test]
fn restricted_pods_are_left_to_the_kernel() {
    let stage = Stage::new();
    let node = stage.netns("node");
    node.sh("ip link add cni0 type bridge; ip link set cni0 up; ip addr add 10.244.1.1/24 dev cni0");
    for index in 2..6 {
        let pod = stage.netns(&format!("pod{index}"));
        node.sh(&format!(
            "ip link add veth{index} type veth peer name eth0 netns {}; ip link set veth{index} master cni0 up",
            pod.path.display()
        ));
        pod.sh(&format!("ip link set eth0 up; ip addr add 10.244.1.{index}/24 dev eth0"));
    }
    assert_eq!(pods(&node).endpoints.len(), 4);
    node.sh("ip link set veth2 type bridge_slave isolated on
             tc qdisc add dev veth3 root tbf rate 1mbit burst 32kbit latency 25ms
             tc qdisc add dev veth4 handle ffff: ingress");
    let resolved = pods(&node);
    let reasons: Vec<Reason> = resolved.left_out.into_iter().map(|l| l.why).collect();
    let wanted = [Reason::Isolated, Reason::Queueing("tbf".into()), Reason::Queueing("ingress".into())];
    assert_eq!((resolved.endpoints.len(), reasons.as_slice()), (1, &wanted[..]));
}

#[test]
fn a_pod_in_its_own_user_namespace_is_found() {
    let stage = Stage::new();
    let node = stage.netns("node");
    node.sh("ip link add cni0 type bridge; ip link set cni0 up");
    let holder = node.spawn("unshare --user --map-root-user --net sleep 60");
    let pid = holder.0.id();
    common::wait_for("the namespace", std::time::Duration::from_secs(5), || {
        let ours = std::fs::read_link("/proc/self/ns/user").ok()?;
        (std::fs::read_link(format!("/proc/{pid}/ns/user")).ok()? != ours).then_some(())
    });
    common::wait_for("the network", std::time::Duration::from_secs(5), || {
        let comm = std::fs::read_to_string(format!("/proc/{pid}/comm")).ok()?;
        (comm.trim() == "sleep").then_some(())
    });
    node.sh(&format!(
        "ip link add veth0 type veth peer name eth0 netns {pid}; ip link set veth0 master cni0 up"
    ));
    node.sh(&format!("nsenter --net=/proc/{pid}/ns/net ip addr add 10.244.1.7/24 dev eth0"));
    assert_eq!(pods(&node).endpoints.len(), 1);
}
