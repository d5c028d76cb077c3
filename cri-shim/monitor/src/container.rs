//! The life of a container as a pure machine: what has happened, and so what may be asked. It opens nothing.
//!
//! ```text
//! Created ──start──> Running ──exit──> Exited ──delete──> (forgotten)
//!    └────────────────exit────────────────^
//! ```

use crate::protocol::{Exit, FailureKind};

/// Recorded facts; times are Unix nanoseconds.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Life {
    Created { created: i64 },
    Running { created: i64, started: i64 },
    Exited { created: i64, started: Option<i64>, exit: Exit },
}

/// What a request wants of a container. Deleting and reopening the log are right in every state.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Wish {
    Start,
    Signal,
    Exec,
    Resize,
}

impl Life {
    pub fn name(self) -> &'static str {
        match self {
            Self::Created { .. } => "created",
            Self::Running { .. } => "running",
            Self::Exited { .. } => "exited",
        }
    }

    /// Whether `wish` may be carried out now.
    pub fn allows(self, wish: Wish) -> Result<(), FailureKind> {
        match (self, wish) {
            (Self::Created { .. }, Wish::Start | Wish::Signal | Wish::Resize)
            | (Self::Running { .. }, Wish::Signal | Wish::Exec | Wish::Resize) => Ok(()),
            (Self::Created { .. }, Wish::Exec) | (Self::Exited { .. }, _) => Err(FailureKind::NotRunning),
            (Self::Running { .. }, Wish::Start) => Err(FailureKind::WrongState),
        }
    }

    /// Only a created container is started ([`Life::allows`]).
    pub fn start(&mut self, now: i64) {
        if let Self::Created { created } = *self {
            *self = Self::Running { created, started: now };
        }
    }

    /// A second end is none.
    pub fn end(&mut self, exit: Exit) {
        *self = match *self {
            Self::Created { created } => Self::Exited { created, started: None, exit },
            Self::Running { created, started } => Self::Exited { created, started: Some(started), exit },
            exited @ Self::Exited { .. } => exited,
        };
    }

    pub fn created_at(self) -> i64 {
        match self {
            Self::Created { created } | Self::Running { created, .. } | Self::Exited { created, .. } => {
                created
            }
        }
    }

    pub fn started_at(self) -> Option<i64> {
        match self {
            Self::Created { .. } => None,
            Self::Running { started, .. } => Some(started),
            Self::Exited { started, .. } => started,
        }
    }

    pub fn exit(self) -> Option<Exit> {
        match self {
            Self::Exited { exit, .. } => Some(exit),
            _ => None,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const EXIT: Exit = Exit { code: 3, signal: None, oom_killed: false, finished_at_unix_nanos: 9 };

    #[test]
    fn every_wish_in_every_state() {
        let created = Life::Created { created: 1 };
        let running = Life::Running { created: 1, started: 2 };
        let exited = Life::Exited { created: 1, started: Some(2), exit: EXIT };
        let (ok, dead, wrong) = (Ok(()), Err(FailureKind::NotRunning), Err(FailureKind::WrongState));
        for (wish, answers) in [
            (Wish::Start, [ok, wrong, dead]),
            (Wish::Signal, [ok, ok, dead]),
            (Wish::Exec, [dead, ok, dead]),
            (Wish::Resize, [ok, ok, dead]),
        ] {
            assert_eq!([created, running, exited].map(|life| life.allows(wish)), answers, "{wish:?}");
        }
    }

    #[test]
    fn facts_survive_the_end_and_the_first_end_counts() {
        let mut life = Life::Created { created: 1 };
        life.start(2);
        life.start(7);
        life.end(EXIT);
        life.end(Exit { code: 0, ..EXIT });
        assert_eq!((life.created_at(), life.started_at(), life.exit()), (1, Some(2), Some(EXIT)));
        let mut never_started = Life::Created { created: 1 };
        never_started.end(EXIT);
        assert_eq!(never_started.started_at(), None);
    }
}
