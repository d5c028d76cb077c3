//! The pod this monitor holds: its containers, their streams and execs, and what each request does to them.

use std::collections::BTreeMap;
use std::fs::{self, File};
use std::io;
use std::os::fd::{AsFd, OwnedFd};
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use corten_runtime::cgroup::Hierarchies;
use corten_sys::{pidfd, pty};
use nix::libc::SIGKILL;
use oci_spec::runtime::Process;
use rustix::pipe::{PipeFlags, pipe_with};

use crate::container::{Life, Wish};
use crate::kill_tree::kill_tree;
use crate::layout::{Layout, is_valid_id};
use crate::log_writer::{LogWriter, StreamName};
use crate::mount_namespace::{drop_pins, mount_overlay, mount_shm, unmount_own};
use crate::oci::{Made, Runtime, Stdio};
use crate::oom::OomWatch;
use crate::own_log;
use crate::poller::{Poller, Token};
use crate::protocol::{
    Answer, ContainerState, CreateContainer, Event, Exec, ExecState, Exit, Failure, FailureKind, Handler,
    PodState, Request, StartSandbox, TerminalSize,
};
use crate::record::{self, ContainerRecord, ExitRecord};
use crate::socket::{attach_json, read_attached};
use crate::stream::{Read, Stream};
use crate::timestamp::now_unix_nanos;

/// How long a killed process may take to end while a container is deleted.
const DEATH: Duration = Duration::from_secs(10);

/// What the pod is told at start.
#[derive(Debug)]
pub struct PodOptions {
    pub sandbox: String,
    pub layout: Layout,
    pub oci_root: PathBuf,
    /// Where the daemon pins network namespaces.
    pub netns_dir: Option<PathBuf>,
}

#[derive(Debug)]
struct Container {
    life: Life,
    bundle: PathBuf,
    pid: i32,
    runtime: Runtime,
    /// Mounted by us.
    rootfs: Option<PathBuf>,
    log: Option<LogWriter>,
    streams: BTreeMap<u32, Stream>,
    stdin: Stdin,
    stdin_once: bool,
    oom: Option<(u32, OomWatch)>,
    oom_killed: bool,
}

/// Our end of a container's stdin.
#[derive(Debug)]
enum Stdin {
    None,
    Pipe(OwnedFd),
    Tty(OwnedFd),
    /// `stdin_once`, and somebody has it.
    Given,
}

#[derive(Debug)]
struct Execution {
    container: String,
    pid: i32,
}

/// What a request brings about besides its answer.
#[derive(Debug)]
pub struct Outcome {
    pub result: Result<Answer, Failure>,
    pub fds: Vec<OwnedFd>,
    pub shut_down: bool,
}

#[derive(Debug)]
pub struct Pod {
    options: PodOptions,
    hierarchies: Option<Hierarchies>,
    containers: BTreeMap<String, Container>,
    execs: BTreeMap<u64, Execution>,
    next_exec: u64,
    next_number: u32,
    /// Told to every connection by the loop, in this order.
    pub events: Vec<Event>,
}

type Answered = Result<Answer, Failure>;

impl Pod {
    pub fn new(options: PodOptions) -> Self {
        let hierarchies =
            Hierarchies::detect().map_err(|error| own_log::say(&format!("no OOM notices: {error}"))).ok();
        Self {
            options,
            hierarchies,
            containers: BTreeMap::new(),
            execs: BTreeMap::new(),
            next_exec: 1,
            next_number: 0,
            events: Vec::new(),
        }
    }

    pub fn is_empty(&self) -> bool {
        self.containers.is_empty()
    }

    /// When [`Pod::look_for_oom_kills`] should be called next.
    pub fn next_look(&self) -> Option<Instant> {
        self.containers.values().filter_map(|c| c.oom.as_ref()?.1.next_look()).min()
    }

