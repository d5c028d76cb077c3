//! A connection: one task reads and one writes, streams and the owner talk to them.

use std::collections::HashMap;
use std::sync::atomic::{AtomicU32, AtomicU64, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use bytes::{Bytes, BytesMut};
use tokio::io::{AsyncRead, AsyncReadExt, AsyncWrite, AsyncWriteExt, ReadHalf, WriteHalf};
use tokio::sync::{mpsc, oneshot, watch};
use tokio::time::Instant;

use super::frame::{Control, HEAD, Head, Reset, data_head};
use super::headers::{Deflater, Headers, Inflater};
use super::stream::{OpenError, Stream, Writer};
use crate::Closed;

/// How many pieces of a stream wait for who reads it, before the connection is no longer read.
const INPUT_QUEUE: usize = 32;
/// A piece of a stream.
const PIECE: usize = 32 << 10;
const OUTPUT_QUEUE: usize = 16;
const INCOMING_QUEUE: usize = 16;
const OPEN_TIMEOUT: Duration = Duration::from_secs(30);
/// For what is still to be written when a connection is closed.
const FLUSH_TIMEOUT: Duration = Duration::from_secs(10);

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Side {
    /// Opens streams with odd numbers.
    Client,
    Server,
}

#[derive(Debug, Clone, Copy)]
pub struct Config {
    pub side: Side,
    /// A connection without a frame for so long is closed.
    pub idle: Option<Duration>,
    /// So often a ping is sent.
    pub ping: Option<Duration>,
    /// More are refused.
    pub max_streams: usize,
}

impl Config {
    /// As the kubelet and clients of it have it: four hours of silence.
    pub fn new(side: Side) -> Self {
        Self { side, idle: Some(Duration::from_hours(4)), ping: None, max_streams: 1024 }
    }
}

/// Dropped, it ends the connection and with it all streams.
pub struct Connection {
    shared: Arc<Shared>,
    incoming: mpsc::Receiver<Incoming>,
    writer: Option<tokio::task::JoinHandle<()>>,
}

/// A stream that the peer wants; dropped without an answer, it is refused.
pub struct Incoming {
    pub id: u32,
    pub headers: Headers,
    stream: Option<Stream>,
}

pub(super) enum Out {
    Control(Control),
    Data { stream: u32, fin: bool, bytes: Bytes },
    Close,
}

pub(super) struct Shared {
    streams: Mutex<HashMap<u32, Entry>>,
    out: mpsc::Sender<Out>,
    closed: watch::Sender<bool>,
    next_id: AtomicU32,
    last_received: AtomicU32,
    start: Instant,
    /// Milliseconds after `start` at which the last frame came or went.
    active: AtomicU64,
}

struct Entry {
    /// `None`: the peer has finished.
    input: Option<mpsc::Sender<Bytes>>,
    local_finished: bool,
    reply: Option<oneshot::Sender<Result<(), Reset>>>,
}

impl Connection {
    pub fn new<T>(io: T, config: Config) -> Self
    where
        T: AsyncRead + AsyncWrite + Send + 'static,
    {
        let (out, outgoing) = mpsc::channel(OUTPUT_QUEUE);
        let (arrived, incoming) = mpsc::channel(INCOMING_QUEUE);
        let next_id = if config.side == Side::Client { 1 } else { 2 };
        let shared = Arc::new(Shared {
            streams: Mutex::default(),
            out,
            closed: watch::Sender::new(false),
            next_id: AtomicU32::new(next_id),
            last_received: AtomicU32::new(0),
            start: Instant::now(),
            active: AtomicU64::new(0),
        });
        let (read, write) = tokio::io::split(io);
        tokio::spawn(Reader::new(read, Arc::clone(&shared), config).run(arrived));
        let writer = tokio::spawn(write_frames(write, Arc::clone(&shared), outgoing));
        if let Some(period) = config.ping {
            tokio::spawn(ping(Arc::clone(&shared), period, config.side));
        }
        Self { shared, incoming, writer: Some(writer) }
    }

    /// The next stream that the peer opens; `None`: the connection is over.
    pub async fn accept(&mut self) -> Option<Incoming> {
        self.incoming.recv().await
    }

    /// Refuses every stream that the peer opens from now on.
    pub fn refuse_more(&mut self) {
        self.incoming.close();
    }

    /// Opens a stream and waits until the peer has taken it.
    pub async fn open(&self, headers: Headers) -> Result<Stream, OpenError> {
        let (input, received) = mpsc::channel(INPUT_QUEUE);
        let (reply, replied) = oneshot::channel();
        let id = {
            // Numbers grow in the order in which they are sent.
            let permit = self.shared.out.reserve().await.map_err(|_| OpenError::Closed)?;
            let mut streams = self.shared.streams();
            if *self.shared.closed.borrow() {
                return Err(OpenError::Closed);
            }
            let id = self.shared.next_id.fetch_add(2, Ordering::Relaxed);
            streams.insert(id, Entry { input: Some(input), local_finished: false, reply: Some(reply) });
            permit.send(Out::Control(Control::SynStream {
                stream: id,
                associated: 0,
                fin: false,
                unidirectional: false,
                headers,
            }));
            id
        };
        let output = Writer { shared: Arc::clone(&self.shared), id, finished: false };
        match tokio::time::timeout(OPEN_TIMEOUT, replied).await {
            Ok(Ok(Ok(()))) => Ok(Stream { input: received, output }),
            Ok(Ok(Err(_))) => Err(OpenError::Reset),
            Ok(Err(_)) => Err(OpenError::Closed),
            Err(_) => Err(OpenError::Timeout),
        }
    }

    /// Ends when the connection is over.
    pub async fn closed(&self) {
        let mut closed = self.shared.closed.subscribe();
        let _ = closed.wait_for(|closed| *closed).await;
    }

    /// Resets what is still open, says goodbye and waits until that is written.
    pub async fn close(mut self) {
        let ids: Vec<u32> = self.shared.streams().keys().copied().collect();
        let farewell = async {
            for stream in ids {
                self.shared.forget(stream);
                self.shared.send(Out::Control(Control::RstStream { stream, status: Reset::Cancel })).await?;
            }
            let last_good = self.shared.last_received.load(Ordering::Relaxed);
            self.shared.send(Out::Control(Control::GoAway { last_good, status: 0 })).await?;
            self.shared.send(Out::Close).await
        };
        let writer = self.writer.take();
        let _ = tokio::time::timeout(FLUSH_TIMEOUT, async {
            let _ = farewell.await;
            if let Some(writer) = writer {
                let _ = writer.await;
            }
        })
        .await;
        self.shared.end();
    }
}

impl Drop for Connection {
    fn drop(&mut self) {
        self.shared.end();
    }
}

impl Incoming {
    /// Takes the stream.
    ///
    /// # Errors
    /// The peer is gone.
    pub async fn accept(mut self) -> Result<Stream, Closed> {
        let stream = self.stream.take().ok_or(Closed)?;
        let reply = Control::SynReply { stream: self.id, fin: false, headers: Headers::default() };
        stream.output.shared.send(Out::Control(reply)).await?;
        Ok(stream)
    }

    pub fn refuse(mut self, status: Reset) {
        if let Some(stream) = self.stream.take() {
            stream.output.reset(status);
        }
    }
}

impl Shared {
    fn streams(&self) -> MutexGuard<'_, HashMap<u32, Entry>> {
        self.streams.lock().unwrap_or_else(PoisonError::into_inner)
    }

    pub(super) fn has(&self, stream: u32) -> bool {
        self.streams().contains_key(&stream)
    }

    pub(super) fn forget(&self, stream: u32) {
        self.streams().remove(&stream);
    }

    pub(super) async fn send(&self, out: Out) -> Result<(), Closed> {
        let mut closed = self.closed.subscribe();
        tokio::select! {
            sent = self.out.send(out) => sent.map_err(|_| Closed),
            _ = closed.wait_for(|closed| *closed) => Err(Closed),
        }
    }

    /// From where nothing may wait.
    pub(super) fn send_later(self: &Arc<Self>, out: Out) {
        if let Err(mpsc::error::TrySendError::Full(out)) = self.out.try_send(out)
            && let Ok(runtime) = tokio::runtime::Handle::try_current()
        {
            let shared = Arc::clone(self);
            runtime.spawn(async move { shared.send(out).await });
        }
    }

    pub(super) fn finish_local(&self, stream: u32) {
        let mut streams = self.streams();
        if let Some(entry) = streams.get_mut(&stream) {
            entry.local_finished = true;
            if entry.input.is_none() {
                streams.remove(&stream);
            }
        }
    }

    fn finish_remote(&self, stream: u32) {
        let mut streams = self.streams();
        if let Some(entry) = streams.get_mut(&stream) {
            entry.input = None;
            if entry.local_finished {
                streams.remove(&stream);
            }
        }
    }

    /// Lets go of everything that waits for the connection.
    fn end(&self) {
        self.closed.send_replace(true);
        self.streams().clear();
    }

    fn touch(&self) {
        self.active.store(self.start.elapsed().as_millis() as u64, Ordering::Relaxed);
    }
}

