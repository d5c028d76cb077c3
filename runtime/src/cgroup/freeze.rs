//! Freezing, thawing and killing every process of a cgroup.

use std::path::Path;
use std::thread::sleep;
use std::time::{Duration, Instant};

use corten_sys::Errno;
use corten_sys::signal;

use super::detect::Version;
use super::error::CgroupError;
use super::plan::Controller;
use super::{Cgroup, Member, files};

const SIGKILL: i32 = libc::SIGKILL;

/// Long enough for a process in an uninterruptible read from a slow disk.
const LIMIT: Duration = Duration::from_secs(10);

impl Cgroup {
    /// Stop every process where it is; returns when all are stopped. Nothing is left half frozen.
    pub fn freeze(&self) -> Result<(), CgroupError> {
        let (member, version) = self.freezer()?;
        let frozen = match version {
            Version::V1 => freeze_v1(&member.path),
            Version::V2 => freeze_v2(&member.path, true),
        };
        if frozen.is_err() {
            let _ = self.thaw();
        }
        frozen
    }

    pub fn thaw(&self) -> Result<(), CgroupError> {
        let (member, version) = self.freezer()?;
        match version {
            Version::V1 => {
                files::write(&member.path.join("freezer.state"), "THAWED")?;
                wait_until(&member.path, "thawed", || Ok(state_v1(&member.path)? == "THAWED"))
            }
            Version::V2 => freeze_v2(&member.path, false),
        }
    }

    pub fn is_frozen(&self) -> Result<bool, CgroupError> {
        let (member, version) = self.freezer()?;
        match version {
            Version::V1 => Ok(state_v1(&member.path)? != "THAWED"),
            Version::V2 => Ok(files::number(&member.path.join("cgroup.freeze"))? == Some(1)),
        }
    }

    /// SIGKILL to every process of the cgroup and below it; none escapes by forking. Returns when the signals are sent.
    pub fn kill_all(&self) -> Result<(), CgroupError> {
        if let Some(member) = self.v2().filter(|_| self.members.len() == 1) {
            match files::write(&member.path.join("cgroup.kill"), "1") {
                // Before Linux 5.14, or gone already.
                Err(CgroupError::Write { errno: Errno::NOENT, .. }) => {}
                other => return other,
            }
        }
        self.signal_all(SIGKILL)
    }

    /// Signal `number` to every process, frozen meanwhile so that none forks away. Without a freezer: as long as new ones
    /// appear.
    pub fn signal_all(&self, number: i32) -> Result<(), CgroupError> {
        // Gone, or nobody there who could fork: the usual case of a delete, without the cost of a freezer.
        if self.pids()?.is_empty() {
            return Ok(());
        }
        let was_frozen = match self.is_frozen() {
            Ok(true) => true,
            Ok(false) => {
                // A process that cannot be stopped is sent the signal all the same.
                let _ = self.freeze();
                false
            }
            Err(CgroupError::Unavailable { .. }) => return self.signal_loop(number),
            Err(error) => return Err(error),
        };
        let sent = self.signal_loop(number);
        // A frozen process dies of SIGKILL only when it is thawed.
        let thawed = if !was_frozen || number == SIGKILL { self.thaw() } else { Ok(()) };
        sent.and(thawed)
    }

    fn signal_loop(&self, number: i32) -> Result<(), CgroupError> {
        let mut signalled = Vec::new();
        loop {
            let mut fresh = self.pids()?;
            fresh.retain(|pid| !signalled.contains(pid));
            if fresh.is_empty() {
                return Ok(());
            }
            for pid in fresh {
                match signal::send(pid, number) {
                    Ok(()) | Err(Errno::SRCH) => signalled.push(pid),
                    Err(errno) => {
                        return Err(CgroupError::Io {
                            action: "signal the processes of",
                            path: self.processes().path.clone(),
                            errno,
                        });
                    }
                }
            }
        }
    }

    fn freezer(&self) -> Result<(&Member, Version), CgroupError> {
        if let Some(member) = self.member(Controller::Freezer) {
            return Ok((member, Version::V1));
        }
        let unified = self.v2().filter(|_| self.members.len() == 1);
        unified
            .map(|member| (member, Version::V2))
            .ok_or_else(|| CgroupError::unavailable(Controller::Freezer))
    }
}

fn state_v1(dir: &Path) -> Result<String, CgroupError> {
    Ok(files::read(&dir.join("freezer.state"))?.trim().to_owned())
}

/// A v1 freezer can stay in FREEZING while processes fork into it; writing FROZEN again moves it on (what runc learned).
fn freeze_v1(dir: &Path) -> Result<(), CgroupError> {
    wait_until(dir, "frozen", || {
        files::write(&dir.join("freezer.state"), "FROZEN")?;
        Ok(state_v1(dir)? == "FROZEN")
    })
}

fn freeze_v2(dir: &Path, frozen: bool) -> Result<(), CgroupError> {
    files::write(&dir.join("cgroup.freeze"), if frozen { "1" } else { "0" })?;
    let state = if frozen { "frozen" } else { "thawed" };
    wait_until(dir, state, || {
        Ok(files::keyed(&dir.join("cgroup.events"), "frozen")? == Some(u64::from(frozen)))
    })
}

fn wait_until(
    dir: &Path,
    state: &'static str,
    mut done: impl FnMut() -> Result<bool, CgroupError>,
) -> Result<(), CgroupError> {
    let start = Instant::now();
    let mut pause = Duration::from_micros(20);
    while !done()? {
        if start.elapsed() > LIMIT {
            return Err(CgroupError::Freeze { path: dir.into(), state, seconds: LIMIT.as_secs() });
        }
        sleep(pause);
        pause = (pause * 2).min(Duration::from_millis(10));
    }
    Ok(())
}
