//! What `up`, `down` and `image` print while they work: finished lines stay, the live ones below are redrawn in
//! place on a terminal and left out elsewhere.

use std::io::{IsTerminal, Write, stdout};
use std::time::Duration;

const DETAIL: usize = 60;

pub struct Screen {
    /// Lines below the last finished one that the next call may erase; `None` where nothing can be erased.
    live: Option<usize>,
}

impl Screen {
    pub fn new() -> Self {
        Self { live: stdout().is_terminal().then_some(0) }
    }

    /// ` pod        ok  hello  10.88.0.2  2/2 Ready                                  0.08 s`
    pub fn ok(&mut self, what: &str, detail: &str, took: Option<Duration>) {
        self.finish(&line(what, "ok", detail, took));
    }

    /// A finding under the line before it: nothing stops.
    pub fn warn(&mut self, detail: &str) {
        self.finish(&line("", "!", detail, None));
    }

    pub fn fail(&mut self, what: &str, detail: &str) {
        self.finish(&line(what, "x", detail, None));
    }

    pub fn plain(&mut self, text: &str) {
        self.finish(text);
    }

    /// Replaces the live lines: (what, detail) each.
    pub fn live(&mut self, lines: &[(String, String)]) {
        let Some(shown) = self.live else { return };
        let mut out = erase(shown);
        for (what, detail) in lines {
            out.push_str(&line(what, "..", detail, None));
            out.push('\n');
        }
        self.live = Some(lines.len());
        write(&out);
    }

    fn finish(&mut self, text: &str) {
        let erase = self.live.replace_if_some(0).map_or(String::new(), erase);
        write(&format!("{erase}{text}\n"));
    }
}

trait ReplaceIfSome {
    fn replace_if_some(&mut self, value: usize) -> Self;
}

impl ReplaceIfSome for Option<usize> {
    fn replace_if_some(&mut self, value: usize) -> Self {
        let before = *self;
        *self = before.map(|_| value);
        before
    }
}

/// Up `lines` lines and clear to the end of the screen.
fn erase(lines: usize) -> String {
    if lines == 0 { String::new() } else { format!("\x1b[{lines}A\x1b[J") }
}

fn line(what: &str, mark: &str, detail: &str, took: Option<Duration>) -> String {
    let took = took.map_or(String::new(), seconds);
    format!(" {what:<10} {mark:>2}  {detail:<DETAIL$}  {took}").trim_end().to_string()
}

/// Standard output may be closed early by its reader; that stops no work.
fn write(text: &str) {
    let mut out = stdout().lock();
    let _ = out.write_all(text.as_bytes()).and_then(|()| out.flush());
}

/// `92 s`, `4.1 s`, `0.08 s`.
pub fn seconds(took: Duration) -> String {
    match took.as_secs_f64() {
        s if s >= 10.0 => format!("{s:.0} s"),
        s if s >= 1.0 => format!("{s:.1} s"),
        s => format!("{s:.2} s"),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn lines_have_fixed_columns() {
        let took = Some(Duration::from_millis(80));
        let ok = line("pod", "ok", "hello  10.88.0.2  2/2 Ready", took);
        assert_eq!(ok, format!(" pod        ok  {:<60}  0.08 s", "hello  10.88.0.2  2/2 Ready"));
        assert_eq!(line("", "!", "no CAP_SYS_RESOURCE", None), "             !  no CAP_SYS_RESOURCE");
    }
}
