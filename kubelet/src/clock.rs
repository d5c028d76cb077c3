//! The wall clock, in the unit CRI speaks.

use std::time::{Duration, SystemTime, UNIX_EPOCH};

use k8s_openapi::jiff::Timestamp;
use tokio::time::Instant;

use crate::pod::observed::UnixNanos;

pub fn now_ns() -> UnixNanos {
    SystemTime::now()
        .duration_since(UNIX_EPOCH)
        .map_or(0, |d| i64::try_from(d.as_nanos()).unwrap_or(i64::MAX))
}

/// Now as API types write it.
pub fn now() -> Timestamp {
    Timestamp::from_nanosecond(i128::from(now_ns())).unwrap_or(Timestamp::UNIX_EPOCH)
}

/// The moment `at_ns` on the clock timers use; now when it has passed.
pub fn instant(at_ns: UnixNanos) -> Instant {
    Instant::now() + Duration::from_nanos(u64::try_from(at_ns - now_ns()).unwrap_or(0))
}
