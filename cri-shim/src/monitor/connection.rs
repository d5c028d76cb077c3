//! One connection to a monitor: calls out, replies matched by id, events in order, death by pidfd.

use std::collections::HashMap;
use std::io;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use corten_monitor::layout::Layout;
use corten_monitor::process::open_recorded;
use corten_monitor::protocol::{
    Answer, Call, Event, Exit, Failure, MAX_MESSAGE_BYTES, Message, PROTOCOL_VERSION, Reply, Request,
};
use corten_monitor::record::{self, MonitorRecord};
use corten_monitor::socket::{self, Received};
use tokio::io::Interest;
use tokio::io::unix::AsyncFd;
use tokio::sync::{mpsc, oneshot, watch};

use super::MonitorError;

/// How long a monitor whose connection ended may take to die before it counts as alive.
const DYING: Duration = Duration::from_secs(2);

/// A monitor that can be asked; clones share the connection.
#[derive(Debug, Clone)]
pub struct Monitor {
    pub(super) inner: Arc<Inner>,
}

/// What a monitor tells unasked, in the order of happening. Unbounded, and yet bounded: one end a container and at
/// most one OOM kill each; ends of processes started by [`Monitor::exec`] go to their [`super::Execution`] instead.
#[derive(Debug)]
pub struct Events {
    receiver: mpsc::UnboundedReceiver<Event>,
}

impl Events {
    /// None once the connection has ended: [`Monitor::ended`] then says whether the monitor is dead.
    pub async fn next(&mut self) -> Option<Event> {
        self.receiver.recv().await
    }
}

/// How a connection ended.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum End {
    Dead,
    Disconnected,
}

pub(super) type Answered = Result<(Answer, Vec<OwnedFd>, Option<oneshot::Receiver<Exit>>), Failure>;

#[derive(Debug)]
pub(super) struct Inner {
    pub(super) dir: PathBuf,
    pid: i32,
    socket: AsyncFd<OwnedFd>,
    next_id: AtomicU64,
    waiting: Mutex<Waiting>,
    end: watch::Sender<Option<End>>,
}

#[derive(Debug, Default)]
struct Waiting {
    /// None once the connection has ended; nobody waits from then on.
    ended: bool,
    calls: HashMap<u64, oneshot::Sender<Answered>>,
    execs: HashMap<u64, oneshot::Sender<Exit>>,
}

impl Monitor {
    /// Finds the monitor that serves `dir` after a restart of the daemon.
    /// # Errors
    /// [`MonitorError::Dead`] when there is none: no record, another boot, a dead or reused pid.
    pub fn connect(dir: &Path) -> Result<(Self, Events), MonitorError> {
        let layout = Layout::new(dir);
        let io = |what| move |source| MonitorError::Io { what, dir: dir.to_owned(), source };
        let dead = |why: &str| MonitorError::Dead { dir: dir.to_owned(), why: format!(": {why}") };
        let record: MonitorRecord = match record::read(&layout.monitor_record()) {
            Err(error) if error.kind() == io::ErrorKind::NotFound => {
                return Err(dead("it has left no record"));
            }
            record => record.map_err(io("read the record"))?,
        };
        let pidfd = open_recorded(&record).map_err(io("find the process"))?;
        let pidfd = pidfd.ok_or_else(|| dead("its process does not exist"))?;
        if record.protocol != PROTOCOL_VERSION {
            return Err(MonitorError::Version {
                dir: dir.to_owned(),
                theirs: record.protocol,
                ours: PROTOCOL_VERSION,
            });
        }
        let socket = socket::connect(&layout.socket()).map_err(io("connect to the socket"))?;
        Self::over(dir, record.pid, socket, pidfd, None).map_err(io("watch the connection"))
    }

    /// Starts serving a connected socket. `child` is reaped when it ends.
    pub(super) fn over(
        dir: &Path,
        pid: i32,
        socket: OwnedFd,
        pidfd: OwnedFd,
        child: Option<tokio::process::Child>,
    ) -> io::Result<(Self, Events)> {
        let pidfd = watch(pidfd, Interest::READABLE)?;
        let inner = Arc::new(Inner {
            dir: dir.to_owned(),
            pid,
            socket: watch(socket, Interest::READABLE | Interest::WRITABLE)?,
            next_id: AtomicU64::new(1),
            waiting: Mutex::default(),
            end: watch::Sender::new(None),
        });
        let (sender, receiver) = mpsc::unbounded_channel();
        tokio::spawn(serve(Arc::clone(&inner), pidfd, sender, child));
        Ok((Self { inner }, Events { receiver }))
    }

    pub fn pid(&self) -> i32 {
        self.inner.pid
    }

    pub fn dir(&self) -> &Path {
        &self.inner.dir
    }

    /// Waits for the end of the connection and says why: [`MonitorError::Dead`] or [`MonitorError::Disconnected`].
    pub async fn ended(&self) -> MonitorError {
        let mut end = self.inner.end.subscribe();
        let end = end.wait_for(Option::is_some).await.map(|end| *end);
        self.inner.ended_error(end.ok().flatten().unwrap_or(End::Dead))
    }

