//! What a bench found: rows of contenders, ours first, printed as aligned text or JSON.

use std::fmt::Write as _;
use std::fs;

use serde::{Deserialize, Serialize};

use super::sample::Samples;

#[derive(Debug, Clone, Copy, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Unit {
    /// Samples in microseconds, printed as milliseconds.
    Micros,
    /// Samples in bytes, printed as decimal megabytes.
    Bytes,
    /// Round trips a second, printed with the time of one.
    Rounds,
    /// Bits a second, printed as gigabits.
    Bits,
    /// Parts of one CPU.
    Percent,
}

#[derive(Debug, Serialize)]
pub struct Report {
    pub bench: String,
    /// What it ran on, and with which versions of the peers.
    pub machine: String,
    pub rows: Vec<Row>,
    pub notes: Vec<String>,
}

#[derive(Debug, Serialize)]
pub struct Row {
    pub what: String,
    pub unit: Unit,
    /// Ours first.
    pub cells: Vec<Cell>,
}

#[derive(Debug, Serialize)]
pub struct Cell {
    pub who: String,
    pub n: usize,
    pub p50: f64,
    pub p90: f64,
    pub p99: f64,
    /// Our p50 divided by this one's; absent for ours.
    pub ours_is: Option<f64>,
}

impl Report {
    pub fn new(bench: impl Into<String>) -> Self {
        Self { bench: bench.into(), machine: machine(), rows: Vec::new(), notes: Vec::new() }
    }

    /// Adds a row; the first of `samples` is ours.
    pub fn row(&mut self, what: impl Into<String>, unit: Unit, samples: &[Samples]) {
        let ours = samples.first().map_or(f64::NAN, |s| s.percentile(50.0));
        let cell = |(index, s): (usize, &Samples)| Cell {
            who: s.name.clone(),
            n: s.values.len(),
            p50: s.percentile(50.0),
            p90: s.percentile(90.0),
            p99: s.percentile(99.0),
            ours_is: (index > 0).then(|| ours / s.percentile(50.0)),
        };
        self.rows.push(Row {
            what: what.into(),
            unit,
            cells: samples.iter().enumerate().map(cell).collect(),
        });
    }

    pub fn note(&mut self, text: impl Into<String>) {
        self.notes.push(text.into());
    }

    /// The report as text for people, ending in a newline.
    pub fn table(&self) -> String {
        let who = self.rows.iter().flat_map(|r| &r.cells).map(|c| c.who.chars().count() + 2);
        let width = self.rows.iter().map(|r| r.what.chars().count()).chain(who).max().unwrap_or(0).max(24);
        let mut out = format!("{}\n{}\n", self.bench, self.machine);
        for row in &self.rows {
            let _ = writeln!(
                out,
                "\n{:<width$}  {:>14}  {:>14}  {:>14}  {:>8}  {:>5}",
                row.what, "p50", "p90", "p99", "ours is", "n"
            );
            for cell in &row.cells {
                let ratio = cell.ours_is.map_or(String::new(), |r| format!("{r:.2} x"));
                let [p50, p90, p99] = [cell.p50, cell.p90, cell.p99].map(|value| row.unit.show(value));
                let _ = writeln!(
                    out,
                    "  {:<1$}  {p50:>14}  {p90:>14}  {p99:>14}  {ratio:>8}  {2:>5}",
                    cell.who,
                    width - 2,
                    cell.n
                );
            }
        }
        for note in &self.notes {
            let _ = write!(out, "\n{note}");
        }
        out + if self.notes.is_empty() { "" } else { "\n" }
    }
}

impl Unit {
    pub fn show(self, value: f64) -> String {
        match self {
            Unit::Micros if value >= 100_000.0 => format!("{:.0} ms", value / 1e3),
            Unit::Micros => format!("{:.2} ms", value / 1e3),
            Unit::Bytes => format!("{:.2} MB", value / 1e6),
            Unit::Rounds => format!("{:.1} k {:.1} µs", value / 1e3, 1e6 / value),
            Unit::Bits => format!("{:.2} Gbit/s", value / 1e9),
            Unit::Percent => format!("{value:.2} %"),
        }
    }
}

/// `Linux 6.18.5, x86_64, 2 cores, 24 GB, cgroup v1`
fn machine() -> String {
    let read = |path: &str| fs::read_to_string(path).unwrap_or_default();
    let memory_kb: f64 = read("/proc/meminfo")
        .lines()
        .find_map(|l| l.strip_prefix("MemTotal:")?.trim().strip_suffix(" kB")?.parse().ok())
        .unwrap_or(0.0);
    let cores = std::thread::available_parallelism().map_or(0, std::num::NonZero::get);
    let cgroup = if fs::exists("/sys/fs/cgroup/cgroup.controllers").unwrap_or(false) { "v2" } else { "v1" };
    format!(
        "Linux {}, {}, {cores} cores, {:.0} GB, cgroup {cgroup}",
        read("/proc/sys/kernel/osrelease").trim(),
        std::env::consts::ARCH,
        memory_kb / 1e6
    )
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_table_gives_our_ratio_to_every_peer() {
        let mut report = Report::new("bench oci");
        report.machine = "one machine".into();
        let samples = |name: &str, ms: f64| Samples::new(name, vec![ms * 1e3; 4]);
        report.row(
            "create+start+delete",
            Unit::Micros,
            &[samples("corten-oci", 8.0), samples("crun 1.8.1", 32.0)],
        );
        let expected = "bench oci\none machine\n\n\
            create+start+delete               p50          p90          p99   ours is      n\n  \
            corten-oci                  8.00 ms      8.00 ms      8.00 ms                4\n  \
            crun 1.8.1                 32.00 ms     32.00 ms     32.00 ms    0.25 x      4\n";
        let squeeze = |text: &str| text.split_whitespace().collect::<Vec<_>>().join(" ");
        assert_eq!(squeeze(&report.table()), squeeze(expected));
        let columns: Vec<usize> = report.table().lines().skip(3).map(|l| l.trim_end().len()).collect();
        assert_eq!(columns, [columns[0]; 3], "columns are aligned");
    }
}