    pub fn handle(&mut self, poller: &Poller, request: Request, fds: Vec<OwnedFd>) -> Outcome {
        let mut sent = Vec::new();
        let mut shut_down = false;
        let result = match request {
            Request::StartSandbox(request) => self.start_sandbox(poller, &request),
            Request::CreateContainer(request) => self.create(poller, &request),
            Request::StartContainer { id } => self.start(&id),
            Request::Signal { id, signal, all } => self.signal(&id, signal, all),
            Request::DeleteContainer { id } => self.delete(poller, &id),
            Request::Exec(request) => self.exec(&request, fds, &mut sent),
            Request::KillExec { exec } => Ok(self.kill_exec(exec)),
            Request::ReopenLog { id } => self.reopen_log(&id),
            Request::OpenStdin { id } => self.open_stdin(&id, &mut sent),
            Request::ResizePty { id, size } => self.resize(&id, size),
            Request::List => self.list(&mut sent),
            Request::Shutdown if self.is_empty() => {
                shut_down = true;
                Ok(Answer::Done)
            }
            Request::Shutdown => {
                let left: Vec<&str> = self.containers.keys().map(String::as_str).collect();
                Err(failure(
                    FailureKind::Busy,
                    format!("shut down: {} left: {}", left.len(), left.join(", ")),
                ))
            }
        };
        Outcome { result, fds: sent, shut_down }
    }

    fn start_sandbox(&mut self, poller: &Poller, request: &StartSandbox) -> Answered {
        if request.id != self.options.sandbox {
            let message =
                format!("start sandbox {}: this is the monitor of {}", request.id, self.options.sandbox);
            return Err(failure(FailureKind::Invalid, message));
        }
        if let Some(shm) = &request.shm {
            mount_shm(shm).map_err(|error| failure(FailureKind::Runtime, error.to_string()))?;
        }
        let answer = self.start_pause(poller, request);
        if let (Err(_), Some(shm)) = (&answer, &request.shm) {
            log_failure(unmount_own(&shm.path));
        }
        answer
    }

    /// What need not be done before an answer: called after each.
    pub fn settle(&mut self) {
        if self.containers.contains_key(&self.options.sandbox)
            && let Some(dir) = self.options.netns_dir.take()
        {
            log_failure(drop_pins(&dir, &self.options.sandbox));
        }
    }

    fn start_pause(&mut self, poller: &Poller, request: &StartSandbox) -> Answered {
        self.create(
            poller,
            &CreateContainer {
                id: request.id.clone(),
                bundle: request.bundle.clone(),
                rootfs: None,
                log_path: None,
                tty: false,
                stdin: false,
                stdin_once: false,
                terminal_size: None,
                handler: request.handler.clone(),
            },
        )?;
        let started = self.start(&request.id);
        if started.is_err() {
            let _ = self.delete(poller, &request.id);
        }
        started
    }

    fn create(&mut self, poller: &Poller, request: &CreateContainer) -> Answered {
        let id = &request.id;
        if !is_valid_id(id) {
            return Err(failure(FailureKind::Invalid, format!("create container {id:?}: not an id")));
        }
        if self.containers.contains_key(id) {
            return Err(failure(
                FailureKind::AlreadyExists,
                format!("create container {id}: it exists already"),
            ));
        }
        self.write_record(request)?;
        let made = self.make(request);
        if made.is_err() {
            self.undo_create(request);
        }
        let mut container = made?;
        self.watch(poller, id, &mut container);
        let answer =
            Answer::Created { pid: container.pid, created_at_unix_nanos: container.life.created_at() };
        self.containers.insert(id.clone(), container);
        Ok(answer)
    }

    /// Before anything of the container exists, so that a sweep finds it.
    fn write_record(&self, request: &CreateContainer) -> Result<(), Failure> {
        let CreateContainer { id, bundle, handler, .. } = request;
        let path = self.options.layout.container_record(id);
        let record = ContainerRecord { id: id.clone(), bundle: bundle.clone(), handler: handler.clone() };
        record::write(&path, &record)
            .map_err(|error| io_failure(&format!("write {}", path.display()), &error))
    }

