//! The life of a container. Pure. The state is computed from recorded facts, never stored beside them.
//!
//! ```text
//!  Creating ──▶ Created ──▶ Running ──▶ Exited        (any) ──▶ Removing
//!                  └──────── start failed ─▲
//! ```

use corten_cri_api::v1;
use serde::{Deserialize, Serialize};

/// How it ended.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Exit {
    pub code: i32,
    /// Unix time in nanoseconds.
    pub finished_at_ns: i64,
    pub reason: String,
    pub message: String,
}

/// Facts, in the order in which they come true.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Facts {
    /// The monitor has made it.
    pub created: bool,
    pub started_at_ns: Option<i64>,
    pub exit: Option<Exit>,
    /// Its removal has begun and must be finished.
    pub removing: bool,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum State {
    /// Recorded, not made yet. Found so at a start of the daemon, it is undone.
    Creating,
    Created,
    Running,
    Exited,
    /// Shown as exited, or not at all.
    Removing,
}

impl Facts {
    pub fn state(&self) -> State {
        match self {
            Self { removing: true, .. } => State::Removing,
            Self { exit: Some(_), .. } => State::Exited,
            Self { started_at_ns: Some(_), .. } => State::Running,
            Self { created: true, .. } => State::Created,
            _ => State::Creating,
        }
    }

    /// What clients are told.
    pub fn reported(&self) -> v1::ContainerState {
        match self.state() {
            State::Creating | State::Created => v1::ContainerState::ContainerCreated,
            State::Running => v1::ContainerState::ContainerRunning,
            State::Exited => v1::ContainerState::ContainerExited,
            State::Removing if self.exit.is_some() => v1::ContainerState::ContainerExited,
            State::Removing => v1::ContainerState::ContainerUnknown,
        }
    }
}

impl Exit {
    /// "OOMKilled" only where the kernel killed it, by signal: a program that survives the killing of a child and ends
    /// well has completed.
    pub fn of(code: i32, oom_killed: bool, finished_at_ns: i64) -> Self {
        let reason = match code {
            0 => "Completed",
            137 if oom_killed => "OOMKilled",
            _ => "Error",
        };
        Self { code, finished_at_ns, reason: reason.into(), message: String::new() }
    }

    /// Nobody saw it end: its monitor died first.
    pub fn unseen(finished_at_ns: i64, message: &str) -> Self {
        Self { code: 137, finished_at_ns, reason: "ContainerStatusUnknown".into(), message: message.into() }
    }

    /// It could not be started.
    pub fn not_started(code: i32, finished_at_ns: i64, message: &str) -> Self {
        let reason = if code == 127 || code == 126 { "ContainerCannotRun" } else { "StartError" };
        Self { code, finished_at_ns, reason: reason.into(), message: message.into() }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_state_follows_from_the_facts() {
        let mut facts = Facts::default();
        assert_eq!(facts.state(), State::Creating);
        facts.created = true;
        assert_eq!(facts.state(), State::Created);
        let mut not_started = facts.clone();
        facts.started_at_ns = Some(1);
        assert_eq!(facts.state(), State::Running);
        facts.exit = Some(Exit::of(0, false, 2));
        assert_eq!((facts.state(), facts.reported()), (State::Exited, v1::ContainerState::ContainerExited));
        not_started.exit = Some(Exit::not_started(127, 3, "no such file"));
        assert_eq!(not_started.state(), State::Exited);
        not_started.removing = true;
        assert_eq!(not_started.reported(), v1::ContainerState::ContainerExited);
    }

    #[test]
    fn reasons() {
        for (code, oom, reason) in [
            (0, false, "Completed"),
            (0, true, "Completed"),
            (1, false, "Error"),
            (137, true, "OOMKilled"),
            (137, false, "Error"),
            (1, true, "Error"),
        ] {
            assert_eq!(Exit::of(code, oom, 0).reason, reason, "{code} {oom}");
        }
    }
}
