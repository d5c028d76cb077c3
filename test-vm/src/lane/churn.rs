//! Nodes that come, go, reboot and move; daemons that die; a fast path that is switched. Transfers that cross all this
//! lose no byte and no connection.

use std::net::SocketAddr;

use anyhow::{Context, Result, bail, ensure};

use super::Extent;
use super::board::{Board, Verdict};
use super::matrix::{attempt, pod_to_pod};
use super::scene::{Scene, first_pod, server_of};
use crate::cluster::address::{OUTSIDE, node_address, pod_cidr_text};
use crate::cluster::netd;
use crate::cluster::node::PORT;
use crate::cluster::picture::Picture;
use crate::cluster::probe::Bulk;
use crate::cluster::{Family, eventually};

/// Megabytes a second of each transfer: enough that every moment has packets, little enough for two CPUs.
const LOAD: u64 = 8;

pub fn rows(board: &mut Board, group: &str, scene: &mut Scene, extent: Extent) {
    board.row(format!("{group}: fast path switched {} times during transfers", extent.switches), || {
        switched(scene, extent.switches)
    });
    board.row(format!("{group}: netd killed {} times during transfers", extent.kills), || {
        killed(scene, extent.kills)
    });
    board.row(format!("{group}: netd ended and started again changes nothing"), || restarted(scene));
    board.row(format!("{group}: a node leaves and nothing of it stays"), || leave(scene));
    board.row(format!("{group}: a node joins"), || join(scene));
    board.row(format!("{group}: a node reboots"), || reboot(scene));
    board.row(format!("{group}: a node gets other addresses"), || moved(scene));
}

/// Transfers of both families from node 1: to pods of another node, to the neighbour, to the world outside; and from the host to
/// another node's pod.
struct Load(Vec<(String, Bulk)>);

impl Load {
    fn start(scene: &Scene) -> Result<Self> {
        let (near, far) = (scene.node(1), scene.node(2));
        let from = &first_pod(near)?.place;
        let mut load = Vec::new();
        for family in Family::BOTH {
            let outside =
                OUTSIDE.into_iter().find(|ip| Family::of(*ip) == family).context("one of each family")?;
            let neighbour = near.pods.get(1).context("node 1 has two pods")?;
            for (name, from, to) in [
                ("pod to pod on another node", from, server_of(first_pod(far)?, family)?),
                ("pod to its neighbour", from, server_of(neighbour, family)?),
                ("pod to the world outside", from, SocketAddr::new(outside, PORT)),
                ("host to pod on another node", &near.place, server_of(first_pod(far)?, family)?),
            ] {
                let name = format!("{name}, {family}");
                let bulk = Bulk::start(from, to, LOAD).with_context(|| name.clone())?;
                load.push((name, bulk));
            }
        }
        Ok(Self(load))
    }

    /// Ends all; says how much went through and the longest silence.
    fn finish(self) -> Result<String> {
        let (mut bytes, mut stall, mut wrong) = (0, 0, Vec::new());
        let count = self.0.len();
        for (name, bulk) in self.0 {
            match bulk.finish() {
                Ok(moved) => {
                    bytes += moved.returned;
                    stall = stall.max(moved.stall_ms);
                }
                Err(error) => wrong.push(format!("{name}: {error:#}")),
            }
        }
        ensure!(wrong.is_empty(), "{}", wrong.join("; "));
        Ok(format!("{count} transfers, {} MB, longest silence {stall} ms", bytes / 1_000_000))
    }
}

fn switched(scene: &mut Scene, times: usize) -> Result<Verdict> {
    let before = scene.setup.clone();
    let load = Load::start(scene)?;
    let outcome = (0..times).try_for_each(|turn| {
        // Begins with the other one, ends (even number of turns) with what it was.
        let on = (before.fast_path == "off") == (turn % 2 == 0);
        scene.setup.fast_path = if on { "on" } else { "off" };
        let setup = scene.setup.clone();
        for index in [1, 2] {
            let node = scene.cluster.node_mut(index);
            node.netd.as_mut().context("netd runs")?.terminate()?;
            netd::restart(node, &setup)?;
            netd::wait_ready(node)?;
            if on {
                netd::wait_fast(node)?;
            } else {
                netd::wait_slow(node)?;
            }
        }
        anyhow::Ok(())
    });
    scene.setup = before;
    let seen = load.finish()?;
    outcome?;
    Ok(Verdict::Passed(seen))
}

