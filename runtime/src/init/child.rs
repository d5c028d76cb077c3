//! What a new process does from clone to execve: linear, in the order of the specification, long on purpose.
//!
//! It runs in a copy of a single-threaded process, alone. It is not dumpable until execve, so nothing in the container
//! can look into it (CVE-2016-9962), and it has closed every descriptor of its parent before it does anything with the
//! container's files (CVE-2024-21626).

use std::convert::Infallible;
use std::ffi::CString;
use std::os::fd::{AsFd, AsRawFd, BorrowedFd, OwnedFd};

use corten_sys::ns::{self, Kind};
use corten_sys::process::{self, Inherited};
use corten_sys::procfs::Procfs;
use corten_sys::{Context, Failure, Root, keyring, net, sched, signal};
use rustix::fs::Mode;

use super::protocol::{FromInit, InitEnd, ToInit};
use super::{console, identity, program, rootfs};
use crate::cgroup::{Cgroup, Join};
use crate::hooks::{self, HookError};
use crate::plan::{Plan, Process};
use crate::seccomp::Filter;
use crate::state::{State, Status};

/// Why a process did not become the container's program. Its text is all that reaches the parent.
#[derive(Debug, thiserror::Error)]
pub(super) enum InitError {
    #[error("error during container init: {0}")]
    Os(#[from] Failure),
    #[error(transparent)]
    Hook(#[from] HookError),
    #[error("{0}")]
    Program(String),
    #[error("{place}: {reason}")]
    Refused { place: String, reason: &'static str },
}

/// Standard input, output and error of the process.
#[derive(Debug)]
pub enum Stdio {
    /// Those of the calling process.
    Inherit,
    Fds {
        stdin: OwnedFd,
        stdout: OwnedFd,
        stderr: OwnedFd,
    },
}

/// Who gets the master of the terminal.
#[derive(Debug)]
pub enum ConsoleTo {
    Nobody,
    /// A connected unix socket, as runc's --console-socket.
    Socket(OwnedFd),
    Parent,
}

/// What every process on its way into a container has.
#[derive(Debug)]
pub struct Common<'a> {
    pub process: &'a Process,
    pub stdio: &'a Stdio,
    pub console: &'a ConsoleTo,
    pub join: &'a Join,
    /// Already in the v2 cgroup by CLONE_INTO_CGROUP.
    pub cloned_into_v2: bool,
    /// Namespaces to join, opened on the host; user and pid are entered before.
    pub namespaces: &'a [(Kind, OwnedFd)],
    pub seccomp: Option<&'a Filter>,
    /// Inherited descriptors 3 to 3 + n - 1 stay open in the program.
    pub preserve_fds: u32,
    pub keyring: Option<&'a CString>,
    pub extra_environment: &'a [CString],
}

/// The first process of a container.
#[derive(Debug)]
pub struct Create<'a> {
    pub common: Common<'a>,
    pub plan: &'a Plan,
    pub cgroup: &'a Cgroup,
    pub gate: BorrowedFd<'a>,
    /// The parent has hooks to run.
    pub parent_hooks: bool,
    pub no_pivot: bool,
    pub state: State,
}

/// A further process of a running container.
#[derive(Debug)]
pub struct Exec<'a> {
    pub common: Common<'a>,
    /// The container's init, whose namespaces are joined.
    pub target: BorrowedFd<'a>,
    /// `CLONE_NEW*` bits to join.
    pub namespaces: u32,
}

/// Runs in the child and returns its exit code, if the program could not be executed.
pub fn create(create: &Create<'_>, socket: InitEnd, inherited: Inherited) -> i32 {
    let found = match create_until_ready(create, &socket, inherited) {
        Ok(found) => found,
        Err(error) => return fail(&socket, &error),
    };
    drop(socket);
    let error = match create_from_gate(create, &found) {
        Err(error) => error,
        Ok(never) => match never {},
    };
    // `start` reads it from the gate, once we are gone; the container's own standard error has it too, as with runc.
    let text = error.to_string();
    let _ = rustix::io::write(create.gate, text.as_bytes());
    eprintln!("{text}");
    1
}

/// Runs in the child and returns its exit code, if the program could not be executed.
pub fn exec(exec: &Exec<'_>, socket: &InitEnd, inherited: Inherited) -> i32 {
    match exec_program(exec, socket, inherited) {
        Err(error) => fail(socket, &error),
        Ok(never) => match never {},
    }
}

fn fail(socket: &InitEnd, error: &InitError) -> i32 {
    // Nobody may be there to hear it.
    let _ = socket.send(&FromInit::Failed(error.to_string()));
    1
}