    fn make(&mut self, request: &CreateContainer) -> Result<Container, Failure> {
        let rootfs = request.rootfs.as_ref().map(|overlay| (overlay, request.bundle.join("rootfs")));
        if let Some((overlay, target)) = &rootfs {
            mount_overlay(overlay, target)
                .map_err(|error| failure(FailureKind::Runtime, error.to_string()))?;
        }
        let log = request.log_path.as_ref().map(|path| {
            LogWriter::open(path)
                .map_err(|error| io_failure(&format!("open the log {}", path.display()), &error))
        });
        let log = log.transpose()?;
        let io = |error: io::Error| io_failure("make the container's pipes", &error);
        let (stdio, mut streams, mut stdin) = Self::stdio(request, log.is_some()).map_err(io)?;
        let runtime = self.runtime(&request.handler);
        let Made { pid, master } = runtime.create(&request.id, &request.bundle, stdio)?;
        if let Some(master) = master {
            streams.push(Stream::of_pty(master.as_fd()).map_err(io)?);
            stdin = Stdin::Tty(master);
        }
        let streams = streams.into_iter().map(|stream| (self.number(), stream)).collect();
        Ok(Container {
            life: Life::Created { created: now_unix_nanos() },
            bundle: request.bundle.clone(),
            pid,
            runtime,
            rootfs: rootfs.map(|(_, target)| target),
            log,
            streams,
            stdin,
            stdin_once: request.stdin_once,
            oom: None,
            oom_killed: false,
        })
    }

    /// The container's ends, and ours.
    fn stdio(request: &CreateContainer, logged: bool) -> io::Result<(Stdio, Vec<Stream>, Stdin)> {
        if request.tty {
            return Ok((Stdio::Tty(request.terminal_size), Vec::new(), Stdin::None));
        }
        let (stdin, ours) = if request.stdin {
            let (reading, writing) = pipe_with(PipeFlags::CLOEXEC)?;
            (reading, Stdin::Pipe(writing))
        } else {
            (null()?, Stdin::None)
        };
        if !logged {
            return Ok((Stdio::Files { stdin, stdout: null()?, stderr: null()? }, Vec::new(), ours));
        }
        let (out, stdout) = Stream::pipe(StreamName::Stdout)?;
        let (err, stderr) = Stream::pipe(StreamName::Stderr)?;
        Ok((Stdio::Files { stdin, stdout, stderr }, vec![out, err], ours))
    }

    /// A runtime that fails to create leaves nothing itself.
    fn undo_create(&self, request: &CreateContainer) {
        if request.rootfs.is_some() {
            log_failure(unmount_own(&request.bundle.join("rootfs")));
        }
        log_failure(record::remove(&self.options.layout.container_record(&request.id)));
    }

    fn watch(&mut self, poller: &Poller, id: &str, container: &mut Container) {
        for (number, stream) in &container.streams {
            if let Err(error) = poller.add(stream, Token::Stream(*number)) {
                own_log::say(&format!("watch a stream of {id}: {error}"));
            }
        }
        let watch = self.hierarchies.as_ref().and_then(|h| OomWatch::of_process(h, container.pid));
        if let Some(watch) = watch {
            let number = self.number();
            if poller.add(&watch, Token::Oom(number)).is_ok() {
                container.oom = Some((number, watch));
            }
        }
    }

    fn start(&mut self, id: &str) -> Answered {
        let container = self.container(id, Wish::Start)?;
        container.runtime.start(id)?;
        let now = now_unix_nanos();
        container.life.start(now);
        Ok(Answer::Started { pid: container.pid, started_at_unix_nanos: now })
    }

    fn signal(&mut self, id: &str, signal: i32, all: bool) -> Answered {
        let container = self.container(id, Wish::Signal)?;
        if !all {
            // Not reaped by us yet, so the pid is the container's.
            let sent = pidfd::open(container.pid).and_then(|handle| pidfd::send_signal(handle, signal));
            return match sent {
                Ok(()) => Ok(Answer::Done),
                Err(rustix::io::Errno::SRCH) => {
                    Err(failure(FailureKind::NotRunning, format!("signal {id}: it has ended")))
                }
                Err(errno) => Err(failure(
                    FailureKind::Runtime,
                    format!("send signal {signal} to {id}: {}", corten_sys::errno::describe(errno)),
                )),
            };
        }
        container.runtime.kill(id, signal, true)?;
        Ok(Answer::Done)
    }

