//! The receiving end of a watch: what was there first, what was missed, then what happens.

use std::collections::VecDeque;
use std::pin::Pin;
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::task::{Context, Poll};
use std::time::Duration;

use bytes::{Bytes, BytesMut};
use corten_store::{KeyValue, Revision};
use hyper::body::Frame;
use tokio::sync::mpsc::Receiver;
use tokio::time::{Instant, Sleep};

use super::stream::{Interest, Item, Joined};
use super::{EventType, encode};
use crate::api::BoxError;
use crate::status::{Result, Status};

/// Upstream's last bookmark comes so long before the end.
const LAST_BOOKMARK: Duration = Duration::from_secs(2);
/// Events that wait go out together up to so many bytes.
const PIECE_BYTES: usize = 64 << 10;

pub struct WatchBody {
    interest: Arc<Interest>,
    phase: Phase,
    joined: Option<Joined>,
    /// Changes up to here are told (or were never asked for).
    after: Revision,
    deadline: Instant,
    /// Until the last bookmark, then until the deadline.
    timer: Pin<Box<Sleep>>,
    last_bookmark_told: bool,
}

enum Phase {
    /// What was there when the watch began, and then the bookmark that ends it.
    Initial {
        items: VecDeque<Arc<KeyValue>>,
        bookmark: bool,
    },
    /// What happened between the revision asked for and the time of joining.
    Missed(Receiver<Result<Item>>),
    Live,
    Over,
}

impl WatchBody {
    /// What happens after revision `after`.
    pub fn live(interest: Arc<Interest>, joined: Joined, after: Revision, timeout: Duration) -> Self {
        let deadline = Instant::now() + timeout;
        let early = if timeout > LAST_BOOKMARK { deadline - LAST_BOOKMARK } else { deadline };
        Self {
            interest,
            phase: Phase::Live,
            joined: Some(joined),
            after,
            deadline,
            timer: Box::pin(tokio::time::sleep_until(early)),
            last_bookmark_told: timeout <= LAST_BOOKMARK,
        }
    }

    /// First what was there, at revision `after`. `bookmark`: and a bookmark that says that this was it.
    #[must_use]
    pub fn with_initial(self, items: Vec<Arc<KeyValue>>, bookmark: bool) -> Self {
        Self { phase: Phase::Initial { items: items.into(), bookmark }, ..self }
    }

    #[must_use]
    pub fn with_missed(self, missed: Receiver<Result<Item>>) -> Self {
        Self { phase: Phase::Missed(missed), ..self }
    }

    /// A table's columns are to be told with the next event.
    fn headers(&self) -> bool {
        let told = self.joined.as_ref().is_some_and(|joined| joined.headed.load(Ordering::Relaxed));
        !told && self.interest.encoder.has_headers()
    }

    fn told(&self) {
        if let Some(joined) = &self.joined {
            joined.headed.store(true, Ordering::Relaxed);
        }
    }

    /// What the first phases have. `None`: go on with the next phase.
    fn poll_first(&mut self, context: &mut Context<'_>) -> Poll<Option<Bytes>> {
        match &mut self.phase {
            Phase::Initial { .. } => Poll::Ready(self.initial()),
            Phase::Missed(missed) => match std::task::ready!(missed.poll_recv(context)) {
                Some(Ok((revision, bytes))) => {
                    self.after = self.after.max(revision);
                    self.told();
                    Poll::Ready(Some(bytes))
                }
                Some(Err(status)) => {
                    self.phase = Phase::Over;
                    Poll::Ready(Some(encode::error(&status)))
                }
                None => {
                    self.after = self.after.max(self.joined.as_ref().map_or(0, |joined| joined.since));
                    self.phase = Phase::Live;
                    Poll::Ready(None)
                }
            },
            Phase::Live | Phase::Over => Poll::Ready(None),
        }
    }

