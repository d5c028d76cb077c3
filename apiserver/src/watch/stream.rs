//! All watchers of one prefix of the store, and the one watch that feeds them.

use std::borrow::Cow;
use std::cell::OnceCell;
use std::collections::BTreeMap;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use bytes::Bytes;
use corten_store::{Change, KeyValue, Revision};
use tokio::sync::mpsc::error::TrySendError;
use tokio::sync::mpsc::{Receiver, Sender, channel};

use super::{Encoder, EventType, transition};
use crate::object::Object;
use crate::request::ListOptions;
use crate::stored::Form;
use crate::verbs::selects;

/// Events that may wait for a slow client; with more it is cut off, and comes back for what it missed.
const QUEUE: usize = 1000;

/// Which keys of the prefix somebody watches.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Scope {
    /// All with this beginning, which is the stream's own or longer.
    Prefix(Bytes),
    Key(Bytes),
}

impl Scope {
    fn contains(&self, key: &[u8]) -> bool {
        match self {
            Self::Prefix(prefix) => key.starts_with(prefix),
            Self::Key(one) => key == one,
        }
    }
}

/// What somebody wants to see, and how.
pub struct Interest {
    pub scope: Scope,
    pub options: ListOptions,
    pub encoder: Arc<Encoder>,
}

impl Interest {
    pub fn selects_all(&self) -> bool {
        self.options.labels.is_empty() && self.options.fields.is_empty()
    }

    /// What a change is to this watcher. `objects`: its object after and before, parsed when somebody asks.
    fn sees(&self, change: &Change, objects: &Parsed<'_>) -> Option<EventType> {
        let (was, is) = match change {
            Change::Put { kv, previous } => (previous.is_some() || kv.version > 1, true),
            Change::Delete { .. } => (true, false),
        };
        if self.selects_all() {
            return transition(was, is);
        }
        let form = self.encoder.form();
        let selected = |object: Option<Cow<'_, Object>>| {
            object.is_some_and(|object| selects(&self.options, self.encoder.served(), &object))
        };
        transition(was && selected(objects.previous(form)), is && selected(objects.current(form)))
    }
}

/// The bytes of an event, and the revision that it brings its reader to.
pub type Item = (Revision, Bytes);

struct Watcher {
    interest: Arc<Interest>,
    /// Its place in [`Watchers::encoders`].
    encoder: usize,
    queue: Sender<Item>,
    /// Its table's columns have reached it.
    headed: Arc<AtomicBool>,
}

impl Watcher {
    fn needs_headers(&self) -> bool {
        !self.headed.load(Ordering::Relaxed)
    }
}

#[derive(Default)]
struct Watchers {
    next: u64,
    all: BTreeMap<u64, Watcher>,
    /// Each form once.
    encoders: Vec<Arc<Encoder>>,
    /// All changes up to here are handed out.
    progress: Revision,
    /// Nobody can join any more.
    over: bool,
}

impl Watchers {
    /// In the place of a form that nobody wants any more, where there is one.
    fn add(&mut self, encoder: &Arc<Encoder>) -> usize {
        let unused = |at: &usize| !self.all.values().any(|watcher| watcher.encoder == *at);
        if let Some(at) = (0..self.encoders.len()).find(unused) {
            self.encoders[at] = Arc::clone(encoder);
            return at;
        }
        self.encoders.push(Arc::clone(encoder));
        self.encoders.len() - 1
    }
}

/// The watchers of one prefix.
pub struct Stream {
    watchers: Mutex<Watchers>,
}

/// A place among the watchers; dropping it gives it up.
pub struct Joined {
    stream: Arc<Stream>,
    id: u64,
    pub queue: Receiver<Item>,
    /// To be set once a table's columns are told.
    pub headed: Arc<AtomicBool>,
    /// Later changes come through the queue; earlier ones do not.
    pub since: Revision,
}

impl Drop for Joined {
    fn drop(&mut self) {
        self.stream.lock().all.remove(&self.id);
    }
}

impl Joined {
    /// Everything up to here is in the queue or was before it.
    pub fn progress(&self) -> Revision {
        self.stream.lock().progress
    }
}

impl Stream {
    pub fn new(progress: Revision) -> Arc<Self> {
        Arc::new(Self { watchers: Mutex::new(Watchers { progress, ..Watchers::default() }) })
    }

    fn lock(&self) -> MutexGuard<'_, Watchers> {
        self.watchers.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// `None`: the stream is over.
    pub fn join(self: &Arc<Self>, interest: &Arc<Interest>) -> Option<Joined> {
        let mut watchers = self.lock();
        if watchers.over {
            return None;
        }
        let encoder = watchers.encoders.iter().position(|encoder| encoder.is_like(&interest.encoder));
        let encoder = encoder.unwrap_or_else(|| watchers.add(&interest.encoder));
        let (queue, receiver) = channel(QUEUE);
        let id = watchers.next;
        watchers.next += 1;
        let headed = Arc::new(AtomicBool::new(false));
        let (interest, told) = (Arc::clone(interest), Arc::clone(&headed));
        watchers.all.insert(id, Watcher { interest, encoder, queue, headed: told });
        Some(Joined { stream: Arc::clone(self), id, queue: receiver, headed, since: watchers.progress })
    }

