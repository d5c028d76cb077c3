//! Round trips and streams on every way, in turn.

use anyhow::{Context, Result};

use crate::cluster::netd::Backend;

use super::contender::{Contender, Maker, Way};
use super::{Measured, Options, Row, Samples, Unit};

/// Who is compared, ours first.
const MAKERS: [(&str, Maker); 3] = [
    ("corten-netd, fast path", Maker::Netd { fast_path: true }),
    ("corten-netd, kernel path", Maker::Netd { fast_path: false }),
    ("by hand, as flanneld does", Maker::ByHand),
];

/// One way of one contender, and the row it belongs to.
struct Case<'a> {
    row: &'static str,
    name: &'static str,
    way: &'a Way,
    rounds: Vec<f64>,
    streams: Vec<f64>,
}

pub fn measure(options: &Options) -> Result<Measured> {
    // One CPU for round trips; not the first, where the machine's interrupts are.
    let cpu = std::thread::available_parallelism().map_or(1, std::num::NonZero::get) - 1;
    let mut notes = Vec::new();
    let hosts = Contender::hosts(cpu).context("the hosts alone")?;
    let mut contenders = Vec::new();
    for (path, backend) in [("vxlan", Backend::Vxlan), ("host-gw", Backend::HostGw)] {
        for (index, (name, maker)) in MAKERS.into_iter().enumerate() {
            if maker != Maker::ByHand && !options.netd {
                continue;
            }
            match Contender::pods(&format!("{path}{index}"), backend, maker, cpu) {
                Ok(contender) => contenders.push((path, name, contender)),
                Err(error) => notes.push(format!("{path}, {name}: not measured: {error:#}")),
            }
        }
    }
    let mut cases = Vec::new();
    let mut add =
        |row, name, way| cases.push(Case { row, name, way, rounds: Vec::new(), streams: Vec::new() });
    for (path, name, contender) in &contenders {
        add(*path, *name, &contender.across);
    }
    for (_, name, contender) in contenders.iter().filter(|(path, ..)| *path == "host-gw") {
        add("same node", *name, contender.same_node.as_ref().expect("pods have a neighbour"));
    }
    for (path, _, contender) in &contenders {
        if let Some(nodes) = &contender.nodes {
            add(*path, "node to node, with its rules", nodes);
        }
    }
    add("hosts", "host to host", &hosts.across);
    add("loopback", "loopback", hosts.loopback.as_ref().expect("hosts have a loopback"));

    for round in 0..options.rounds {
        for turn in 0..cases.len() {
            let index = (round + turn) % cases.len();
            let case = &mut cases[index];
            let what = || format!("{}, {}", case.row, case.name);
            case.rounds.push(case.way.rounds(options.millis).with_context(what)?);
            if options.stream_seconds > 0 {
                case.streams.push(case.way.stream_for(options.stream_seconds).with_context(what)?);
            }
        }
    }
    Ok(Measured { rows: rows(&cases, options.stream_seconds > 0), notes })
}

/// Every path beside its floor: the hosts, or loopback on one node.
fn rows(cases: &[Case<'_>], streams: bool) -> Vec<Row> {
    let mut rows = Vec::new();
    for (path, floor) in [("vxlan", "hosts"), ("host-gw", "hosts"), ("same node", "loopback")] {
        let of = |row: &str, values: fn(&Case<'_>) -> Vec<f64>| {
            let cases = cases.iter().filter(|case| case.row == row);
            cases.map(|case| Samples { name: case.name.into(), values: values(case) }).collect::<Vec<_>>()
        };
        let with_floor = |values| [of(path, values), of(floor, values)].concat();
        rows.push(Row {
            what: format!("TCP round trips, {path}"),
            unit: Unit::Rounds,
            samples: with_floor(|case| case.rounds.clone()),
        });
        if streams {
            let samples = with_floor(|case| case.streams.clone());
            rows.push(Row { what: format!("TCP stream, {path}"), unit: Unit::Bits, samples });
        }
    }
    rows
}