    fn delete(&mut self, poller: &Poller, id: &str) -> Answered {
        if let Some(container) = self.containers.get(id) {
            if container.life.exit().is_none() {
                self.end(id, container.pid)?;
            }
            self.containers[id].runtime.delete(id)?;
            let mut container = self.containers.remove(id).expect("it was there");
            for (_, mut stream) in std::mem::take(&mut container.streams) {
                poller.remove(&stream);
                stream.drain(container.log.as_mut());
                stream.finish(container.log.as_mut());
            }
            if let Some((_, watch)) = &container.oom {
                poller.remove(watch);
            }
            if let Some(rootfs) = &container.rootfs {
                log_failure(unmount_own(rootfs));
            }
        }
        if is_valid_id(id) {
            log_failure(record::remove(&self.options.layout.container_record(id)));
            log_failure(record::remove(&self.options.layout.exit_record(id)));
        }
        Ok(Answer::Done)
    }

    /// Kills a living container and takes note of its end, as if it had come by itself.
    fn end(&mut self, id: &str, pid: i32) -> Result<(), Failure> {
        let died = pidfd::open(pid).and_then(|handle| {
            let _ = pidfd::send_signal(&handle, SIGKILL);
            if pidfd::wait_exit(&handle, Some(DEATH))? { pidfd::reap(&handle).map(Some) } else { Ok(None) }
        });
        let tried = |what: &str| failure(FailureKind::Runtime, format!("kill {id} (pid {pid}): {what}"));
        match died {
            Ok(Some(ended)) => self.ended(pid, crate::reaper::exit_now(ended)),
            Ok(None) => return Err(tried("it lives on 10 s after SIGKILL")),
            Err(errno) => return Err(tried(&corten_sys::errno::describe(errno))),
        }
        Ok(())
    }

    fn exec(&mut self, request: &Exec, fds: Vec<OwnedFd>, sent: &mut Vec<OwnedFd>) -> Answered {
        let container = self.container(&request.container, Wish::Exec)?;
        let invalid = |message: String| {
            failure(FailureKind::Invalid, format!("exec in {}: {message}", request.container))
        };
        let mut fds = fds.into_iter();
        let spec = fds.next().ok_or_else(|| invalid("no process spec is attached".into()))?;
        let process: Process =
            read_attached(spec).map_err(|error| invalid(format!("process spec: {error}")))?;
        let stdio = if request.tty {
            Stdio::Tty(request.terminal_size)
        } else {
            let mut stream = |attached: bool| {
                if attached {
                    fds.next().ok_or_else(|| invalid("a stream is not attached".into()))
                } else {
                    null().map_err(|error| io_failure("open /dev/null", &error))
                }
            };
            Stdio::Files {
                stdin: stream(request.stdin)?,
                stdout: stream(request.stdout)?,
                stderr: stream(request.stderr)?,
            }
        };
        let Made { pid, master } = container.runtime.exec(&request.container, process, stdio)?;
        sent.extend(master);
        let exec = self.next_exec;
        self.next_exec += 1;
        self.execs.insert(exec, Execution { container: request.container.clone(), pid });
        Ok(Answer::Executed { exec, pid })
    }

    fn kill_exec(&self, exec: u64) -> Answer {
        if let Some(execution) = self.execs.get(&exec) {
            kill_tree(execution.pid);
        }
        Answer::Done
    }

    fn reopen_log(&mut self, id: &str) -> Answered {
        let container = self.known(id)?;
        if let Some(log) = &mut container.log {
            log.reopen()
                .map_err(|error| io_failure(&format!("reopen the log {}", log.path().display()), &error))?;
        }
        Ok(Answer::Done)
    }

