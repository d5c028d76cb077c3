//! What the daemon and a monitor say to each other: plain data, no I/O.
//!
//! One message is one packet of a `SOCK_SEQPACKET` unix socket, so the kernel keeps the boundaries. The daemon sends
//! [`Call`]s, the monitor answers each with a [`Reply`] of the same id (in any order) and sends [`Event`]s to every
//! connection. What may grow past [`MAX_MESSAGE_BYTES`] travels as a file descriptor ([`crate::socket`] attaches it):
//!
//! | message | descriptors, in this order |
//! |---|---|
//! | [`Request::Exec`] | process spec (memfd, JSON of OCI `process`), then stdin, stdout, stderr as [`Exec`] says |
//! | [`Answer::Executed`] of a tty exec | the PTY's master |
//! | [`Answer::Opened`] | what [`Request::OpenStdin`] asked for |
//! | [`Answer::Listed`] | [`PodState`] (memfd, JSON) |
//! | every other | none |

use std::path::PathBuf;

use serde::{Deserialize, Serialize};

/// The version a monitor writes into its record; a daemon that reads another one refuses to connect.
pub const PROTOCOL_VERSION: u32 = 1;

/// The longest packet either side accepts; a longer one is refused whole.
pub const MAX_MESSAGE_BYTES: usize = 64 * 1024;

/// The longest process spec or pod state read from an attached descriptor.
pub const MAX_ATTACHED_BYTES: usize = 4 * 1024 * 1024;

/// The most descriptors one message carries: process spec and three of stdio.
pub const MAX_MESSAGE_FDS: usize = 4;

/// Daemon to monitor. `id` is the daemon's and comes back in the [`Reply`]; it means nothing else.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Call {
    pub id: u64,
    pub request: Request,
}

#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub enum Request {
    /// Mounts the pod's /dev/shm and starts its pause container. Once a monitor. Answer: [`Answer::Started`].
    StartSandbox(StartSandbox),
    /// Mounts the root filesystem and creates the container, not yet started. Answer: [`Answer::Created`].
    CreateContainer(CreateContainer),
    /// Answer: [`Answer::Started`].
    StartContainer { id: String },
    /// Sends a signal by number to the container's first process, or to every process of the container.
    /// To a container that has exited: [`FailureKind::NotRunning`]. Answer: [`Answer::Done`].
    Signal { id: String, signal: i32, all: bool },
    /// Kills what is left of the container, deletes it in the runtime, unmounts its root filesystem and forgets its
    /// records. An id that is not known is no error. Answer: [`Answer::Done`].
    DeleteContainer { id: String },
    /// Starts a process in a running container. Answer: [`Answer::Executed`]; its end: [`Event::ExecExited`].
    Exec(Exec),
    /// Kills a process started by [`Request::Exec`] and its descendants. One that has ended is no error.
    /// Answer: [`Answer::Done`].
    KillExec { exec: u64 },
    /// Opens the container's log path anew (after the kubelet renamed the file). Answer: [`Answer::Done`].
    ReopenLog { id: String },
    /// Asks for the writing end of the container's stdin, or the PTY's master. Answer: [`Answer::Opened`].
    OpenStdin { id: String },
    /// Sets the terminal size of a tty container. Answer: [`Answer::Done`].
    ResizePty { id: String, size: TerminalSize },
    /// Everything the monitor knows, for a daemon that has just connected. Answer: [`Answer::Listed`].
    List,
    /// Ends the monitor. Refused with [`FailureKind::Busy`] while a container (the pause container too) is not
    /// deleted. Answer: [`Answer::Done`], then end of file.
    Shutdown,
}

#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct StartSandbox {
    /// The sandbox id; the pause container has the same.
    pub id: String,
    /// Directory with the pause container's `config.json`, written by the daemon.
    pub bundle: PathBuf,
    /// None: the pod uses the host's /dev/shm, or has none.
    pub shm: Option<Shm>,
    pub handler: Handler,
}

/// A tmpfs for the /dev/shm of a pod, mounted in the monitor's mount namespace; containers bind it by this path.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Shm {
    pub path: PathBuf,
    pub size_bytes: u64,
}

#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct CreateContainer {
    pub id: String,
    /// Directory with `config.json`, written by the daemon; its `root.path` is `rootfs` where an overlay is given.
    pub bundle: PathBuf,
    /// Mounted at `bundle/rootfs` (created when missing). None: `root.path` names a directory that is ready.
    pub rootfs: Option<Overlay>,
    /// The CRI log; its directory exists. None: output is discarded.
    pub log_path: Option<PathBuf>,
    /// Agrees with `process.terminal` of config.json.
    pub tty: bool,
    /// Keeps a pipe open as stdin (without: /dev/null). A tty is its own stdin.
    pub stdin: bool,
    /// Stdin is given away by the first [`Request::OpenStdin`]: when that holder closes it, the container sees its end.
    pub stdin_once: bool,
    pub terminal_size: Option<TerminalSize>,
    pub handler: Handler,
}

/// Overlay directories; `lower` topmost first, never empty.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Overlay {
    pub lower: Vec<PathBuf>,
    pub upper: PathBuf,
    pub work: PathBuf,
    /// Without syncs (mount option `volatile`): right wherever a power cut may discard the container.
    pub volatile: bool,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub struct TerminalSize {
    pub columns: u16,
    pub rows: u16,
}

/// Who makes containers.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub enum Handler {
    /// The `corten-runtime` library, called inside the monitor.
    BuiltIn,
    /// Another OCI runtime, called by runc's command line with `--root root`.
    External { program: PathBuf, root: PathBuf },
}

