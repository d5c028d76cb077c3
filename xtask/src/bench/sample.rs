//! Takes turns between cases and keeps each one's samples.

use std::thread::sleep;
use std::time::Duration;

use anyhow::{Context, Result};
use serde::Deserialize;

/// One contender: `run` does whatever the operation is and returns how long the part that counts took.
pub struct Case<'a> {
    pub name: String,
    pub run: Box<dyn FnMut() -> Result<Duration> + 'a>,
}

impl<'a> Case<'a> {
    pub fn new(name: impl Into<String>, run: impl FnMut() -> Result<Duration> + 'a) -> Self {
        Self { name: name.into(), run: Box::new(run) }
    }
}

/// How often, and how far apart. A node sees operations one at a time: back-to-back loops hide the grace periods of
/// RCU that one operation leaves to the next, so most benches want a gap.
#[derive(Clone, Copy)]
pub struct Pace {
    pub rounds: usize,
    /// Rounds before those that count: page cache, lazily bound code.
    pub warmup: usize,
    pub gap: Duration,
}

impl Pace {
    /// `gap_ms` before each operation; zero is back-to-back.
    pub fn new(rounds: usize, gap_ms: u64) -> Self {
        Self { rounds, warmup: 2, gap: Duration::from_millis(gap_ms) }
    }
}

/// What one case measured, in the unit of its report row (microseconds for durations).
#[derive(Debug, Clone, PartialEq, Deserialize)]
pub struct Samples {
    pub name: String,
    pub values: Vec<f64>,
}

impl Samples {
    pub fn new(name: impl Into<String>, values: Vec<f64>) -> Self {
        Self { name: name.into(), values }
    }

    /// The nearest-rank percentile, `p` in 0..=100; NaN of no samples.
    pub fn percentile(&self, p: f64) -> f64 {
        let mut sorted = self.values.clone();
        sorted.sort_by(f64::total_cmp);
        let rank = (p / 100.0 * sorted.len() as f64).ceil() as usize;
        sorted.get(rank.saturating_sub(1)).copied().unwrap_or(f64::NAN)
    }
}

/// Runs every case once per round, in turn, each round starting with another case so that none is always the one
/// that follows a slow neighbour.
pub fn interleave(cases: &mut [Case<'_>], pace: Pace) -> Result<Vec<Samples>> {
    let mut samples: Vec<Samples> = cases.iter().map(|case| Samples::new(&case.name, Vec::new())).collect();
    for round in 0..pace.warmup + pace.rounds {
        for turn in 0..cases.len() {
            let index = (round + turn) % cases.len();
            sleep(pace.gap);
            let case = &mut cases[index];
            let took = (case.run)().with_context(|| format!("{}, round {round}", case.name))?;
            if round >= pace.warmup {
                samples[index].values.push(took.as_secs_f64() * 1e6);
            }
        }
    }
    Ok(samples)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn percentiles_are_nearest_rank() {
        let samples = Samples::new("x", (1..=10).rev().map(f64::from).collect());
        assert_eq!(
            (samples.percentile(50.0), samples.percentile(90.0), samples.percentile(100.0)),
            (5.0, 9.0, 10.0)
        );
        assert!(Samples::new("none", vec![]).percentile(50.0).is_nan());
    }

    #[test]
    fn cases_take_turns_and_warmup_does_not_count() {
        let order = std::cell::RefCell::new(String::new());
        let case = |name: &'static str| {
            let order = &order;
            Case::new(name, move || {
                order.borrow_mut().push_str(name);
                Ok(Duration::from_micros(7))
            })
        };
        let mut cases = [case("a"), case("b")];
        let samples = interleave(&mut cases, Pace { rounds: 3, warmup: 1, gap: Duration::ZERO }).unwrap();
        assert_eq!(*order.borrow(), "abbaabba");
        assert_eq!(samples[0], Samples::new("a", vec![7.0; 3]));
    }

    #[test]
    fn a_failing_case_is_named() {
        let mut cases = [Case::new("crun", || anyhow::bail!("boom"))];
        let error = interleave(&mut cases, Pace::new(1, 0)).unwrap_err();
        assert_eq!(format!("{error:#}"), "crun, round 0: boom");
    }
}
