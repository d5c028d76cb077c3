//! The caller's side: clone, help the child with what only the host may do, and hear how it went.
//!
//! Each step consumes the phase it needs and returns the next one.

use std::os::fd::{AsFd, BorrowedFd, OwnedFd};

use corten_sys::ns::{self, Kind};
use corten_sys::pidfd::{self, Exit};
use corten_sys::process::{self, Child, Clone, Inherited};
use corten_sys::procfs::Procfs;
use corten_sys::{Context, Errno, Failure};

use super::protocol::{FromInit, InitEnd, ParentEnd, ToInit};
use crate::error::Error;
use crate::plan::{Limit, Namespaces, Process};

/// Cloned: in its namespaces, ids not mapped yet.
#[derive(Debug)]
pub struct Cloned;
/// Working on its own; may ask for hooks.
#[derive(Debug)]
pub struct Working;
/// All is set up; it waits for `Go`.
#[derive(Debug)]
pub struct Ready {
    pub console: Option<OwnedFd>,
}

/// A process on its way into a container. Dropped before [`Parent::<Ready>::go`], it is killed and reaped.
#[derive(Debug)]
pub struct Parent<Phase> {
    init: Guard,
    socket: ParentEnd,
    phase: Phase,
}

#[derive(Debug)]
struct Guard(Option<Child>);

impl Guard {
    fn child(&self) -> &Child {
        self.0.as_ref().expect("the child is taken out only by go()")
    }
}

impl Drop for Guard {
    fn drop(&mut self) {
        if let Some(child) = &self.0 {
            // An undo never stops: the process may have ended by itself.
            let _ = pidfd::send_signal(&child.pidfd, libc::SIGKILL);
            let _ = pidfd::reap(&child.pidfd);
        }
    }
}

/// Clones a new process into `namespaces`, in a cgroup v2 directory when one is given, and runs `body` there.
pub fn clone(
    namespaces: &Namespaces,
    cgroup: Option<BorrowedFd<'_>>,
    socket: (ParentEnd, InitEnd),
    body: impl FnOnce(InitEnd, Inherited) -> i32,
) -> Result<Parent<Cloned>, Error> {
    let (parent_end, init_end) = socket;
    let flags = clone_flags(namespaces);
    let body = |inherited| body(init_end, inherited);
    let child = if let Some(path) = namespaces.joins(Kind::User) {
        clone_in_user_namespace(path, namespaces, flags, body)?
    } else {
        let _back = ForChildren::switch(namespaces)?;
        let args = Clone { flags, into_cgroup: cgroup };
        process::clone(&args, body).tried(|| "clone the container's first process".into()).map_err(explain)?
    };
    Ok(Parent { init: Guard(Some(child)), socket: parent_end, phase: Cloned })
}

/// Clones a further process, which will join the namespaces of `target` itself; only the pid namespace is entered by
/// being born there.
pub fn clone_beside(
    target: BorrowedFd<'_>,
    namespaces: u32,
    cgroup: Option<BorrowedFd<'_>>,
    socket: (ParentEnd, InitEnd),
    body: impl FnOnce(InitEnd, Inherited) -> i32,
) -> Result<Parent<Working>, Error> {
    let (parent_end, init_end) = socket;
    let mut back = ForChildren { own: Vec::new() };
    if namespaces & Kind::Pid.flag() != 0 {
        back.keep(Kind::Pid)?;
        ns::join_process(target, Kind::Pid.flag()).tried(|| "join the container's pid namespace".into())?;
    }
    let args = Clone { flags: 0, into_cgroup: cgroup };
    let child = process::clone(&args, |inherited| body(init_end, inherited))
        .tried(|| "clone".into())
        .map_err(explain)?;
    drop(back);
    Ok(Parent { init: Guard(Some(child)), socket: parent_end, phase: Working })
}

