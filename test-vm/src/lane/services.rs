//! Services: a cluster address and a node port, asked from pods, hosts and outside.

use std::net::{IpAddr, SocketAddr};

use anyhow::Result;
use serde_json::{Value, json};

use super::board::{Board, Verdict};
use super::matrix::{Try, attempt};
use super::scene::{Scene, pods};
use crate::cluster::netd;
use crate::cluster::node::PORT;
use crate::cluster::{Cluster, Family, eventually};
use crate::probe::who::Transport;

const SERVICE_PORT: u16 = 80;
const NODE_PORT: u16 = 30_080;

fn cluster_ip(family: Family) -> IpAddr {
    match family {
        Family::V4 => IpAddr::from([10, 96, 0, 10]),
        Family::V6 => "fd00:96::10".parse().expect("an address"),
    }
}

/// How often a Service is asked from one place: often enough that an endpoint which does not answer is met.
const TIMES: usize = 8;

pub fn rows(board: &mut Board, group: &str, scene: &Scene) {
    let mut served = false;
    board.row(format!("{group}: Services from a file, all pods behind one"), || {
        let verdict = publish(scene)?;
        served = matches!(verdict, Verdict::Passed(_));
        Ok(verdict)
    });
    if !served {
        return;
    }
    for family in Family::BOTH {
        let cluster = &scene.cluster;
        let mut row = |name: &str, tries: Vec<Try>| {
            board.row(format!("{group}, {family}: {name}"), || attempt(&tries));
        };
        row(
            "pod to a Service, itself behind it",
            from_pods(cluster, &[SocketAddr::new(cluster_ip(family), SERVICE_PORT)]),
        );
        row("host to a Service", from_hosts(cluster, &[SocketAddr::new(cluster_ip(family), SERVICE_PORT)]));
        let node_ports: Vec<_> =
            cluster.nodes.iter().map(|node| SocketAddr::new(node.address(family), NODE_PORT)).collect();
        row("pod to node ports of all nodes", from_pods(cluster, &node_ports));
        row("host to node ports of all nodes", from_hosts(cluster, &node_ports));
        row("from outside to node ports", from_outside(cluster, &node_ports));
    }
}

/// The same file on every node.
pub fn publish(scene: &Scene) -> Result<Verdict> {
    let text = objects(&scene.cluster)?.to_string();
    for node in &scene.cluster.nodes {
        node.place.replace(netd::SERVICES, &text)?;
    }
    let asked = SocketAddr::new(cluster_ip(Family::V6), SERVICE_PORT);
    eventually("every node serves the Service", netd::SETTLE, || {
        let mut tries = from_hosts(&scene.cluster, &[asked]);
        for one in &mut tries {
            one.transports.truncate(1);
        }
        attempt(&tries)
    })
}

fn objects(cluster: &Cluster) -> Result<Value> {
    let ports = |number: &str, value: u16| {
        ["TCP", "UDP"]
            .map(|protocol| json!({ "name": protocol.to_lowercase(), "protocol": protocol, number: value }))
    };
    let mut service_ports = ports("port", SERVICE_PORT);
    for port in &mut service_ports {
        port["targetPort"] = json!(PORT);
        port["nodePort"] = json!(NODE_PORT);
    }
    let mut items = vec![json!({
        "apiVersion": "v1", "kind": "Service",
        "metadata": { "name": "web", "namespace": "default" },
        "spec": {
            "type": "NodePort", "ipFamilyPolicy": "RequireDualStack", "ipFamilies": ["IPv4", "IPv6"],
            "clusterIP": cluster_ip(Family::V4), "clusterIPs": Family::BOTH.map(cluster_ip),
            "ports": service_ports,
        }
    })];
    for family in Family::BOTH {
        let mut endpoints = Vec::new();
        for (node, pod) in pods(cluster) {
            endpoints.push(json!({
                "addresses": [pod.address(family)?], "nodeName": node.name(),
                "conditions": { "ready": true, "serving": true, "terminating": false },
            }));
        }
        items.push(json!({
            "apiVersion": "discovery.k8s.io/v1", "kind": "EndpointSlice",
            "metadata": {
                "name": format!("web-{}", family.to_string().to_lowercase()), "namespace": "default",
                "labels": { "kubernetes.io/service-name": "web" },
            },
            "addressType": family.to_string(), "endpoints": endpoints, "ports": ports("port", PORT),
        }));
    }
    Ok(json!({ "apiVersion": "v1", "kind": "List", "items": items }))
}

fn from_pods(cluster: &Cluster, to: &[SocketAddr]) -> Vec<Try> {
    let from = pods(cluster);
    from.iter().flat_map(|(_, pod)| tries(cluster, &pod.place, &pod.name, to)).collect()
}

fn from_hosts(cluster: &Cluster, to: &[SocketAddr]) -> Vec<Try> {
    cluster.nodes.iter().flat_map(|node| tries(cluster, &node.place, &node.name(), to)).collect()
}

fn from_outside(cluster: &Cluster, to: &[SocketAddr]) -> Vec<Try> {
    tries(cluster, cluster.outside(), "outside", to)
}

fn tries(cluster: &Cluster, from: &crate::cluster::Place, from_name: &str, to: &[SocketAddr]) -> Vec<Try> {
    let by: Vec<String> = pods(cluster).iter().map(|(_, pod)| pod.name.clone()).collect();
    let transports = [[Transport::Tcp; TIMES], [Transport::Udp; TIMES]].concat();
    let one = |to: &SocketAddr| Try {
        from: from.clone(),
        from_name: from_name.into(),
        to: *to,
        by: by.clone(),
        seen_as: Vec::new(),
        transports: transports.clone(),
    };
    to.iter().map(one).collect()
}