fn killed(scene: &mut Scene, times: usize) -> Result<Verdict> {
    // What a daemon makes only once is there before the first picture.
    restart_and_settle(scene, true)?;
    let before = Picture::take(scene.node(1))?;
    let load = Load::start(scene)?;
    for turn in 0..times {
        // Some die in the middle of their first pass.
        restart_and_settle(scene, turn % 3 == 2 || turn + 1 == times)?;
    }
    let seen = load.finish()?;
    unchanged(scene, &before)?;
    Ok(Verdict::Passed(seen))
}

fn restarted(scene: &mut Scene) -> Result<Verdict> {
    let before = Picture::take(scene.node(1))?;
    let setup = scene.setup.clone();
    let node = scene.cluster.node_mut(1);
    let status = node.netd.as_mut().context("netd runs")?.terminate()?;
    ensure!(status.success(), "on SIGTERM netd ended with {status}");
    node.netd = None;
    // What a stopped daemon holds is no question; all else stands while there is none.
    if let Some(difference) =
        Picture::take(node)?.without("descriptor").since(&before.clone().without("descriptor"))
    {
        bail!("without netd the node is another: {difference}");
    }
    netd::restart(node, &setup)?;
    netd::wait_ready(node)?;
    unchanged(scene, &before)?;
    Ok(Verdict::Passed("same links, routes, rules and pins".into()))
}

/// Kills node 1's daemon and starts another; waits for it or not.
fn restart_and_settle(scene: &mut Scene, wait: bool) -> Result<()> {
    let setup = scene.setup.clone();
    let node = scene.cluster.node_mut(1);
    node.netd.as_mut().context("netd runs")?.kill()?;
    netd::restart(node, &setup)?;
    if wait {
        netd::wait_ready(node)?;
        if setup.fast_path == "on" {
            netd::wait_fast(node)?;
        }
    }
    Ok(())
}

/// The picture of node 1 becomes `before` again, descriptors of the daemon included.
fn unchanged(scene: &Scene, before: &Picture) -> Result<()> {
    eventually("node 1 is as before", netd::SETTLE, || match Picture::take(scene.node(1))?.since(before) {
        None => Ok(()),
        Some(difference) => bail!("{difference}"),
    })
}

fn leave(scene: &mut Scene) -> Result<Verdict> {
    let gone = scene.cluster.leave(3).context("node 3 is there")?;
    drop(gone);
    scene.publish()?;
    for index in [1, 2] {
        eventually(&format!("node {index} forgets node 3"), netd::SETTLE, || {
            let picture = Picture::take(scene.node(index))?;
            for family in Family::BOTH {
                let (range, address) = (pod_cidr_text(3, family), node_address(3, family).to_string());
                let network = range.split('/').next().unwrap_or_default();
                for (kind, text) in
                    [("route", range.as_str()), ("neighbour", network), ("fdb", &format!("dst {address} "))]
                {
                    ensure!(!picture.has(kind, text), "a {kind} with {text} is still there");
                }
            }
            Ok(())
        })?;
    }
    everybody_talks(scene)
}

fn join(scene: &mut Scene) -> Result<Verdict> {
    scene.join(3)?;
    everybody_talks(scene)
}

fn reboot(scene: &mut Scene) -> Result<Verdict> {
    drop(scene.cluster.leave(2).context("node 2 is there")?);
    scene.join(2)?;
    everybody_talks(scene)
}

fn moved(scene: &mut Scene) -> Result<Verdict> {
    let index = scene.cluster.nodes.last().context("there are nodes")?.index;
    scene.cluster.node_mut(index).readdress(index + 50)?;
    scene.publish()?;
    everybody_talks(scene)
}

/// Pods of all nodes reach each other in both families, soon.
fn everybody_talks(scene: &Scene) -> Result<Verdict> {
    eventually("all pods reach each other", netd::SETTLE, || {
        let mut tries = Vec::new();
        for family in Family::BOTH {
            tries.extend(pod_to_pod(&scene.cluster, family, false)?);
        }
        attempt(&tries)
    })
}
