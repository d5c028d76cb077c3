//! `bench net`: from pod to pod on every network, beside the hosts themselves and the kernel's vxlan and routes set up by
//! hand. The measuring is done by `net-bench` of test-vm, which makes the nodes; here it is built, run, shown and
//! compared with the goals.

use std::process::Command;

use anyhow::{Context, Result};

use super::report::Row;
use super::{Report, measured};
use crate::project::{cargo, release_dir, target};
use crate::{build, packages, run};

/// Round trips and streams between pods: vxlan, host-gw and one node, with and without the fast path, beside the hosts
/// and flannel's plumbing by hand; and corten-netd with a thousand nodes.
///
/// Two nodes a contender, made of namespaces and joined by a veth cable, all at once and in turn. Both ends of a round
/// trip are on one CPU; a stream has one CPU an end. Needs root.
#[derive(clap::Args)]
pub struct Args {
    /// Turns of every case
    #[arg(long, default_value_t = 7)]
    rounds: usize,
    /// Milliseconds of request and response in each turn
    #[arg(long, default_value_t = 500)]
    millis: u64,
    /// Seconds of iperf3 in each turn; 0 leaves it out
    #[arg(long, default_value_t = 1)]
    stream_seconds: u64,
    /// Leave out corten-netd: the kernel's paths alone
    #[arg(long)]
    without_netd: bool,
}

pub fn bench(args: &Args) -> Result<Report> {
    packages::ensure()?;
    build::release()?;
    let mut tools = cargo();
    tools.args(["build", "--release", "--target", target(), "--package", "corten-test-vm"]);
    tools.args(["--bin", "net-bench", "--bin", "net-probe"]);
    run::check(&mut tools).context("cannot build net-bench and net-probe")?;
    let mut bench = Command::new(release_dir().join("net-bench"));
    bench.args(["--rounds", &args.rounds.to_string(), "--millis", &args.millis.to_string()]);
    bench.args(["--stream-seconds", &args.stream_seconds.to_string()]);
    if args.without_netd {
        bench.arg("--without-netd");
    }
    bench.env("CORTEN_TEST_PROGRAMS", release_dir());
    let mut report = measured::by("bench net", &mut bench)?;
    let verdicts: Vec<String> = GOALS.iter().filter_map(|goal| goal.verdict(&report.rows)).collect();
    for verdict in verdicts {
        report.note(verdict);
    }
    Ok(report)
}

/// What the fast path, or the daemon, is to reach.
struct Goal {
    row: &'static str,
    wanted: Wanted,
}

#[derive(Clone, Copy)]
enum Wanted {
    /// At least this part of the row's last contender, the floor.
    OfFloor(f64),
    /// The same of node to node, in the cluster that was made by hand: a node's own traffic passes conntrack too.
    OfNodes(f64),
    /// A round trip takes at most so many microseconds more than the floor's.
    MicrosOverFloor(f64),
    /// The kernel path is no slower than this part of the same by hand. Two measurements of one thing differ by a few
    /// percent.
    KernelPathOfByHand(f64),
    AtMost(f64),
}

const GOALS: &[Goal] = &[
    Goal { row: "TCP round trips, vxlan", wanted: Wanted::OfFloor(0.92) },
    Goal { row: "TCP round trips, vxlan", wanted: Wanted::OfNodes(0.92) },
    Goal { row: "TCP round trips, vxlan", wanted: Wanted::KernelPathOfByHand(0.97) },
    Goal { row: "TCP round trips, host-gw", wanted: Wanted::OfFloor(0.92) },
    Goal { row: "TCP round trips, host-gw", wanted: Wanted::OfNodes(0.92) },
    Goal { row: "TCP round trips, host-gw", wanted: Wanted::KernelPathOfByHand(0.97) },
    Goal { row: "TCP round trips, same node", wanted: Wanted::MicrosOverFloor(1.6) },
    Goal { row: "TCP stream, vxlan", wanted: Wanted::OfFloor(0.95) },
    Goal { row: "TCP stream, vxlan", wanted: Wanted::OfNodes(0.95) },
    Goal { row: "TCP stream, host-gw", wanted: Wanted::OfFloor(0.95) },
    Goal { row: "TCP stream, host-gw", wanted: Wanted::OfNodes(0.95) },
    Goal { row: "1,000 nodes from a file, both families", wanted: Wanted::AtMost(2e6) },
    Goal { row: "memory with 1,000 nodes (RSS)", wanted: Wanted::AtMost(15e6) },
    Goal { row: "CPU with 1,000 nodes, idle", wanted: Wanted::AtMost(0.5) },
];

