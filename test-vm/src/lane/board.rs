//! The board of a lane: one line a row as it comes, the counts at the end.

use std::fmt;
use std::time::{Duration, Instant};

use anyhow::Result;

/// How a row went that did not fail.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Verdict {
    /// With what was seen, in a few words.
    Passed(String),
    /// Why it could not be tried here.
    Skipped(String),
}

#[derive(Debug, Default, PartialEq, Eq)]
pub struct Board {
    pub passed: usize,
    /// Row and reason.
    pub failed: Vec<(String, String)>,
    pub skipped: Vec<(String, String)>,
}

impl Board {
    /// Runs one row and prints its line. True unless it failed.
    pub fn row(&mut self, name: impl Into<String>, row: impl FnOnce() -> Result<Verdict>) -> bool {
        let (name, start) = (name.into(), Instant::now());
        let outcome = row();
        let took = start.elapsed();
        match outcome {
            Ok(Verdict::Passed(seen)) => {
                say("ok", &name, &seen, took);
                self.passed += 1;
            }
            Ok(Verdict::Skipped(why)) => {
                say("skipped", &name, &why, took);
                self.skipped.push((name, why));
            }
            Err(error) => {
                let why = format!("{error:#}");
                say("FAILED", &name, &why, took);
                self.failed.push((name, why));
                return false;
            }
        }
        true
    }
}

impl fmt::Display for Board {
    /// What failed and was skipped again, then the counts.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for (title, rows) in [("skipped", &self.skipped), ("FAILED", &self.failed)] {
            for (name, why) in rows {
                writeln!(f, " {title:<8} {name}: {why}")?;
            }
        }
        write!(f, "{} passed, {} failed, {} skipped", self.passed, self.failed.len(), self.skipped.len())
    }
}

fn say(how: &str, name: &str, what: &str, took: Duration) {
    println!(" {how:<8} {name:<68} {:>5.1} s  {what}", took.as_secs_f64());
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_board_counts_and_names_what_did_not_pass() {
        let mut board = Board::default();
        assert!(board.row("a", || Ok(Verdict::Passed("12 ways".into()))));
        assert!(board.row("b", || Ok(Verdict::Skipped("no vxlan in this kernel".into()))));
        assert!(!board.row("c", || Err(anyhow::anyhow!("no answer").context("pod to pod"))));
        assert_eq!(
            board.to_string(),
            " skipped  b: no vxlan in this kernel\n FAILED   c: pod to pod: no answer\n1 passed, 1 failed, 1 skipped"
        );
    }
}
