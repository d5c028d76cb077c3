//! Waiting on conditions, never on time alone.

use std::time::{Duration, Instant};

/// What one lane may wait for one thing; far above what it takes on a busy machine.
pub const LIMIT: Duration = Duration::from_mins(1);

/// Asks `condition` until it gives a value; panics with `what` and the last reason when the limit is over.
#[track_caller]
pub fn until<T>(what: &str, mut condition: impl FnMut() -> Result<T, String>) -> T {
    let deadline = Instant::now() + LIMIT;
    loop {
        match condition() {
            Ok(value) => return value,
            Err(reason) if Instant::now() > deadline => {
                panic!("{what}: not after {} s: {reason}", LIMIT.as_secs())
            }
            Err(_) => std::thread::sleep(Duration::from_millis(20)),
        }
    }
}

/// Asks `condition` until it holds.
#[track_caller]
pub fn until_true(what: &str, mut condition: impl FnMut() -> bool) {
    until(what, || if condition() { Ok(()) } else { Err("it does not hold".into()) });
}
