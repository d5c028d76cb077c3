//! Counts, and what differs line by line.

use std::fmt::{self, Write};
use std::time::Duration;

use super::{Explanation, Outcome, Step};

#[derive(Default)]
pub struct Report {
    explanations: Vec<(regex_lite::Regex, String, usize)>,
    pub same: usize,
    pub explained: usize,
    /// Each with its difference.
    pub different: Vec<String>,
    slow: Vec<(Duration, String)>,
}

impl Report {
    pub fn new(explanations: &[Explanation]) -> Self {
        let explanations = explanations.iter().map(|one| (one.of.clone(), one.why.clone(), 0)).collect();
        Self { explanations, ..Self::default() }
    }

    pub fn add(&mut self, number: usize, step: &Step, ours: &Outcome, stock: &Outcome, took: Duration) {
        if took > Duration::from_secs(5) {
            self.slow.push((took, step.line.clone()));
        }
        if ours == stock {
            self.same += 1;
            return;
        }
        if let Some(found) = self.explanations.iter_mut().find(|(of, ..)| of.is_match(&step.line)) {
            found.2 += 1;
            self.explained += 1;
            return;
        }
        let mut text = format!("--- {number} [{}] {}\n", step.section, step.line);
        if ours.code != stock.code {
            let _ = writeln!(text, "    exit code: stock {}, ours {}", stock.code, ours.code);
        }
        for (name, ours, stock) in
            [("stdout", &ours.stdout, &stock.stdout), ("stderr", &ours.stderr, &stock.stderr)]
        {
            for (sign, line) in changed(stock, ours) {
                let _ = writeln!(text, "    {name} {sign} {line}");
            }
        }
        self.different.push(text);
    }

    /// Reasons that nothing needed.
    pub fn stale(&self) -> impl Iterator<Item = &str> {
        self.explanations.iter().filter(|(.., used)| *used == 0).map(|(of, ..)| of.as_str())
    }

    pub fn passed(&self) -> bool {
        self.different.is_empty() && self.stale().next().is_none() && self.same > 0
    }
}

impl fmt::Display for Report {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for one in &self.different {
            write!(f, "{one}")?;
        }
        for (of, why, used) in &self.explanations {
            writeln!(f, "explained {used:>3}  {of}: {why}")?;
        }
        for one in self.stale() {
            writeln!(f, "STALE: nothing differs by {one}; take the line out")?;
        }
        for (took, line) in &self.slow {
            writeln!(f, "slow {:5.1} s  {line}", took.as_secs_f64())?;
        }
        let all = self.same + self.explained + self.different.len();
        let (same, explained) = (self.same, self.explained);
        write!(f, "{all} steps: {same} same, {explained} explained, {} different", self.different.len())
    }
}

/// Lines of one text only: `-` stock's, `+` ours. By the longest common subsequence; long texts are cut.
fn changed<'a>(stock: &'a str, ours: &'a str) -> Vec<(char, &'a str)> {
    const MOST: usize = 600;
    let (a, b): (Vec<_>, Vec<_>) = (stock.lines().take(MOST).collect(), ours.lines().take(MOST).collect());
    let mut common = vec![vec![0_u16; b.len() + 1]; a.len() + 1];
    for (i, x) in a.iter().enumerate().rev() {
        for (j, y) in b.iter().enumerate().rev() {
            common[i][j] =
                if x == y { common[i + 1][j + 1] + 1 } else { common[i + 1][j].max(common[i][j + 1]) };
        }
    }
    let (mut i, mut j, mut lines) = (0, 0, Vec::new());
    while i < a.len() || j < b.len() {
        if i < a.len() && j < b.len() && a[i] == b[j] {
            (i, j) = (i + 1, j + 1);
        } else if j == b.len() || (i < a.len() && common[i + 1][j] >= common[i][j + 1]) {
            lines.push(('-', a[i]));
            i += 1;
        } else {
            lines.push(('+', b[j]));
            j += 1;
        }
    }
    lines.truncate(60);
    lines
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_what_differs_is_shown() {
        assert_eq!(changed("a\nb\nc\n", "a\nx\nc\nd\n"), [('-', "b"), ('+', "x"), ('+', "d")]);
        assert_eq!(changed("a\n", "a\n"), []);
    }
}