async fn write_frames<T: AsyncWrite>(
    mut write: WriteHalf<T>,
    shared: Arc<Shared>,
    mut outgoing: mpsc::Receiver<Out>,
) {
    let (mut buffer, mut deflater) = (Vec::with_capacity(PIECE), Deflater::default());
    let mut closed = shared.closed.subscribe();
    let work = async {
        while let Some(first) = outgoing.recv().await {
            // What is waiting goes in one write.
            let mut next = Some(first);
            let mut last = false;
            while let Some(out) = next {
                match out {
                    Out::Control(control) => control.write(&mut buffer, &mut deflater),
                    Out::Data { stream, fin, bytes } => {
                        buffer.extend_from_slice(&data_head(stream, fin, bytes.len()));
                        buffer.extend_from_slice(&bytes);
                    }
                    Out::Close => last = true,
                }
                next = if last || buffer.len() > 2 * PIECE { None } else { outgoing.try_recv().ok() };
            }
            write.write_all(&buffer).await?;
            write.flush().await?;
            buffer.clear();
            shared.touch();
            if last {
                break;
            }
        }
        write.shutdown().await
    };
    tokio::select! {
        _ = work => {}
        _ = closed.wait_for(|closed| *closed) => {}
    }
    shared.end();
}

async fn ping(shared: Arc<Shared>, period: Duration, side: Side) {
    let mut id: u32 = if side == Side::Client { 1 } else { 2 };
    let mut closed = shared.closed.subscribe();
    loop {
        tokio::select! {
            () = tokio::time::sleep(period) => {}
            _ = closed.wait_for(|closed| *closed) => return,
        }
        if shared.send(Out::Control(Control::Ping(id))).await.is_err() {
            return;
        }
        id = id.wrapping_add(2) & 0x7fff_ffff;
    }
}

