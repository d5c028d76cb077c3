//! What corten-netd costs with a thousand nodes in its list: time until all are routed, memory, CPU when nothing
//! changes.

use std::fs;
use std::thread::sleep;
use std::time::{Duration, Instant};

use anyhow::{Context, Result, ensure};

use super::{Row, Samples, Unit};
use crate::cluster::netd::{self, Backend, Setup};
use crate::cluster::{Cluster, Wire, eventually};

const NODES: usize = 1000;
/// Starts that are timed.
const TURNS: usize = 3;
const IDLE: Duration = Duration::from_secs(5);

pub fn measure() -> Result<Vec<Row>> {
    let (mut took, mut resident, mut idle) = (Vec::new(), Vec::new(), Vec::new());
    for turn in 0..TURNS {
        let mut cluster = Cluster::new(&format!("thousand{turn}"), 1, Wire::Switch)?;
        let node = cluster.node_mut(1);
        let members: Vec<_> = (1..=NODES).map(netd::Member::imagined).collect();
        let setup = Setup { backend: Backend::Vxlan, fast_path: "off" };
        let start = Instant::now();
        netd::start(node, &setup, &members)?;
        let pid = node.netd.as_ref().context("just started")?.pid();
        let routed = eventually("all nodes are routed", Duration::from_mins(1), || {
            let count = routes(pid);
            ensure!(count >= 2 * (NODES - 1), "{count} routes");
            Ok(start.elapsed())
        });
        took.push(routed.with_context(|| node.netd_log())?.as_secs_f64() * 1e6);
        sleep(Duration::from_secs(1));
        resident.push(resident_bytes(pid)?);
        let before = cpu_nanos(pid)?;
        sleep(IDLE);
        let used = Duration::from_nanos(cpu_nanos(pid)? - before);
        idle.push(used.as_secs_f64() / IDLE.as_secs_f64() * 100.0);
    }
    let row = |what: &str, unit, values| Row {
        what: what.into(),
        unit,
        samples: vec![Samples { name: "corten-netd".into(), values }],
    };
    Ok(vec![
        row("1,000 nodes from a file, both families", Unit::Micros, took),
        row("memory with 1,000 nodes (RSS)", Unit::Bytes, resident),
        row("CPU with 1,000 nodes, idle", Unit::Percent, idle),
    ])
}

/// Routes to pods of other nodes in the network namespace of a process, both families.
fn routes(pid: u32) -> usize {
    let read = |file: &str| fs::read_to_string(format!("/proc/{pid}/net/{file}")).unwrap_or_default();
    let v4 = read("route").lines().filter(|line| line.starts_with("flannel")).count();
    // Of IPv6 only the /64 (hex 40) destinations: the kernel has routes of its own on the device.
    let v6 = |line: &&str| {
        line.split(' ').nth(1) == Some("40") && line.ends_with("flannel-v6.1") && !line.starts_with("fe80")
    };
    v4 + read("ipv6_route").lines().filter(v6).count()
}

fn resident_bytes(pid: u32) -> Result<f64> {
    let text = fs::read_to_string(format!("/proc/{pid}/status")).context("read the daemon's status")?;
    let line = text.lines().find_map(|line| line.strip_prefix("VmRSS:")).context("no VmRSS")?;
    let kilobytes: f64 = line.trim().trim_end_matches(" kB").parse().context("VmRSS is no number")?;
    Ok(kilobytes * 1024.0)
}

/// Time on CPUs of all threads so far.
fn cpu_nanos(pid: u32) -> Result<u64> {
    let mut sum = 0;
    for task in fs::read_dir(format!("/proc/{pid}/task")).context("list the daemon's threads")?.flatten() {
        let text = fs::read_to_string(task.path().join("schedstat")).unwrap_or_default();
        sum += text.split(' ').next().and_then(|word| word.parse::<u64>().ok()).unwrap_or(0);
    }
    Ok(sum)
}
