//! Waiting longer after each failure: 10 s, doubling up to 5 min, forgotten after 10 min of quiet. Pure.
//! Source: upstream client-go `flowcontrol.Backoff` with the kubelet's constants.

use std::collections::HashMap;
use std::time::Duration;

use super::observed::UnixNanos;

pub const INITIAL: Duration = Duration::from_secs(10);
pub const MAX: Duration = Duration::from_mins(5);
/// An entry this long untouched starts anew.
const FORGET: Duration = Duration::from_mins(10);

#[derive(Debug, Clone, Copy)]
struct Entry {
    delay: Duration,
    updated_ns: UnixNanos,
}

/// Back-off by key: a container's name with its hash, or an image.
#[derive(Debug, Default, Clone)]
pub struct Backoff {
    entries: HashMap<String, Entry>,
}

impl Backoff {
    /// Until when a retry must wait after the failure at `since_ns`; `None`: it may go at once.
    pub fn until(&self, key: &str, since_ns: UnixNanos, now_ns: UnixNanos) -> Option<UnixNanos> {
        let entry = self.entries.get(key).filter(|e| !expired(e, since_ns))?;
        let until = since_ns + nanos(entry.delay);
        (now_ns < until).then_some(until)
    }

    /// The present delay of `key`.
    pub fn delay(&self, key: &str) -> Duration {
        self.entries.get(key).map_or(Duration::ZERO, |e| e.delay)
    }

    /// A retry goes now, after the failure at `since_ns`: the next one waits longer.
    pub fn advance(&mut self, key: &str, since_ns: UnixNanos, now_ns: UnixNanos) {
        let delay = match self.entries.get(key) {
            Some(entry) if !expired(entry, since_ns) => (entry.delay * 2).min(MAX),
            _ => INITIAL,
        };
        self.entries.insert(key.to_owned(), Entry { delay, updated_ns: now_ns });
    }

    pub fn forget(&mut self, key: &str) {
        self.entries.remove(key);
    }
}

fn expired(entry: &Entry, since_ns: UnixNanos) -> bool {
    since_ns - entry.updated_ns > nanos(FORGET)
}

fn nanos(duration: Duration) -> UnixNanos {
    i64::try_from(duration.as_nanos()).unwrap_or(i64::MAX)
}

#[cfg(test)]
mod tests {
    use super::*;

    const S: i64 = 1_000_000_000;

    #[test]
    fn the_first_restart_is_immediate_then_ten_seconds_doubling_to_five_minutes() {
        let mut backoff = Backoff::default();
        let mut now = 0;
        let mut delays = Vec::new();
        for _ in 0..8 {
            let failed = now;
            now = backoff.until("c", failed, now).unwrap_or(now);
            assert_eq!(backoff.until("c", failed, now), None);
            delays.push((now - failed) / S);
            backoff.advance("c", failed, now);
        }
        assert_eq!(delays, [0, 10, 20, 40, 80, 160, 300, 300]);
    }

    #[test]
    fn ten_minutes_of_running_forget_it() {
        let mut backoff = Backoff::default();
        backoff.advance("c", 0, 0);
        backoff.advance("c", 0, 0);
        let failed = 601 * S;
        assert_eq!(backoff.until("c", failed, failed), None);
        backoff.advance("c", failed, failed);
        assert_eq!(backoff.delay("c"), INITIAL);
        assert_eq!(backoff.until("c", 1100 * S, 1100 * S), Some(1110 * S), "not yet ten minutes");
    }

    #[test]
    fn keys_do_not_meet() {
        let mut backoff = Backoff::default();
        backoff.advance("a", 0, 0);
        assert_eq!(backoff.until("b", 0, 0), None);
        backoff.forget("a");
        assert_eq!(backoff.until("a", 0, 0), None);
    }
}
