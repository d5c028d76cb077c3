//! Every way between pods, hosts and the world outside, and as whom the asker is seen at its end.

use std::net::{IpAddr, SocketAddr};

use anyhow::{Result, bail, ensure};

use super::board::{Board, Verdict};
use super::scene::{host_port, pods, server_of};
use crate::cluster::address::{OUTSIDE, gateway, pod_cidr};
use crate::cluster::node::PORT;
use crate::cluster::{Cluster, Family, Node, Place, probe};
use crate::probe::who::{Answer, Transport};

const ALL: [Transport; 3] = [Transport::Tcp, Transport::Udp, Transport::UdpLarge];

/// Between a pod and what has a larger MTU. Routers do not cut IPv6: there the first large datagram from a host to a
/// pod only teaches the host the path's MTU, and from then on the kernel takes that for the MTU between the nodes too.
fn with_hosts(family: Family) -> Vec<Transport> {
    match family {
        Family::V4 => ALL.to_vec(),
        Family::V6 => vec![Transport::Tcp, Transport::Udp],
    }
}

/// One thing to try: from somewhere to a server, by whom the answer should be, and as whom it should see us.
pub struct Try {
    pub from: Place,
    pub from_name: String,
    pub to: SocketAddr,
    pub by: Vec<String>,
    /// Empty: anybody.
    pub seen_as: Vec<IpAddr>,
    pub transports: Vec<Transport>,
}

pub fn rows(board: &mut Board, group: &str, cluster: &Cluster) {
    for family in Family::BOTH {
        let mut row = |name: &str, tries: Result<Vec<Try>>| {
            board.row(format!("{group}, {family}: {name}"), || attempt(&tries?));
        };
        row("pod to pod on the same node", pod_to_pod(cluster, family, true));
        row("pod to pod on other nodes", pod_to_pod(cluster, family, false));
        row("pod to its own host, seen as itself", pod_to_host(cluster, family, true));
        row("pod to other hosts, seen as its node", pod_to_host(cluster, family, false));
        row("host to its own pods", host_to_pod(cluster, family, true));
        row("host to pods of other nodes", host_to_pod(cluster, family, false));
        row("pod to the world outside, seen as its node", Ok(outbound(cluster, family)));
        row("from outside to a host port", Ok(host_ports(cluster, family)));
        board.row(format!("{group}, {family}: ping between pods of all nodes"), || ping(cluster, family));
    }
}

/// Each failure waits for an answer that does not come: after so many there is no point in going on.
const ENOUGH: usize = 6;

/// Tries all; the first failures are said.
pub fn attempt(tries: &[Try]) -> Result<Verdict> {
    ensure!(!tries.is_empty(), "nothing to try");
    let (mut wrong, mut count) = (Vec::new(), 0);
    for one in tries {
        if wrong.len() >= ENOUGH {
            break;
        }
        let questions: Vec<_> = one.transports.iter().map(|transport| (*transport, one.to)).collect();
        let answers = probe::who(&one.from, &questions)?;
        for ((transport, to), answer) in questions.iter().zip(answers) {
            count += 1;
            if let Some(problem) = one.problem(&answer) {
                wrong.push(format!("{} to {to} ({transport:?}): {problem}", one.from_name));
            }
        }
    }
    if wrong.is_empty() {
        return Ok(Verdict::Passed(format!("{count} answers")));
    }
    let shown = wrong.iter().take(3).cloned().collect::<Vec<_>>().join("; ");
    bail!("{} of {count} wrong: {shown}", wrong.len())
}

impl Try {
    fn problem(&self, answer: &Answer) -> Option<String> {
        match answer {
            Answer::Nobody(why) => Some(why.clone()),
            Answer::By { name, .. } if !self.by.contains(name) => {
                Some(format!("{name} answered instead of {}", self.by.join(" or ")))
            }
            Answer::By { seen_as, .. } if !self.seen_as.is_empty() && !self.seen_as.contains(seen_as) => {
                Some(format!("seen as {seen_as} instead of {:?}", self.seen_as))
            }
            Answer::By { .. } => None,
        }
    }
}