/// Reads frames and gives them to whom they are for.
struct Reader<T> {
    read: tokio::io::BufReader<ReadHalf<T>>,
    shared: Arc<Shared>,
    config: Config,
    inflater: Inflater,
    /// Below it the peer's numbers are used up.
    next_received: u32,
}

/// Nothing more is read.
struct Over;

impl<T: AsyncRead> Reader<T> {
    fn new(read: ReadHalf<T>, shared: Arc<Shared>, config: Config) -> Self {
        let next_received = if config.side == Side::Server { 1 } else { 2 };
        let read = tokio::io::BufReader::with_capacity(PIECE, read);
        Self { read, shared, config, inflater: Inflater::default(), next_received }
    }

    async fn run(mut self, arrived: mpsc::Sender<Incoming>) {
        let shared = Arc::clone(&self.shared);
        let mut closed = shared.closed.subscribe();
        let idle = watch_idle(Arc::clone(&shared), self.config.idle);
        let work = async { while self.frame(&arrived).await.is_ok() {} };
        tokio::select! {
            () = work => {}
            () = idle => {}
            _ = closed.wait_for(|closed| *closed) => {}
        }
        shared.end();
    }

    async fn frame(&mut self, arrived: &mpsc::Sender<Incoming>) -> Result<(), Over> {
        let mut head = [0; HEAD];
        self.read.read_exact(&mut head).await.map_err(|_| Over)?;
        self.shared.touch();
        match Head::parse(head).map_err(|_| Over)? {
            Head::Data { stream, fin, length } => self.data(stream, fin, length).await,
            Head::Control { kind, flags, length } => {
                let mut payload = vec![0; length];
                self.read.read_exact(&mut payload).await.map_err(|_| Over)?;
                let control = Control::parse(kind, flags, &payload, &mut self.inflater).map_err(|_| Over)?;
                self.control(control, arrived).await
            }
        }
    }