fn create_until_ready(
    create: &Create<'_>,
    socket: &InitEnd,
    inherited: Inherited,
) -> Result<program::Found, InitError> {
    let (plan, common) = (create.plan, &create.common);
    enter(common, socket, inherited, Some(create.gate))?;

    let old_umask = rustix::process::umask(Mode::empty());
    if plan.namespaces.creates(Kind::User) {
        socket.expect(ToInit::Mapped).tried(|| "wait for id maps".into())?;
        process::set_ids(0, 0, None).tried(|| "become root of the user namespace".into())?;
    }
    join_namespaces(common.namespaces)?;
    // After the attach: made by clone, it would have the parent's cgroup as its root.
    if plan.namespaces.creates(Kind::Cgroup) {
        ns::unshare(Kind::Cgroup.flag()).tried(|| "make a cgroup namespace".into())?;
    }
    join_keyring(common, socket)?;
    if plan.namespaces.creates(Kind::Network) {
        net::loopback_up().tried(|| "bring lo up".into())?;
    }

    let root =
        rootfs::prepare(&plan.rootfs, create.cgroup, &plan.process.cwd, plan.namespaces.has(Kind::User))?;
    let terminal = console::make(common, &root, true)?;
    if create.parent_hooks {
        socket.send(&FromInit::RunHooks).tried(|| "ask for hooks".into())?;
        socket.expect(ToInit::HooksDone).tried(|| "wait for hooks".into())?;
    }
    let own_pid = || State { pid: process::own_pid(), ..create.state.clone() };
    hooks::run("createContainer", plan.hooks.create_container().as_deref().unwrap_or_default(), &own_pid())?;
    rootfs::enter(&plan.rootfs, root, create.no_pivot, plan.namespaces.joins(Kind::Mount).is_some())?;

    if let Some(name) = &plan.hostname {
        rustix::system::sethostname(name.as_bytes()).tried(|| format!("set hostname {name}"))?;
    }
    if let Some(name) = &plan.domainname {
        rustix::system::setdomainname(name.as_bytes()).tried(|| format!("set domainname {name}"))?;
    }
    if !plan.sysctls.is_empty() {
        let proc = Procfs::detached().tried(|| "mount a private proc for sysctls".into())?;
        for sysctl in &plan.sysctls {
            proc.write(&sysctl.path, &sysctl.value)
                .tried(|| format!("write {:?} to /proc/{}", sysctl.value, sysctl.path))?;
        }
    }
    if let Some(persona) = plan.personality {
        process::set_personality(persona).tried(|| "set personality".into())?;
    }
    if let Some(policy) = &plan.memory_policy {
        sched::set_memory_policy(policy.mode, &policy.nodes).tried(|| "set memory policy".into())?;
    }
    console::attach(common, terminal, socket)?;
    let found = become_user(common, socket, old_umask)?;
    socket.send(&FromInit::Ready).tried(|| "say that init is ready".into())?;
    socket.expect(ToInit::Go).tried(|| "wait for the record".into())?;
    Ok(found)
}

/// What is left once the container is created: the gate, then the program.
fn create_from_gate(create: &Create<'_>, found: &program::Found) -> Result<Infallible, InitError> {
    let mut byte = [0; 1];
    rustix::io::retry_on_intr(|| rustix::io::read(create.gate, &mut byte))
        .tried(|| "wait at the gate".into())?;
    let hooks = create.plan.hooks.start_container().as_deref().unwrap_or_default();
    let state = State { pid: process::own_pid(), status: Status::Created, ..create.state.clone() };
    hooks::run("startContainer", hooks, &state)?;
    finish(found, &create.common)
}

fn exec_program(exec: &Exec<'_>, socket: &InitEnd, inherited: Inherited) -> Result<Infallible, InitError> {
    let common = &exec.common;
    if let (Some(cpus), _) = &common.process.cpu_affinity {
        sched::set_affinity(cpus).tried(|| "set process.execCPUAffinity.initial".into())?;
    }
    enter(common, socket, inherited, Some(exec.target))?;
    if let (_, Some(cpus)) = &common.process.cpu_affinity {
        sched::set_affinity(cpus).tried(|| "set process.execCPUAffinity.final".into())?;
    }
    join_keyring(common, socket)?;
    ns::join_process(exec.target, exec.namespaces).tried(|| "join the container's namespaces".into())?;
    if exec.namespaces & Kind::User.flag() != 0 {
        process::set_ids(0, 0, None).tried(|| "become root of the user namespace".into())?;
    }
    let old_umask = rustix::process::umask(Mode::empty());
    let terminal = match common.console {
        ConsoleTo::Nobody => None,
        _ => console::make(common, &Root::open_host("/").tried(|| "open /".into())?, false)?,
    };
    console::attach(common, terminal, socket)?;
    let found = become_user(common, socket, old_umask)?;
    socket.send(&FromInit::Ready).tried(|| "say that the process is ready".into())?;
    socket.expect(ToInit::Go).tried(|| "wait for the parent".into())?;
    finish(&found, common)
}

