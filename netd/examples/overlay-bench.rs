//! How long the overlay needs for many nodes, and what it costs: `overlay-bench [NODES]` (1,000), as root.
//!
//! Makes a network namespace with an uplink of its own and touches nothing outside it. Prints, for both families
//! together: the first pass over nothing, a pass that finds nothing to do, healing after a flush of the routes, after
//! the devices are deleted, after the rules are flushed (from the harm to the end of the pass that mends it), the CPU
//! share when idle, and RSS.

use std::process::Command;
use std::time::{Duration, Instant};

use corten_netd::net_conf::NetConf;
use corten_netd::node::{Backend, Dual, Node};
use corten_netd::overlay::{Config, Overlay, Status};
use corten_netd::source::{Remembered, Snapshot};
use corten_netlink::route::{Mac, Route};
use corten_netlink::{Protocol, Socket};
use nix::sched::{CloneFlags, unshare};
use nix::sys::resource::{UsageWho, getrusage};
use nix::sys::time::TimeValLike;
use tokio::sync::watch;

const NET_CONF: &str = r#"{"Network": "10.0.0.0/8", "EnableIPv6": true, "IPv6Network": "fd44::/16",
    "Backend": {"Type": "vxlan"}}"#;
const IDLE: Duration = Duration::from_secs(12);

fn main() -> anyhow::Result<()> {
    let count = std::env::args().nth(1).map_or(Ok(1000), |text| text.parse())?;
    unshare(CloneFlags::CLONE_NEWNET)?;
    sh(
        "ip link set lo up; ip link add eth0 type veth peer name far; ip link set far up; ip link set eth0 up
        ip addr add 192.0.2.1/24 dev eth0; ip addr add 2001:db8::1/64 dev eth0 nodad",
    )?;
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
    println!("before: RSS {} KiB", rss_kib());
    let mut config = Config::new(NET_CONF.parse::<NetConf>()?);
    config.uplink.iface = vec!["eth0".into()];
    config.ip_masq = true;
    let overlay = Overlay::open(config, Remembered::default())?;
    let announcement = overlay.underlay().borrow().announcement.clone();
    let local = Node {
        name: "self".into(),
        pod_cidrs: Dual { v4: Some("10.0.0.0/24".parse()?), v6: Some("fd44::/64".parse()?) },
        public_ips: announcement.public_ips,
        backend: announcement.backend,
    };
    let peers = (1..=count).map(node).collect::<Result<_, _>>()?;
    let (_sender, receiver) = watch::channel(Snapshot { local, peers, left_out: Vec::new(), fault: None });
    let status = overlay.status();
    let started = Instant::now();
    runtime.block_on(async {
        tokio::select! {
            outcome = overlay.run(receiver) => outcome.map_err(Into::into),
            outcome = measure(status, started, count) => outcome,
        }
    })
}

async fn measure(mut status: watch::Receiver<Status>, started: Instant, count: u32) -> anyhow::Result<()> {
    pass(&mut status, |s| s.ready).await?;
    report(&format!("{count} nodes from nothing"), started, &status);
    anyhow::ensure!(is_whole(count), "{:?} entries", entries()?);
    let passes = status.borrow().passes;
    pass(&mut status, |s| s.passes > passes).await?;
    println!("a pass that finds nothing to do: {} ms", status.borrow().last_pass_ms);
    let harms = [
        ("routes flushed", "ip route flush proto 67; ip -6 route flush proto 67"),
        ("devices deleted", "ip link del flannel.1; ip link del flannel-v6.1"),
        ("rules flushed", "nft flush ruleset"),
    ];
    for (what, harm) in harms {
        sh(harm)?;
        let started = Instant::now();
        pass(&mut status, |s| s.errors.is_empty() && is_whole(count)).await?;
        report(what, started, &status);
    }
    let before = cpu_ms()?;
    tokio::time::sleep(IDLE).await;
    let share = f64::from(cpu_ms()? - before) / (IDLE.as_secs_f64() * 10.0);
    println!("idle, a resync every 5 s: {share:.2} % of one CPU");
    println!("RSS {} KiB, at most {} KiB", rss_kib(), getrusage(UsageWho::RUSAGE_SELF)?.max_rss());
    Ok(())
}

fn report(what: &str, started: Instant, status: &watch::Receiver<Status>) {
    let last = status.borrow().last_pass_ms;
    println!("{what}: {} ms (last pass {last} ms), RSS {} KiB", started.elapsed().as_millis(), rss_kib());
}

/// Waits for the end of a pass after which this holds.
async fn pass(
    status: &mut watch::Receiver<Status>,
    mut holds: impl FnMut(&Status) -> bool,
) -> anyhow::Result<()> {
    while !holds(&status.borrow_and_update()) {
        status.changed().await?;
    }
    Ok(())
}

fn is_whole(count: u32) -> bool {
    let rules = "nft list table inet corten-flannel >/dev/null 2>&1";
    entries().is_ok_and(|entries| entries == [count; 6]) && sh(rules).is_ok()
}

/// Routes, neighbours and forwarding entries of each family.
fn entries() -> anyhow::Result<[u32; 6]> {
    let mut socket = Socket::open(Protocol::Route)?;
    let mut entries = [0; 6];
    for (ipv4, device, place) in [(true, "flannel.1", 0), (false, "flannel-v6.1", 3)] {
        let Some(link) = socket.link(device)? else { continue };
        let ours = |route: &&Route| route.protocol == 67 && route.link == Some(link.index);
        entries[place] = socket.main_routes(ipv4)?.iter().filter(ours).count() as u32;
        let neighbours = socket.neighbours(ipv4, link.index)?;
        entries[place + 1] = neighbours.iter().filter(|n| n.permanent).count() as u32;
        entries[place + 2] = socket.forwards(link.index)?.len() as u32;
    }
    Ok(entries)
}

fn node(number: u32) -> anyhow::Result<Node> {
    let [_, _, high, low] = number.to_be_bytes();
    let mac = |kind| Mac([2, kind, 0, 0, high, low]);
    Ok(Node {
        name: format!("node-{number}"),
        pod_cidrs: Dual {
            v4: Some(format!("10.{high}.{low}.0/24").parse()?),
            v6: Some(format!("fd44:0:{high:x}:{low:x}::/64").parse()?),
        },
        public_ips: Dual {
            v4: Some([192, 0, high + 3, low].into()),
            v6: Some(format!("2001:db8:1::{number:x}").parse()?),
        },
        backend: Backend::Vxlan { vni: 1, vtep: Dual { v4: Some(mac(4)), v6: Some(mac(6)) } },
    })
}

fn sh(script: &str) -> anyhow::Result<()> {
    let status = Command::new("sh").args(["-ec", script]).status()?;
    anyhow::ensure!(status.success(), "{script}");
    Ok(())
}

fn rss_kib() -> u64 {
    let text = std::fs::read_to_string("/proc/self/status").unwrap_or_default();
    let line = text.lines().find_map(|line| line.strip_prefix("VmRSS:"));
    line.and_then(|line| line.trim().trim_end_matches(" kB").parse().ok()).unwrap_or_default()
}

fn cpu_ms() -> anyhow::Result<i32> {
    let usage = getrusage(UsageWho::RUSAGE_SELF)?;
    let cpu_ms = usage.user_time().num_milliseconds() + usage.system_time().num_milliseconds();
    Ok(cpu_ms.try_into()?)
}
