//! One watch: first what is history, then what the hub tells; again history when it was too slow for the hub.

use std::sync::Arc;

use super::hub::{Heard, Seat};
use super::{Shared, locked, read};
use crate::StoreError;
use crate::api::{Answer, Change, Keys, Revision, Told, Watcher};
use crate::engine::Record;

/// Changes and records that are read from history at a time.
const CHUNK: usize = 128;

pub struct Watch {
    shared: Arc<Shared>,
    keys: Keys,
    place: Place,
    asked_progress: bool,
}

enum Place {
    /// To be told from this revision on.
    Behind(Revision),
    Seated(Arc<Seat>),
}

impl Watch {
    pub fn open(shared: &Arc<Shared>, keys: Keys, from: Option<Revision>) -> Result<Self, StoreError> {
        let state = read(&shared.state);
        if let Some(from) = from {
            state.from(from)?;
        }
        let from = from.unwrap_or(state.revision + 1);
        drop(state);
        let mut watch =
            Self { shared: shared.clone(), keys, place: Place::Behind(from), asked_progress: false };
        // So that an idle watch has its seat without being polled.
        watch.sit(from);
        Ok(watch)
    }

    /// Takes a seat, if everything before `from` is published.
    fn sit(&mut self, from: Revision) -> bool {
        let mut hub = locked(&self.shared.hub);
        if from <= hub.published {
            return false;
        }
        let seat = Seat::new(from);
        hub.seat(&self.keys, seat.clone());
        self.place = Place::Seated(seat);
        true
    }

    async fn tell(&mut self) -> Result<Told, StoreError> {
        loop {
            match &self.place {
                Place::Behind(from) => {
                    let from = *from;
                    let (changes, next) = self.shared.history(&self.keys, from).await?;
                    if !self.sit(next.max(from)) {
                        self.place = Place::Behind(next);
                    }
                    if !changes.is_empty() {
                        return Ok(Told::Changes(changes));
                    }
                }
                Place::Seated(seat) => {
                    let seat = seat.clone();
                    match seat.take() {
                        Heard::Changes(changes) => return Ok(Told::Changes(changes)),
                        Heard::Lost(resume) => self.place = Place::Behind(resume),
                        Heard::Nothing => {
                            if let Some(told) = self.idle(&seat)? {
                                return Ok(told);
                            }
                            seat.arrived.notified().await;
                        }
                    }
                }
            }
        }
    }

    /// Nothing was in the queue; says so, if that was asked.
    fn idle(&mut self, seat: &Seat) -> Result<Option<Told>, StoreError> {
        let hub = locked(&self.shared.hub);
        if hub.closed {
            return Err(StoreError::Closed);
        }
        // While the hub is held nothing arrives.
        let waiting = locked(&seat.waiting);
        if self.asked_progress && waiting.queue.is_empty() && waiting.resume.is_none() {
            self.asked_progress = false;
            return Ok(Some(Told::Progress(hub.published)));
        }
        if !waiting.queue.is_empty() || waiting.resume.is_some() {
            seat.arrived.notify_one();
        }
        Ok(None)
    }
}

impl Watcher for Watch {
    fn next(&mut self) -> Answer<'_, Told> {
        Box::pin(self.tell())
    }

    fn ask_progress(&mut self) -> Answer<'_, ()> {
        self.asked_progress = true;
        Box::pin(std::future::ready(Ok(())))
    }
}

impl Drop for Watch {
    fn drop(&mut self) {
        if let Place::Seated(seat) = &self.place {
            locked(&self.shared.hub).leave(&self.keys, seat);
        }
    }
}

impl Shared {
    /// Some changes of `keys` from a revision on, and where to go on.
    async fn history(
        self: &Arc<Self>,
        keys: &Keys,
        from: Revision,
    ) -> Result<(Vec<Arc<Change>>, Revision), StoreError> {
        let start = match self.recent(keys, from)? {
            Ok(recent) => return Ok(recent),
            Err(start) => start,
        };
        let (shared, keys) = (self.clone(), keys.clone());
        let scan = tokio::task::spawn_blocking(move || shared.scan(&keys, from, start));
        let found = scan.await.map_err(|_| StoreError::Closed)??;
        // Compacted meanwhile: some records may have been gone already.
        read(&self.state).from(from)?;
        Ok(found)
    }

    /// From the window; or where that begins.
    #[expect(clippy::type_complexity, reason = "said in the line above")]
    fn recent(
        &self,
        keys: &Keys,
        from: Revision,
    ) -> Result<Result<(Vec<Arc<Change>>, Revision), Revision>, StoreError> {
        let state = read(&self.state);
        state.from(from)?;
        if from < state.window.start() {
            return Ok(Err(state.window.start()));
        }
        let (changes, next) = state.window.changes(keys, from, CHUNK);
        Ok(Ok((changes, next.unwrap_or(state.revision + 1))))
    }

    /// The same from the engine, which has all before `end`.
    fn scan(
        &self,
        keys: &Keys,
        from: Revision,
        end: Revision,
    ) -> Result<(Vec<Arc<Change>>, Revision), StoreError> {
        let records = self.engine.scan(from, CHUNK)?;
        let next = match records.last() {
            Some((last, _)) if records.len() == CHUNK => end.min(last + 1),
            _ => end,
        };
        let mut found = Vec::new();
        for (revision, record) in records.into_iter().take_while(|(revision, _)| *revision < end) {
            match &*record {
                Record::Put { kv, previous } if keys.contain(&kv.key) => {
                    found.push((revision, kv.key.clone(), Some(kv.clone()), *previous));
                }
                Record::Put { .. } => {}
                Record::Delete(deleted) => {
                    let ours = deleted.iter().filter(|(key, _)| keys.contain(key));
                    found.extend(ours.map(|(key, previous)| (revision, key.clone(), None, *previous)));
                }
            }
        }
        let before: Vec<_> = found.iter().map(|(.., previous)| *previous).collect();
        let before = self.fetch(&before)?;
        let change = |((revision, key, kv, _), previous)| {
            Arc::new(match kv {
                Some(kv) => Change::Put { kv, previous },
                None => Change::Delete { key, revision, previous },
            })
        };
        Ok((found.into_iter().zip(before).map(change).collect(), next))
    }
}
