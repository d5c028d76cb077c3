//! What `net-bench` measures: the way from pod to pod on each kind of network beside the way between the hosts, and
//! what corten-netd itself costs. One file a question.
//!
//! Request and response have both ends on one CPU, so that a round trip is the work of the path and no waking of
//! another CPU; a stream has one CPU an end.

mod contender;
mod daemon;
mod paths;

use anyhow::Result;
use serde::Serialize;

pub struct Options {
    pub rounds: usize,
    pub millis: u64,
    pub stream_seconds: u64,
    pub netd: bool,
}

#[derive(Serialize)]
pub struct Measured {
    pub rows: Vec<Row>,
    pub notes: Vec<String>,
}

#[derive(Serialize)]
pub struct Row {
    pub what: String,
    pub unit: Unit,
    /// Ours first.
    pub samples: Vec<Samples>,
}

#[derive(Serialize, Clone, Copy, PartialEq, Eq)]
#[serde(rename_all = "lowercase")]
pub enum Unit {
    /// Round trips a second.
    Rounds,
    /// Bits a second.
    Bits,
    /// Microseconds.
    Micros,
    Bytes,
    /// Parts of one CPU, in percent.
    Percent,
}

#[derive(Serialize, Clone)]
pub struct Samples {
    pub name: String,
    pub values: Vec<f64>,
}

pub fn all(options: &Options) -> Result<Measured> {
    let mut measured = paths::measure(options)?;
    if options.netd {
        measured.rows.extend(daemon::measure()?);
    }
    Ok(measured)
}