    fn open_stdin(&mut self, id: &str, sent: &mut Vec<OwnedFd>) -> Answered {
        let container = self.container(id, Wish::Signal)?;
        let copy = |fd: &OwnedFd| fd.try_clone().map_err(|error| io_failure("copy a descriptor", &error));
        let none = |why: &str| Err(failure(FailureKind::WrongState, format!("open stdin of {id}: {why}")));
        match &container.stdin {
            Stdin::None => return none("it was created without"),
            Stdin::Given => return none("it is attached once, and has been"),
            Stdin::Tty(master) => sent.push(copy(master)?),
            Stdin::Pipe(_) if container.stdin_once => {
                if let Stdin::Pipe(pipe) = std::mem::replace(&mut container.stdin, Stdin::Given) {
                    sent.push(pipe);
                }
            }
            Stdin::Pipe(pipe) => sent.push(copy(pipe)?),
        }
        Ok(Answer::Opened)
    }

    fn resize(&mut self, id: &str, size: TerminalSize) -> Answered {
        let container = self.container(id, Wish::Resize)?;
        let Stdin::Tty(master) = &container.stdin else {
            return Err(failure(
                FailureKind::WrongState,
                format!("resize the terminal of {id}: it has none"),
            ));
        };
        pty::set_size(master, size.rows, size.columns).map_err(|errno| {
            failure(
                FailureKind::Runtime,
                format!("resize the terminal of {id}: {}", corten_sys::errno::describe(errno)),
            )
        })?;
        Ok(Answer::Done)
    }

    fn list(&self, sent: &mut Vec<OwnedFd>) -> Answered {
        let mut containers: Vec<ContainerState> = self.containers.iter().map(|(id, c)| c.state(id)).collect();
        let sandbox =
            containers.iter().position(|c| c.id == self.options.sandbox).map(|at| containers.remove(at));
        let execs = self.execs.iter().map(|(exec, e)| ExecState {
            exec: *exec,
            container: e.container.clone(),
            pid: e.pid,
        });
        let state = PodState { sandbox, containers, execs: execs.collect() };
        sent.push(attach_json(&state).map_err(|error| io_failure("write the state", &error))?);
        Ok(Answer::Listed)
    }

    /// A child has ended: a container's first process, an exec, or an orphan that was given to us.
    pub fn ended(&mut self, pid: i32, mut exit: Exit) {
        if let Some(exec) = self.execs.iter().find(|(_, e)| e.pid == pid).map(|(exec, _)| *exec) {
            let execution = self.execs.remove(&exec).expect("it was there");
            self.events.push(Event::ExecExited { exec, container: execution.container, exit });
            return;
        }
        let found = self.containers.iter_mut().find(|(_, c)| c.pid == pid && c.life.exit().is_none());
        let Some((id, container)) = found else { return };
        if container.notes_oom_kill() {
            self.events.push(Event::OomKilled { id: id.clone() });
        }
        exit.oom_killed = container.oom_killed;
        if shares_pid_namespace(&container.bundle)
            && let Err(error) = container.runtime.kill(id, SIGKILL, true)
            && error.kind == FailureKind::Runtime
        {
            own_log::say(&format!("kill what {id} has left: {error}"));
        }
        for stream in container.streams.values_mut() {
            stream.drain(container.log.as_mut());
        }
        container.life.end(exit);
        let path = self.options.layout.exit_record(id);
        if let Err(error) = record::write(&path, &ExitRecord { id: id.clone(), exit }) {
            own_log::say(&format!("write {}: {error}", path.display()));
        }
        self.events.push(Event::ContainerExited { id: id.clone(), exit });
    }

    /// A stream is readable.
    pub fn read(&mut self, poller: &Poller, number: u32) {
        let Some(container) = self.containers.values_mut().find(|c| c.streams.contains_key(&number)) else {
            return;
        };
        let stream = container.streams.get_mut(&number).expect("found by it");
        if stream.read(container.log.as_mut()) == Read::End {
            poller.remove(&*stream);
            container.streams.remove(&number);
        }
    }