    fn initial(&mut self) -> Option<Bytes> {
        let mut bytes = BytesMut::new();
        while bytes.len() < PIECE_BYTES {
            let headers = self.headers();
            let Phase::Initial { items, bookmark } = &mut self.phase else { break };
            let Some(kv) = items.pop_front() else {
                if *bookmark {
                    bytes.extend_from_slice(&self.interest.encoder.bookmark(self.after, true, headers));
                    self.told();
                }
                self.phase = Phase::Live;
                break;
            };
            let length = bytes.len();
            let (added, revision) = (EventType::Added, kv.mod_revision);
            if let Err(status) = self.interest.encoder.write_event(added, &kv, revision, headers, &mut bytes)
            {
                bytes.truncate(length);
                bytes.extend_from_slice(&encode::error(&status));
                self.phase = Phase::Over;
                break;
            }
            self.told();
        }
        (!bytes.is_empty()).then(|| bytes.freeze())
    }

    fn poll_live(&mut self, context: &mut Context<'_>) -> Poll<Option<Bytes>> {
        let mut more: Option<BytesMut> = None;
        let mut first: Option<Bytes> = None;
        let Some(joined) = &mut self.joined else { return Poll::Ready(None) };
        loop {
            let (revision, bytes) = match joined.queue.poll_recv(context) {
                Poll::Ready(Some(item)) => item,
                Poll::Ready(None) if first.is_none() => return Poll::Ready(None),
                Poll::Pending if first.is_none() => return Poll::Pending,
                Poll::Ready(None) | Poll::Pending => break,
            };
            if revision < self.after || (revision == self.after && !is_bookmark(&bytes)) {
                continue;
            }
            match (&first, &mut more) {
                (None, _) => first = Some(bytes),
                (Some(_), Some(more)) => more.extend_from_slice(&bytes),
                (Some(one), None) => {
                    let mut both = BytesMut::with_capacity(one.len() + bytes.len() + 4096);
                    both.extend_from_slice(one);
                    both.extend_from_slice(&bytes);
                    more = Some(both);
                }
            }
            if more.as_ref().is_some_and(|more| more.len() >= PIECE_BYTES) {
                break;
            }
        }
        joined.headed.store(true, Ordering::Relaxed);
        Poll::Ready(more.map(BytesMut::freeze).or(first))
    }

    /// `Some`: the time has come for a last bookmark, or (`None` within) for the end.
    fn poll_timer(&mut self, context: &mut Context<'_>) -> Poll<Option<Bytes>> {
        loop {
            std::task::ready!(self.timer.as_mut().poll(context));
            if self.last_bookmark_told {
                self.phase = Phase::Over;
                return Poll::Ready(None);
            }
            self.last_bookmark_told = true;
            let deadline = self.deadline;
            self.timer.as_mut().reset(deadline);
            if self.interest.options.bookmarks && matches!(self.phase, Phase::Live) {
                let Some(joined) = &self.joined else { continue };
                // Read before the queue is seen to be empty: all up to here was in it.
                let progress = joined.progress();
                if joined.queue.is_empty() && progress >= self.after {
                    let headers = self.headers();
                    return Poll::Ready(Some(self.interest.encoder.bookmark(progress, false, headers)));
                }
            }
        }
    }
}

fn is_bookmark(bytes: &[u8]) -> bool {
    bytes.starts_with(b"{\"type\":\"BOOKMARK\"")
}

impl hyper::body::Body for WatchBody {
    type Data = Bytes;
    type Error = BoxError;

    fn poll_frame(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, BoxError>>> {
        loop {
            let next = match self.phase {
                Phase::Over => return Poll::Ready(None),
                Phase::Initial { .. } | Phase::Missed(_) => match self.poll_first(context) {
                    Poll::Ready(None) => continue,
                    other => other,
                },
                Phase::Live => self.poll_live(context),
            };
            return match next {
                Poll::Ready(Some(bytes)) => Poll::Ready(Some(Ok(Frame::data(bytes)))),
                Poll::Ready(None) => Poll::Ready(None),
                Poll::Pending => self.poll_timer(context).map(|bytes| Some(Ok(Frame::data(bytes?)))),
            };
        }
    }
}

/// A watch that cannot begin: an answer of one event.
pub fn refused(status: &Status) -> Bytes {
    encode::error(status)
}