/// The process spec is the first attached descriptor. Without a tty each of stdin, stdout and stderr that is asked for
/// is attached after it, in this order; one not asked for is /dev/null. With a tty none is: the answer carries the
/// PTY's master.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Exec {
    pub container: String,
    pub tty: bool,
    pub terminal_size: Option<TerminalSize>,
    pub stdin: bool,
    pub stdout: bool,
    pub stderr: bool,
}

/// Monitor to daemon.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub enum Message {
    Reply(Reply),
    Event(Event),
}

#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Reply {
    /// The [`Call`]'s.
    pub id: u64,
    pub result: Result<Answer, Failure>,
}

#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub enum Answer {
    Created {
        pid: i32,
        created_at_unix_nanos: i64,
    },
    Started {
        pid: i32,
        started_at_unix_nanos: i64,
    },
    /// `exec` names the process in [`Request::KillExec`] and [`Event::ExecExited`]; unique in the monitor's life.
    Executed {
        exec: u64,
        pid: i32,
    },
    Listed,
    Opened,
    Done,
}

/// Why a request failed. `message` says what was tried, on what, the errno's name and the likely cause.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, thiserror::Error)]
#[error("{message}")]
pub struct Failure {
    pub kind: FailureKind,
    pub message: String,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub enum FailureKind {
    /// No container of this id.
    NotFound,
    AlreadyExists,
    /// The container has exited, or is not started yet.
    NotRunning,
    /// The state forbids it otherwise (started twice, ...).
    WrongState,
    /// Containers are left ([`Request::Shutdown`]).
    Busy,
    /// The message or a file it names is malformed.
    Invalid,
    /// The container's program does not exist in its root filesystem: what a shell calls 127.
    CommandNotFound,
    /// The container's program exists and cannot be executed: what a shell calls 126.
    CommandNotExecutable,
    /// Everything else the runtime or kernel refused.
    Runtime,
}

impl FailureKind {
    /// The exit code a shell gives to a program that could not be started, for [`Self::CommandNotFound`] and
    /// [`Self::CommandNotExecutable`].
    pub fn exit_code(self) -> Option<i32> {
        match self {
            Self::CommandNotFound => Some(127),
            Self::CommandNotExecutable => Some(126),
            _ => None,
        }
    }
}

/// Sent to every connection, in the order of happening. A container's exit record is on disk before.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub enum Event {
    /// Also for the pause container (its id is the sandbox's).
    ContainerExited {
        id: String,
        exit: Exit,
    },
    ExecExited {
        exec: u64,
        container: String,
        exit: Exit,
    },
    /// The kernel killed a process of this container for memory; the container itself may go on.
    OomKilled {
        id: String,
    },
}

/// How a process ended.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub struct Exit {
    /// The exit status, or 128 + `signal`.
    pub code: i32,
    /// The signal that ended it, by number.
    pub signal: Option<i32>,
    /// The kernel killed a process of the container for memory during its life. Never set for an exec.
    pub oom_killed: bool,
    pub finished_at_unix_nanos: i64,
}

/// What [`Request::List`] answers.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct PodState {
    /// None before [`Request::StartSandbox`] and after the pause container was deleted.
    pub sandbox: Option<ContainerState>,
    pub containers: Vec<ContainerState>,
    pub execs: Vec<ExecState>,
}

#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct ContainerState {
    pub id: String,
    pub bundle: PathBuf,
    pub pid: i32,
    pub created_at_unix_nanos: i64,
    /// None: created, not started.
    pub started_at_unix_nanos: Option<i64>,
    /// None: it lives.
    pub exit: Option<Exit>,
    pub log_path: Option<PathBuf>,
    /// Bytes of output dropped since the log could not be written (disk full).
    pub log_dropped_bytes: u64,
}

#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct ExecState {
    pub exec: u64,
    pub container: String,
    pub pid: i32,
}

#[cfg(test)]
mod tests {
    use super::*;

    fn round_trip<T: Serialize + for<'a> Deserialize<'a> + PartialEq + std::fmt::Debug>(
        value: &T,
        json: &str,
    ) {
        assert_eq!(serde_json::to_string(value).unwrap(), json);
        assert_eq!(&serde_json::from_str::<T>(json).unwrap(), value);
    }

    #[test]
    fn the_wire_form_of_version_1_does_not_change() {
        round_trip(&Call { id: 7, request: Request::List }, r#"{"id":7,"request":"List"}"#);
        round_trip(
            &Call { id: 1, request: Request::Signal { id: "c".into(), signal: 15, all: false } },
            r#"{"id":1,"request":{"Signal":{"id":"c","signal":15,"all":false}}}"#,
        );
        let failure = Failure { kind: FailureKind::CommandNotFound, message: "exec /nope: ENOENT".into() };
        round_trip(
            &Message::Reply(Reply { id: 2, result: Err(failure) }),
            r#"{"Reply":{"id":2,"result":{"Err":{"kind":"CommandNotFound","message":"exec /nope: ENOENT"}}}}"#,
        );
        let exit = Exit { code: 137, signal: Some(9), oom_killed: true, finished_at_unix_nanos: 5 };
        round_trip(
            &Message::Event(Event::ContainerExited { id: "c".into(), exit }),
            concat!(
                r#"{"Event":{"ContainerExited":{"id":"c","exit":"#,
                r#"{"code":137,"signal":9,"oom_killed":true,"finished_at_unix_nanos":5}}}}"#
            ),
        );
    }

    #[test]
    fn a_program_that_cannot_start_has_a_shells_exit_code() {
        assert_eq!(FailureKind::CommandNotFound.exit_code(), Some(127));
        assert_eq!(FailureKind::CommandNotExecutable.exit_code(), Some(126));
        assert_eq!(FailureKind::Runtime.exit_code(), None);
    }
}