    /// Asks; many requests may be under way, and each is answered on its own.
    pub(super) async fn ask(
        &self,
        request: Request,
        fds: &[BorrowedFd<'_>],
    ) -> Result<Outcome, MonitorError> {
        let inner = &self.inner;
        let id = inner.next_id.fetch_add(1, Ordering::Relaxed);
        let packet =
            serde_json::to_vec(&Call { id, request }).map_err(|e| inner.io("encode a request", e.into()))?;
        if packet.len() > MAX_MESSAGE_BYTES {
            return Err(MonitorError::TooLong { bytes: packet.len(), limit: MAX_MESSAGE_BYTES });
        }
        let (sender, receiver) = oneshot::channel();
        {
            let mut waiting = inner.waiting();
            // On an ended connection the sender goes at once, and with it the hope of an answer.
            if waiting.ended {
                drop(sender);
            } else {
                waiting.calls.insert(id, sender);
            }
        }
        if let Err(error) = inner.send(&packet, fds).await
            && !matches!(error.kind(), io::ErrorKind::BrokenPipe | io::ErrorKind::ConnectionReset)
        {
            inner.waiting().calls.remove(&id);
            return Err(inner.io("write to the socket", error));
        }
        match receiver.await {
            Ok(answered) => Ok(answered?),
            Err(_) => Err(self.ended().await),
        }
    }
}

pub(super) type Outcome = (Answer, Vec<OwnedFd>, Option<oneshot::Receiver<Exit>>);

impl Inner {
    fn waiting(&self) -> MutexGuard<'_, Waiting> {
        self.waiting.lock().unwrap_or_else(PoisonError::into_inner)
    }

    pub(super) fn io(&self, what: &'static str, source: io::Error) -> MonitorError {
        MonitorError::Io { what, dir: self.dir.clone(), source }
    }

    fn ended_error(&self, end: End) -> MonitorError {
        let dir = self.dir.clone();
        match end {
            End::Dead => MonitorError::Dead { why: last_words(&dir), dir },
            End::Disconnected => MonitorError::Disconnected { dir, pid: self.pid },
        }
    }

    async fn send(&self, packet: &[u8], fds: &[BorrowedFd<'_>]) -> io::Result<()> {
        self.socket.async_io(Interest::WRITABLE, |fd| socket::send(fd, packet, fds)).await
    }

    /// False at the end of the connection.
    async fn receive(&self, events: &mpsc::UnboundedSender<Event>) -> io::Result<bool> {
        match self.socket.async_io(Interest::READABLE, |fd| socket::receive(fd.as_fd())).await? {
            Received::Packet(packet, fds) => match serde_json::from_slice(&packet)? {
                Message::Reply(reply) => self.answered(reply, fds),
                Message::Event(event) => self.happened(event, events),
            },
            Received::TooLong => return Err(io::ErrorKind::InvalidData.into()),
            Received::End => return Ok(false),
        }
        Ok(true)
    }

    fn answered(&self, reply: Reply, fds: Vec<OwnedFd>) {
        let mut waiting = self.waiting();
        // Registered before the next packet is read: the end of a process may be in it.
        let exited = match &reply.result {
            Ok(Answer::Executed { exec, .. }) => {
                let (sender, receiver) = oneshot::channel();
                waiting.execs.insert(*exec, sender);
                Some(receiver)
            }
            _ => None,
        };
        if let Some(caller) = waiting.calls.remove(&reply.id) {
            // A caller that has gone away does not want to know.
            let _ = caller.send(reply.result.map(|answer| (answer, fds, exited)));
        }
    }

    fn happened(&self, event: Event, events: &mpsc::UnboundedSender<Event>) {
        if let Event::ExecExited { exec, exit, .. } = &event
            && let Some(waiter) = self.waiting().execs.remove(exec)
        {
            let _ = waiter.send(*exit);
            return;
        }
        let _ = events.send(event);
    }

    fn finish(&self, end: End) {
        self.end.send_replace(Some(end));
        let mut waiting = self.waiting();
        waiting.ended = true;
        waiting.calls.clear();
        waiting.execs.clear();
    }
}

/// Reads until the connection ends, then finds out whether the monitor is dead.
async fn serve(
    inner: Arc<Inner>,
    pidfd: AsyncFd<OwnedFd>,
    events: mpsc::UnboundedSender<Event>,
    child: Option<tokio::process::Child>,
) {
    while inner.receive(&events).await.unwrap_or(false) {}
    let dead = tokio::time::timeout(DYING, pidfd.readable()).await.is_ok();
    inner.finish(if dead { End::Dead } else { End::Disconnected });
    drop(events);
    if let Some(mut child) = child {
        let _ = child.wait().await;
    }
}

#[expect(
    deprecated,
    reason = "unsound for a type that changes or shares its descriptor; OwnedFd does neither, and \
                               the successor is unsafe to call"
)]
fn watch(fd: OwnedFd, interest: Interest) -> io::Result<AsyncFd<OwnedFd>> {
    AsyncFd::with_interest(fd, interest)
}

/// What a dead monitor wrote last, for the error's text.
fn last_words(dir: &Path) -> String {
    let log = std::fs::read(Layout::new(dir).monitor_log()).unwrap_or_default();
    let tail = &log[log.len().saturating_sub(400)..];
    match String::from_utf8_lossy(tail).trim() {
        "" => String::new(),
        text => format!("; its last words: {text}"),
    }
}