/// The last two system calls; descriptors are settled before the filter may forbid it.
fn finish(found: &program::Found, common: &Common<'_>) -> Result<Infallible, InitError> {
    program::settle_descriptors(common.preserve_fds)?;
    if !loads_early(common) {
        load_seccomp(common)?;
    }
    program::execute(found, &common.process.arguments)
}

/// Leaves the parent behind: session, cgroup, descriptors.
fn enter(
    common: &Common<'_>,
    socket: &InitEnd,
    inherited: Inherited,
    also_keep: Option<BorrowedFd<'_>>,
) -> Result<(), Failure> {
    process::set_dumpable(false).tried(|| "prctl PR_SET_DUMPABLE".into())?;
    signal::reset_all().tried(|| "reset signals".into())?;
    rustix::process::setsid().tried(|| "setsid".into())?;
    common.join.enter_v1().tried(|| "join cgroup (v1)".into())?;
    if !common.cloned_into_v2 {
        common.join.enter_v2().tried(|| "join cgroup (v2)".into())?;
    }
    console::connect_stdio(common.stdio)?;
    let mut keep: Vec<BorrowedFd<'_>> = vec![socket.as_fd()];
    keep.extend(also_keep);
    keep.extend(common.namespaces.iter().map(|(_, fd)| fd.as_fd()));
    if let ConsoleTo::Socket(console) = common.console {
        keep.push(console.as_fd());
    }
    inherited.close(3 + common.preserve_fds as i32, &keep).tried(|| "close_range".into())
}

/// The mount namespace comes last: the others may be reachable from the host's only.
fn join_namespaces(namespaces: &[(Kind, OwnedFd)]) -> Result<(), Failure> {
    let (mount, others): (Vec<_>, Vec<_>) = namespaces.iter().partition(|(kind, _)| *kind == Kind::Mount);
    others.into_iter().chain(mount).try_for_each(|(kind, fd)| {
        ns::join(fd, *kind).tried(|| format!("join {} namespace", kind.proc_name()))
    })
}

/// A kernel without keyrings, or a full quota of keys, costs the keyring alone; runc goes on too.
fn join_keyring(common: &Common<'_>, socket: &InitEnd) -> Result<(), Failure> {
    let Some(name) = common.keyring else { return Ok(()) };
    match keyring::join_session(name) {
        Ok(()) => Ok(()),
        Err(errno) => {
            let text =
                format!("no session keyring for the container: {}", corten_sys::errno::describe(errno));
            socket.send(&FromInit::Warning(text)).tried(|| "send a warning".into())
        }
    }
}

/// Gives up the rights of the host's root, and finds the program with those that are left.
fn become_user(common: &Common<'_>, socket: &InitEnd, old_umask: Mode) -> Result<program::Found, InitError> {
    let process = common.process;
    if let Some(attributes) = process.scheduler {
        sched::set_scheduler(attributes).tried(|| "set process.scheduler".into())?;
    }
    if let Some((class, level)) = process.io_priority {
        sched::set_io_priority(class, level).tried(|| "set process.ioPriority".into())?;
    }
    if process.no_new_privileges {
        rustix::thread::set_no_new_privs(true).tried(|| "prctl PR_SET_NO_NEW_PRIVS".into())?;
    }
    // Kept open until the parent, which is told its number, has fetched it: it answers `Go` only then.
    let listener = if loads_early(common) && !process.no_new_privileges {
        load_seccomp_early(common, socket)?
    } else {
        None
    };
    rustix::process::umask(process.ids.umask.map_or(old_umask, Mode::from_raw_mode));
    let home = identity::home(process);
    identity::assume(process, socket)?;
    program::change_directory(&process.cwd)?;
    let mut found = program::find(process, home, common.extra_environment)?;
    found.listener = match listener {
        None if loads_early(common) && process.no_new_privileges => load_seccomp_early(common, socket)?,
        listener => listener,
    };
    Ok(found)
}

/// Whether the filter is loaded before the process gives up its rights or waits: without no_new_privs loading needs
/// CAP_SYS_ADMIN, and a notify descriptor must reach the parent (R14). Else it comes last, so that it need not allow
/// what only the runtime does.
fn loads_early(common: &Common<'_>) -> bool {
    !common.process.no_new_privileges || common.seccomp.is_some_and(|filter| filter.listener().is_some())
}

fn load_seccomp(common: &Common<'_>) -> Result<Option<OwnedFd>, Failure> {
    let Some(filter) = common.seccomp else { return Ok(None) };
    filter.load().tried(|| "load the seccomp filter".into())
}

fn load_seccomp_early(common: &Common<'_>, socket: &InitEnd) -> Result<Option<OwnedFd>, Failure> {
    let listener = load_seccomp(common)?;
    if let Some(fd) = &listener {
        socket
            .send(&FromInit::Listener(fd.as_raw_fd()))
            .tried(|| "hand over the seccomp notify descriptor".into())?;
    }
    Ok(listener)
}