    /// Memory of a container has run out.
    pub fn oom_noticed(&mut self, number: u32) {
        let mut watches = self.containers.values_mut().filter_map(|c| c.oom.as_mut());
        if let Some((_, watch)) = watches.find(|(own, _)| *own == number) {
            watch.noticed();
        }
        self.look_for_oom_kills();
    }

    pub fn look_for_oom_kills(&mut self) {
        let now = Instant::now();
        for (id, container) in &mut self.containers {
            let due = container
                .oom
                .as_ref()
                .and_then(|(_, watch)| watch.next_look())
                .is_some_and(|next| next <= now);
            if due && container.notes_oom_kill() {
                self.events.push(Event::OomKilled { id: id.clone() });
            }
        }
    }

    fn runtime(&self, handler: &Handler) -> Runtime {
        Runtime::of(handler, &self.options.oci_root, self.options.layout.dir())
    }

    fn number(&mut self) -> u32 {
        self.next_number = self.next_number.wrapping_add(1);
        self.next_number
    }

    fn known(&mut self, id: &str) -> Result<&mut Container, Failure> {
        let missing = || failure(FailureKind::NotFound, format!("no container {id:?} in this pod"));
        self.containers.get_mut(id).ok_or_else(missing)
    }

    fn container(&mut self, id: &str, wish: Wish) -> Result<&mut Container, Failure> {
        let container = self.known(id)?;
        let life = container.life;
        life.allows(wish).map_err(|kind| failure(kind, format!("container {id} is {}", life.name())))?;
        Ok(container)
    }
}

impl Container {
    fn state(&self, id: &str) -> ContainerState {
        ContainerState {
            id: id.to_owned(),
            bundle: self.bundle.clone(),
            pid: self.pid,
            created_at_unix_nanos: self.life.created_at(),
            started_at_unix_nanos: self.life.started_at(),
            exit: self.life.exit(),
            log_path: self.log.as_ref().map(|log| log.path().to_owned()),
            log_dropped_bytes: self.log.as_ref().map_or(0, LogWriter::dropped_bytes),
        }
    }

    /// Whether there is an OOM kill that was not known yet.
    fn notes_oom_kill(&mut self) -> bool {
        let killed = self.oom.as_mut().is_some_and(|(_, watch)| watch.has_killed());
        let is_new = killed && !self.oom_killed;
        self.oom_killed |= killed;
        is_new
    }
}

/// The end of a container that has no PID namespace of its own does not end its other processes.
fn shares_pid_namespace(bundle: &Path) -> bool {
    #[derive(serde::Deserialize)]
    struct Spec {
        #[serde(default)]
        linux: Linux,
    }
    #[derive(Default, serde::Deserialize)]
    struct Linux {
        #[serde(default)]
        namespaces: Vec<Namespace>,
    }
    #[derive(serde::Deserialize)]
    struct Namespace {
        r#type: String,
        path: Option<PathBuf>,
    }
    let spec: Option<Spec> =
        fs::read(bundle.join("config.json")).ok().and_then(|json| serde_json::from_slice(&json).ok());
    let own =
        |n: &Namespace| n.r#type == "pid" && n.path.as_ref().is_none_or(|path| path.as_os_str().is_empty());
    !spec.is_some_and(|spec| spec.linux.namespaces.iter().any(own))
}

fn null() -> io::Result<OwnedFd> {
    Ok(File::options().read(true).write(true).open("/dev/null")?.into())
}

pub(crate) fn failure(kind: FailureKind, message: String) -> Failure {
    Failure { kind, message }
}

fn io_failure(tried: &str, error: &io::Error) -> Failure {
    let message = match error.raw_os_error() {
        Some(raw) => {
            format!("{tried}: {}", corten_sys::errno::describe(rustix::io::Errno::from_raw_os_error(raw)))
        }
        None => format!("{tried}: {error}"),
    };
    failure(FailureKind::Runtime, message)
}

fn log_failure<E: std::fmt::Display>(result: Result<(), E>) {
    if let Err(error) = result {
        own_log::say(&error.to_string());
    }
}