pub fn pod_to_pod(cluster: &Cluster, family: Family, same_node: bool) -> Result<Vec<Try>> {
    let mut tries = Vec::new();
    for (from_node, from) in pods(cluster) {
        for (to_node, to) in pods(cluster) {
            if from.name != to.name && (from_node.index == to_node.index) == same_node {
                tries.push(Try {
                    from: from.place.clone(),
                    from_name: from.name.clone(),
                    to: server_of(to, family)?,
                    by: vec![to.name.clone()],
                    seen_as: vec![from.address(family)?],
                    transports: ALL.to_vec(),
                });
            }
        }
    }
    Ok(tries)
}

fn pod_to_host(cluster: &Cluster, family: Family, own: bool) -> Result<Vec<Try>> {
    let mut tries = Vec::new();
    for (node, pod) in pods(cluster) {
        for host in cluster.nodes.iter().filter(|host| (host.index == node.index) == own) {
            tries.push(Try {
                from: pod.place.clone(),
                from_name: pod.name.clone(),
                to: SocketAddr::new(host.address(family), PORT),
                by: vec![host.name()],
                seen_as: vec![if own { pod.address(family)? } else { node.address(family) }],
                transports: with_hosts(family),
            });
        }
    }
    Ok(tries)
}

fn host_to_pod(cluster: &Cluster, family: Family, own: bool) -> Result<Vec<Try>> {
    let mut tries = Vec::new();
    for host in &cluster.nodes {
        for (_, pod) in pods(cluster).into_iter().filter(|(node, _)| (host.index == node.index) == own) {
            tries.push(Try {
                from: host.place.clone(),
                from_name: host.name(),
                to: server_of(pod, family)?,
                by: vec![pod.name.clone()],
                seen_as: addresses_of(host, family),
                transports: with_hosts(family),
            });
        }
    }
    Ok(tries)
}

/// What a host may call itself towards pods: its uplink, its bridge, its tunnel device.
fn addresses_of(host: &Node, family: Family) -> Vec<IpAddr> {
    vec![host.address(family), gateway(host.index, family), pod_cidr(host.index, family).0]
}

fn outbound(cluster: &Cluster, family: Family) -> Vec<Try> {
    let to = OUTSIDE.into_iter().find(|ip| Family::of(*ip) == family).expect("one of each family");
    let tries = pods(cluster).into_iter().map(|(node, pod)| Try {
        from: pod.place.clone(),
        from_name: pod.name.clone(),
        to: SocketAddr::new(to, PORT),
        by: vec!["outside".into()],
        seen_as: vec![node.address(family)],
        transports: with_hosts(family),
    });
    tries.collect()
}

fn host_ports(cluster: &Cluster, family: Family) -> Vec<Try> {
    let mut tries = Vec::new();
    for node in &cluster.nodes {
        for (number, pod) in (1..).zip(&node.pods) {
            tries.push(Try {
                from: cluster.outside().clone(),
                from_name: "outside".into(),
                to: SocketAddr::new(node.address(family), host_port(number)),
                by: vec![pod.name.clone()],
                seen_as: OUTSIDE.to_vec(),
                transports: vec![Transport::Tcp, Transport::Udp],
            });
        }
    }
    tries
}

/// ICMP echo, small and as large as no packet is.
fn ping(cluster: &Cluster, family: Family) -> Result<Verdict> {
    if let Err(missing) = crate::artifacts::tool("busybox") {
        return Ok(Verdict::Skipped(missing.to_string()));
    }
    let mut count = 0;
    for (_, from) in pods(cluster) {
        for (_, to) in pods(cluster).into_iter().filter(|(_, to)| to.name != from.name) {
            let to = to.address(family)?.to_string();
            for size in ["56", "4000"] {
                from.place.run("busybox", &["ping", "-c", "1", "-W", "3", "-s", size, &to])?;
                count += 1;
            }
        }
    }
    Ok(Verdict::Passed(format!("{count} answers")))
}