/// Opens the namespaces to join while the host's paths can be seen; user and pid are entered on the way there.
pub fn open_namespaces(namespaces: &Namespaces) -> Result<Vec<(Kind, OwnedFd)>, Error> {
    let mut opened = Vec::new();
    for (kind, path) in &namespaces.join {
        let tried = || format!("open {} namespace {}", kind.proc_name(), path.display());
        let fd = ns::open(path, *kind).tried(tried).map_err(|failure| match failure.errno {
            Errno::INVAL => failure.hint("it is no namespace of that kind"),
            _ => failure,
        })?;
        if !matches!(kind, Kind::User | Kind::Pid) {
            opened.push((*kind, fd));
        }
    }
    Ok(opened)
}

/// What clone itself makes. The cgroup namespace is made by the child once it is in its cgroup, or it would show the
/// caller's; the time namespace by the parent, because its offsets must be written before anybody is in it.
fn clone_flags(namespaces: &Namespaces) -> u32 {
    let made_later = [Kind::Cgroup, Kind::Time];
    namespaces
        .create
        .iter()
        .filter(|kind| !made_later.contains(kind))
        .fold(0, |flags, kind| flags | kind.flag())
}

fn explain(failure: Failure) -> Failure {
    match failure.errno {
        Errno::BUSY => failure.hint("the calling process has more than one thread"),
        Errno::NOSPC => {
            failure.hint("a limit in /proc/sys/user or the depth of nested namespaces is reached")
        }
        Errno::PERM => failure.hint("CAP_SYS_ADMIN is needed, or user namespaces are disabled"),
        _ => failure,
    }
}

/// Namespaces that only children of the caller enter: pid (setns) and time (unshare). Put back on drop.
struct ForChildren {
    own: Vec<(OwnedFd, Kind)>,
}

impl ForChildren {
    fn switch(namespaces: &Namespaces) -> Result<Self, Failure> {
        let mut switched = Self { own: Vec::new() };
        if let Some(path) = namespaces.joins(Kind::Pid) {
            let target =
                ns::open(path, Kind::Pid).tried(|| format!("open pid namespace {}", path.display()))?;
            switched.keep(Kind::Pid)?;
            ns::join(&target, Kind::Pid).tried(|| format!("join pid namespace {}", path.display()))?;
        }
        if namespaces.creates(Kind::Time) {
            switched.keep(Kind::Time)?;
            ns::unshare(Kind::Time.flag()).tried(|| "make a time namespace".into())?;
            if !namespaces.time_offsets.is_empty() {
                let proc = host_proc()?;
                proc.write("self/timens_offsets", &namespaces.time_offsets)
                    .tried(|| "write timens_offsets".into())?;
            }
        }
        Ok(switched)
    }

    fn keep(&mut self, kind: Kind) -> Result<(), Failure> {
        let path = format!("/proc/self/ns/{}", kind.proc_name());
        self.own.push((ns::open(&path, kind).tried(|| format!("open {path}"))?, kind));
        Ok(())
    }
}

impl Drop for ForChildren {
    fn drop(&mut self) {
        for (fd, kind) in &self.own {
            ns::join(fd, *kind).expect("a process may always return to a namespace it came from");
        }
    }
}

