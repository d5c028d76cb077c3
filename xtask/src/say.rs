//! The lines a task prints: what, how it went, the detail, how long it took.

use std::time::Duration;

const DETAIL: usize = 60;

/// ` build      ok  7 programs, static, 9.8 MB                                   92 s`
pub fn ok(what: &str, detail: &str, took: Duration) {
    println!(" {what:<10} ok  {detail:<DETAIL$}  {}", seconds(took));
}

/// A line that needs the user's eye but stops nothing.
pub fn note(what: &str, detail: &str) {
    println!(" {what:<10}  !  {detail}");
}

/// `92 s`, `4.1 s`, `0.08 s`: three figures at most.
pub fn seconds(took: Duration) -> String {
    let seconds = took.as_secs_f64();
    match seconds {
        s if s >= 10.0 => format!("{s:.0} s"),
        s if s >= 1.0 => format!("{s:.1} s"),
        s => format!("{s:.2} s"),
    }
}

/// `9.8 MB`, decimal as disks and registries count.
pub fn megabytes(bytes: u64) -> String {
    format!("{:.1} MB", bytes as f64 / 1e6)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn durations_keep_the_figures_that_matter() {
        for (millis, text) in [(80, "0.08 s"), (4_120, "4.1 s"), (92_400, "92 s")] {
            assert_eq!(seconds(Duration::from_millis(millis)), text);
        }
    }

    #[test]
    fn sizes_are_decimal_megabytes() {
        assert_eq!(megabytes(9_800_000), "9.8 MB");
    }
}