impl Goal {
    /// `goal   TCP round trips, vxlan: 0.97 of host to host (at least 0.92): met`; `None` when it was not measured.
    fn verdict(&self, rows: &[Row]) -> Option<String> {
        let row = rows.iter().find(|row| row.what == self.row)?;
        let cell = |part: &str| row.cells.iter().find(|cell| cell.who.contains(part));
        let floor = row.cells.last()?;
        let (reached, wanted, met) = match self.wanted {
            Wanted::OfFloor(least) => {
                let ratio = cell("fast path")?.p50 / floor.p50;
                (format!("{ratio:.2} of {}", floor.who), format!("at least {least}"), ratio >= least)
            }
            Wanted::OfNodes(least) => {
                let nodes = cell("node to node")?;
                let ratio = cell("fast path")?.p50 / nodes.p50;
                (format!("{ratio:.2} of {}", nodes.who), format!("at least {least}"), ratio >= least)
            }
            Wanted::MicrosOverFloor(most) => {
                let over = 1e6 / cell("fast path")?.p50 - 1e6 / floor.p50;
                (format!("{over:.2} µs over {}", floor.who), format!("at most {most}"), over <= most)
            }
            Wanted::KernelPathOfByHand(least) => {
                let ratio = cell("kernel path")?.p50 / cell("by hand")?.p50;
                (format!("kernel path {ratio:.2} of by hand"), format!("at least {least}"), ratio >= least)
            }
            Wanted::AtMost(most) => {
                (row.unit.show(floor.p50), format!("at most {}", row.unit.show(most)), floor.p50 <= most)
            }
        };
        let met = if met { "met" } else { "MISSED" };
        Some(format!("goal   {}: {reached} ({wanted}): {met}", self.row))
    }
}

#[cfg(test)]
mod tests {
    use super::super::Unit;
    use super::super::sample::Samples;
    use super::*;

    #[test]
    fn a_goal_is_judged_by_the_medians_of_its_row() {
        let mut report = Report::new("bench net");
        let samples = |name: &str, value: f64| Samples::new(name, vec![value; 3]);
        report.row(
            "TCP round trips, vxlan",
            Unit::Rounds,
            &[
                samples("corten-netd, fast path", 58_000.0),
                samples("corten-netd, kernel path", 30_000.0),
                samples("by hand, as flanneld does", 34_000.0),
                samples("host to host", 60_000.0),
            ],
        );
        report.row("memory with 1,000 nodes (RSS)", Unit::Bytes, &[samples("corten-netd", 16e6)]);
        let verdicts: Vec<_> = GOALS.iter().filter_map(|goal| goal.verdict(&report.rows)).collect();
        assert_eq!(
            verdicts,
            [
                "goal   TCP round trips, vxlan: 0.97 of host to host (at least 0.92): met",
                "goal   TCP round trips, vxlan: kernel path 0.88 of by hand (at least 0.97): MISSED",
                "goal   memory with 1,000 nodes (RSS): 16.00 MB (at most 15.00 MB): MISSED",
            ]
        );
    }

    #[test]
    fn a_round_trip_is_one_second_by_their_number() {
        let mut report = Report::new("bench net");
        let samples = [
            Samples::new("corten-netd, fast path", vec![64_800.0]),
            Samples::new("loopback", vec![70_670.0]),
        ];
        report.row("TCP round trips, same node", Unit::Rounds, &samples);
        let verdicts: Vec<_> = GOALS.iter().filter_map(|goal| goal.verdict(&report.rows)).collect();
        assert_eq!(verdicts, ["goal   TCP round trips, same node: 1.28 µs over loopback (at most 1.6): met"]);
    }
}