/// Namespaces made after a user namespace was joined must belong to it, so a process in between joins it and clones
/// the child as its sibling: the child is ours all the same.
fn clone_in_user_namespace(
    path: &std::path::Path,
    namespaces: &Namespaces,
    flags: u32,
    body: impl FnOnce(Inherited) -> i32,
) -> Result<Child, Failure> {
    let user = ns::open(path, Kind::User).tried(|| format!("open user namespace {}", path.display()))?;
    let pid = namespaces
        .joins(Kind::Pid)
        .map(|path| ns::open(path, Kind::Pid))
        .transpose()
        .tried(|| "open pid namespace".into())?;
    let (read, write) = rustix::pipe::pipe_with(rustix::pipe::PipeFlags::CLOEXEC).tried(|| "pipe".into())?;
    let between = process::clone(&Clone::default(), |_| {
        let join = || -> Result<(), Errno> {
            ns::join(&user, Kind::User)?;
            process::set_ids(0, 0, None)?;
            pid.as_ref().map_or(Ok(()), |pid| ns::join(pid, Kind::Pid))?;
            if namespaces.creates(Kind::Time) { ns::unshare(Kind::Time.flag()) } else { Ok(()) }
        };
        let made = join()
            .and_then(|()| process::clone(&Clone { flags: flags | Clone::SIBLING, into_cgroup: None }, body));
        let answer = made.map_or_else(|errno| -errno.raw_os_error(), |child| child.pid);
        i32::from(rustix::io::write(&write, &answer.to_ne_bytes()).is_err())
    })
    .tried(|| "clone".into())?;
    drop(write);
    let mut answer = [0; 4];
    let count = rustix::io::retry_on_intr(|| rustix::io::read(&read, &mut answer)).unwrap_or(0);
    pidfd::reap(&between.pidfd).tried(|| "wait for the process that joins the user namespace".into())?;
    let tried = || format!("make namespaces in user namespace {}", path.display());
    match i32::from_ne_bytes(answer) {
        _ if count != answer.len() => Err(Failure::new(tried(), Errno::CHILD)),
        pid if pid > 0 => Ok(Child { pid, pidfd: pidfd::open(pid).tried(tried)? }),
        errno => Err(Failure::new(tried(), Errno::from_raw_os_error(-errno))),
    }
}

impl<Phase> Parent<Phase> {
    pub fn pid(&self) -> i32 {
        self.init.child().pid
    }

    pub fn pidfd(&self) -> BorrowedFd<'_> {
        self.init.child().pidfd.as_fd()
    }

    fn next<Next>(self, phase: Next) -> Parent<Next> {
        Parent { init: self.init, socket: self.socket, phase }
    }

    /// Why init is gone without a word.
    fn ended(mut self) -> Error {
        let child = self.init.0.take().expect("the child is taken out only at an end");
        let _ = pidfd::send_signal(&child.pidfd, libc::SIGKILL);
        match pidfd::reap(&child.pidfd) {
            Ok(Exit::Code(code)) => Error::InitEnded(format!("exit status {code}")),
            Ok(Exit::Signal(signal)) => Error::InitEnded(format!("signal {signal}")),
            Err(errno) => Error::InitEnded(corten_sys::errno::describe(errno)),
        }
    }
}

impl Parent<Cloned> {
    /// Maps the ids of a new user namespace; without one there is nothing to do.
    pub fn write_id_maps(self, namespaces: &Namespaces) -> Result<Parent<Working>, Error> {
        if namespaces.creates(Kind::User) {
            let proc = host_proc()?;
            for (file, map) in [("uid_map", &namespaces.uid_map), ("gid_map", &namespaces.gid_map)] {
                let path = format!("{}/{file}", self.pid());
                proc.write(&path, map).tried(|| format!("write {file} {map:?}"))?;
            }
            self.socket.send(ToInit::Mapped).tried(|| "tell init that its ids are mapped".into())?;
        }
        Ok(self.next(Working))
    }
}

impl Parent<Working> {
    /// Sets what the child may not set itself (in a user namespace) or only before it gives up its rights: resource
    /// limits and the OOM score. What this process may not raise is clamped, with a warning.
    pub fn apply_limits(&self, process: &Process) -> Result<Vec<String>, Error> {
        let mut warnings = Vec::new();
        for limit in &process.limits {
            warnings.extend(set_limit(self.pid(), limit)?);
        }
        if let Some(score) = process.oom_score_adj {
            warnings.extend(set_oom_score(self.pid(), score)?);
        }
        Ok(warnings)
    }

