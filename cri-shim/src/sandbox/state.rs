//! The life of a sandbox. Pure.
//!
//! ```text
//!            Created              Stop, Fail, Died           TornDown
//!  Creating ────────▶ Ready ───────────────────▶ Stopping ───────────▶ Stopped
//!      └───────────── Stop, Fail ──────────────────▲ │ └─────────────────┘
//!                                                    └─ TearDownFailed: stays, and is tried again
//! ```
//! What a client sees is computed: only `Ready` is SANDBOX_READY.

use serde::{Deserialize, Serialize};

/// What is recorded. It says what is owed: everything but `Stopped` may have a network, a monitor, a namespace.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Phase {
    /// Recorded, and perhaps made in part. Found so at a start of the daemon, it is undone.
    Creating,
    Ready,
    /// No longer of use; its teardown is owed until it has succeeded.
    Stopping,
    /// Nothing is left but the record.
    Stopped,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Event {
    /// Everything is made.
    Created,
    /// A client wants it stopped, or removed.
    Stop,
    /// Making it failed.
    Fail,
    /// Its monitor, or its pause process, is dead.
    Died,
    /// Nothing is left of it.
    TornDown,
}

/// The phase after `event`; `None` where the event changes nothing.
pub fn step(phase: Phase, event: Event) -> Option<Phase> {
    match (phase, event) {
        (Phase::Creating, Event::Created) => Some(Phase::Ready),
        (Phase::Creating | Phase::Ready, Event::Stop | Event::Fail | Event::Died) => Some(Phase::Stopping),
        (Phase::Stopping, Event::TornDown) => Some(Phase::Stopped),
        _ => None,
    }
}

impl Phase {
    /// Whether containers may be made in it.
    pub fn is_ready(self) -> bool {
        self == Self::Ready
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_event_in_every_phase() {
        use Event::{Created, Died, Fail, Stop, TornDown};
        use Phase::{Creating, Ready, Stopped, Stopping};
        let table = [
            (Creating, [Some(Ready), Some(Stopping), Some(Stopping), Some(Stopping), None]),
            (Ready, [None, Some(Stopping), Some(Stopping), Some(Stopping), None]),
            (Stopping, [None, None, None, None, Some(Stopped)]),
            (Stopped, [None, None, None, None, None]),
        ];
        for (phase, row) in table {
            for (event, expected) in [Created, Stop, Fail, Died, TornDown].into_iter().zip(row) {
                assert_eq!(step(phase, event), expected, "{phase:?} {event:?}");
            }
        }
    }
}