    /// Hands changes to those who watch them. `false`: nobody watches any more, and nobody can.
    pub fn tell(&self, changes: &[Arc<Change>]) -> bool {
        let mut watchers = self.lock();
        let Watchers { all, encoders, progress, .. } = &mut *watchers;
        let mut cut = Vec::new();
        for change in changes {
            let mut encoded: Vec<(usize, EventType, bool, Option<Bytes>)> = Vec::new();
            let parsed = Parsed::of(change, encoders);
            for (id, watcher) in all.iter().filter(|(_, one)| one.interest.scope.contains(change.key())) {
                let Some(kind) = watcher.interest.sees(change, &parsed) else { continue };
                let headers = watcher.needs_headers() && encoders[watcher.encoder].has_headers();
                let form = (watcher.encoder, kind, headers);
                let known =
                    encoded.iter().find(|&&(encoder, kind, headers, _)| (encoder, kind, headers) == form);
                let bytes = if let Some((.., bytes)) = known {
                    bytes.clone()
                } else {
                    let bytes = encode(&encoders[watcher.encoder], kind, change, headers);
                    encoded.push((form.0, form.1, form.2, bytes.clone()));
                    bytes
                };
                let sent = bytes.map(|bytes| watcher.queue.try_send((change.revision(), bytes)));
                // Full: too slow. Closed: gone. None: what was there before is lost to us.
                if !matches!(sent, Some(Ok(()))) {
                    if let Some(Err(TrySendError::Full(_))) = sent {
                        tracing::debug!("a watch is cut off: its client does not read");
                    }
                    cut.push(*id);
                }
            }
            *progress = change.revision();
        }
        for id in cut {
            all.remove(&id);
        }
        self.end_when_alone(&mut watchers)
    }

    /// All changes up to `revision` are told: says so to who wants bookmarks.
    pub fn tell_progress(&self, revision: Revision) -> bool {
        let mut watchers = self.lock();
        watchers.progress = watchers.progress.max(revision);
        let Watchers { all, encoders, progress, .. } = &mut *watchers;
        let mut encoded: Vec<Option<Bytes>> = vec![None; encoders.len()];
        for watcher in all.values().filter(|watcher| watcher.interest.options.bookmarks) {
            let bytes = encoded[watcher.encoder].get_or_insert_with(|| {
                encoders[watcher.encoder].bookmark(*progress, false, watcher.needs_headers())
            });
            // A queue that is full has no use for it.
            let _ = watcher.queue.try_send((*progress, bytes.clone()));
        }
        self.end_when_alone(&mut watchers)
    }

    #[expect(clippy::unused_self, reason = "the guard is this stream's")]
    fn end_when_alone(&self, watchers: &mut MutexGuard<'_, Watchers>) -> bool {
        watchers.over |= watchers.all.is_empty();
        !watchers.over
    }

    pub fn wants_bookmarks(&self) -> bool {
        self.lock().all.values().any(|watcher| watcher.interest.options.bookmarks)
    }

    /// Ends all watches; their clients come back with what they have seen.
    pub fn end(&self) {
        let mut watchers = self.lock();
        watchers.over = true;
        watchers.all.clear();
    }

    pub fn is_over(&self) -> bool {
        self.lock().over
    }

    pub fn len(&self) -> usize {
        self.lock().all.len()
    }
}

fn encode(encoder: &Encoder, kind: EventType, change: &Change, headers: bool) -> Option<Bytes> {
    let kv = match (kind, change) {
        // Also of an object that is no longer selected: as it was, at the revision of the change.
        (EventType::Deleted, _) => change.previous()?,
        (_, Change::Put { kv, .. }) => kv,
        (_, Change::Delete { .. }) => return None,
    };
    let event = encoder.event(kind, kv, change.revision(), headers);
    event.inspect_err(|status| tracing::warn!("a change cannot be told: {status}")).ok()
}

/// The objects of a change, each parsed at most once (in the first of the versions that are watched; there is rarely
/// another).
struct Parsed<'a> {
    form: Option<&'a Form>,
    change: &'a Change,
    current: OnceCell<Option<Object>>,
    previous: OnceCell<Option<Object>>,
}

impl<'a> Parsed<'a> {
    fn of(change: &'a Change, encoders: &'a [Arc<Encoder>]) -> Self {
        let form = encoders.first().map(|encoder| encoder.form());
        Self { form, change, current: OnceCell::new(), previous: OnceCell::new() }
    }

    fn current(&self, form: &Form) -> Option<Cow<'_, Object>> {
        match self.change {
            Change::Put { kv, .. } => self.parsed(&self.current, kv, form),
            Change::Delete { .. } => None,
        }
    }

    fn previous(&self, form: &Form) -> Option<Cow<'_, Object>> {
        self.parsed(&self.previous, self.change.previous()?, form)
    }

    fn parsed<'c>(
        &self,
        cell: &'c OnceCell<Option<Object>>,
        kv: &KeyValue,
        form: &Form,
    ) -> Option<Cow<'c, Object>> {
        let parse = || form.object(kv, kv.mod_revision).ok();
        if self.form.is_some_and(|first| Arc::ptr_eq(&first.served, &form.served)) {
            return cell.get_or_init(parse).as_ref().map(Cow::Borrowed);
        }
        parse().map(Cow::Owned)
    }
}

/// One change as one watcher sees it, where it is told to this watcher alone.
pub fn told_alone(interest: &Interest, change: &Change, headers: bool) -> Option<Item> {
    if !interest.scope.contains(change.key()) {
        return None;
    }
    let encoders = [Arc::clone(&interest.encoder)];
    let kind = interest.sees(change, &Parsed::of(change, &encoders))?;
    Some((change.revision(), encode(&interest.encoder, kind, change, headers)?))
}