    /// Waits until init is ready; runs `hooks` when it asks, and hands its seccomp notify descriptor to `listener`.
    pub fn wait_ready(
        self,
        warnings: &mut Vec<String>,
        mut hooks: impl FnMut() -> Result<(), Error>,
        mut listener: impl FnMut(OwnedFd) -> Result<(), Error>,
    ) -> Result<Parent<Ready>, Error> {
        let mut console = None;
        loop {
            let message = self.socket.receive().tried(|| "hear from init".into())?;
            match message {
                None => return Err(self.ended()),
                Some((FromInit::Warning(text), _)) => warnings.push(text),
                Some((FromInit::Console, fd)) => console = fd,
                Some((FromInit::Failed(text), _)) => return Err(Error::Init(text)),
                Some((FromInit::Listener(number), _)) => {
                    let fd = pidfd::get_fd(self.pidfd(), number)
                        .tried(|| "fetch the seccomp notify descriptor".into())?;
                    listener(fd)?;
                }
                Some((FromInit::Ready, _)) => return Ok(self.next(Ready { console })),
                Some((FromInit::RunHooks, _)) => {
                    hooks()?;
                    self.socket.send(ToInit::HooksDone).tried(|| "tell init that hooks have run".into())?;
                }
            }
        }
    }
}

impl Parent<Ready> {
    /// Lets init go on to its gate. From here on it is the container's, no longer undone.
    pub fn go(mut self) -> Result<(Child, Option<OwnedFd>), Error> {
        self.socket.send(ToInit::Go).tried(|| "let init go on".into())?;
        let child = self.init.0.take().expect("the child is taken out only here");
        Ok((child, self.phase.console))
    }

    /// Lets a further process go on, and waits until its program is executed.
    pub fn go_and_execute(self) -> Result<(Child, Option<OwnedFd>), Error> {
        self.socket.send(ToInit::Go).tried(|| "let the process go on".into())?;
        match self.socket.receive().tried(|| "hear from the process".into())? {
            Some((FromInit::Failed(text), _)) => Err(Error::Init(text)),
            Some(_) => Err(Failure::new("hear from the process", Errno::PROTO).into()),
            None => {
                let mut parent = self;
                let child = parent.init.0.take().expect("the child is taken out only here");
                Ok((child, parent.phase.console))
            }
        }
    }
}

fn set_limit(pid: i32, limit: &Limit) -> Result<Option<String>, Failure> {
    let tried = || format!("set {} to {}:{}", limit.name, limit.soft, limit.hard);
    match process::set_rlimit(pid, limit.resource, limit.soft, limit.hard) {
        Ok(()) => return Ok(None),
        Err(Errno::PERM) => {}
        Err(errno) => return Err(Failure::new(tried(), errno)),
    }
    let (_, possible) = process::rlimit(pid, limit.resource).tried(tried)?;
    let (soft, hard) = (limit.soft.min(possible), limit.hard.min(possible));
    process::set_rlimit(pid, limit.resource, soft, hard).tried(tried)?;
    Ok(Some(format!(
        "{} of {}:{} clamped to {soft}:{hard} (no CAP_SYS_RESOURCE to raise it)",
        limit.name, limit.soft, limit.hard
    )))
}

fn set_oom_score(pid: i32, score: i32) -> Result<Option<String>, Failure> {
    let proc = host_proc()?;
    let path = format!("{pid}/oom_score_adj");
    match proc.write(&path, &score.to_string()) {
        Ok(()) => Ok(None),
        Err(Errno::ACCESS | Errno::PERM) => {
            let now = proc.read(&path).tried(|| "read oom_score_adj".into())?;
            Ok(Some(format!(
                "oom_score_adj of {score} clamped to {} (no CAP_SYS_RESOURCE to lower it)",
                now.trim()
            )))
        }
        Err(errno) => Err(Failure::new(format!("set oom_score_adj to {score}"), errno)),
    }
}

pub(crate) fn host_proc() -> Result<Procfs, Failure> {
    Procfs::host()
        .tried(|| "open /proc".into())
        .map_err(|failure| failure.hint("it must be a proc file system"))
}

/// Writes the pid file: its content appears whole or not at all.
pub fn write_pid_file(path: &std::path::Path, pid: i32) -> Result<(), Failure> {
    let name = path.file_name().unwrap_or_default().to_string_lossy();
    let temporary = path.with_file_name(format!(".{name}"));
    std::fs::write(&temporary, pid.to_string())
        .and_then(|()| std::fs::rename(&temporary, path))
        .tried(|| format!("write pid file {}", path.display()))
}