    /// In pieces: a frame may be longer than anybody wants to hold.
    async fn data(&mut self, stream: u32, fin: bool, mut length: usize) -> Result<(), Over> {
        let input = self.shared.streams().get(&stream).and_then(|entry| entry.input.clone());
        while length > 0 {
            let mut piece = BytesMut::with_capacity(length.min(PIECE));
            let mut limited = (&mut self.read).take(length.min(PIECE) as u64);
            if limited.read_buf(&mut piece).await.map_err(|_| Over)? == 0 {
                return Err(Over);
            }
            length -= piece.len();
            self.shared.touch();
            if let Some(input) = &input {
                // Nobody reads it any more: so be it.
                let _ = input.send(piece.freeze()).await;
            }
        }
        if fin {
            self.shared.finish_remote(stream);
        }
        Ok(())
    }

    async fn control(&mut self, control: Control, arrived: &mpsc::Sender<Incoming>) -> Result<(), Over> {
        match control {
            Control::SynStream { stream, fin, unidirectional, headers, .. } => {
                self.syn_stream(stream, fin, unidirectional, headers, arrived).await
            }
            Control::SynReply { stream, fin, .. } => {
                let reply = self.shared.streams().get_mut(&stream).and_then(|entry| entry.reply.take());
                if let Some(reply) = reply {
                    let _ = reply.send(Ok(()));
                }
                if fin {
                    self.shared.finish_remote(stream);
                }
                Ok(())
            }
            Control::RstStream { stream, status } => {
                if let Some(reply) = self.shared.streams().remove(&stream).and_then(|entry| entry.reply) {
                    let _ = reply.send(Err(status));
                }
                Ok(())
            }
            Control::Headers { stream, fin, .. } => {
                if fin {
                    self.shared.finish_remote(stream);
                }
                Ok(())
            }
            // Those with our parity are answers to our own.
            Control::Ping(id) if (id & 1 == 1) == (self.config.side == Side::Server) => {
                self.shared.send(Out::Control(Control::Ping(id))).await.map_err(|_| Over)
            }
            Control::Ping(_) | Control::Settings(_) | Control::WindowUpdate { .. } => Ok(()),
            Control::GoAway { .. } => Err(Over),
        }
    }

    async fn syn_stream(
        &mut self,
        stream: u32,
        fin: bool,
        unidirectional: bool,
        headers: Headers,
        arrived: &mpsc::Sender<Incoming>,
    ) -> Result<(), Over> {
        let theirs = (stream & 1 == 1) == (self.config.side == Side::Server);
        let refused = if !theirs || stream < self.next_received {
            Some(Reset::ProtocolError)
        } else if self.shared.streams().len() >= self.config.max_streams {
            Some(Reset::Refused)
        } else {
            None
        };
        if let Some(status) = refused {
            let reset = Control::RstStream { stream, status };
            return self.shared.send(Out::Control(reset)).await.map_err(|_| Over);
        }
        self.next_received = stream + 2;
        self.shared.last_received.store(stream, Ordering::Relaxed);
        let (input, received) = mpsc::channel(INPUT_QUEUE);
        let entry = Entry { input: (!fin).then_some(input), local_finished: unidirectional, reply: None };
        self.shared.streams().insert(stream, entry);
        let output = Writer { shared: Arc::clone(&self.shared), id: stream, finished: unidirectional };
        let stream = Stream { input: received, output };
        let incoming = Incoming { id: stream.output.id, headers, stream: Some(stream) };
        // Nobody accepts streams any more: dropped, it is refused.
        let _ = arrived.send(incoming).await;
        Ok(())
    }
}

async fn watch_idle(shared: Arc<Shared>, idle: Option<Duration>) {
    let Some(idle) = idle else { return std::future::pending().await };
    loop {
        let active = shared.start + Duration::from_millis(shared.active.load(Ordering::Relaxed));
        let deadline = active + idle;
        if deadline <= Instant::now() {
            return;
        }
        tokio::time::sleep_until(deadline).await;
    }
}
