//! Following changes.

use tokio::sync::mpsc;
use tokio_stream::wrappers::ReceiverStream;
use tonic::Streaming;

use crate::client::Link;
use crate::proto::event::EventType;
use crate::proto::watch_client::WatchClient;
use crate::proto::watch_request::RequestUnion;
use crate::proto::{Event, WatchCreateRequest, WatchProgressRequest, WatchRequest, WatchResponse};
use crate::{Client, EtcdError, KeyRange, KeyValue, Revision};

/// What to follow.
#[derive(Debug, Clone)]
pub struct Watch {
    pub keys: KeyRange,
    /// The first revision to be told of: the one after a [`crate::Page`]'s. The present one's successor unless given.
    pub start: Option<Revision>,
    /// With each change what was there before.
    pub previous: bool,
    /// Be told of the revision reached when nothing happens for long (about 10 min).
    pub progress: bool,
}

impl Watch {
    pub fn new(keys: KeyRange) -> Self {
        Self { keys, start: None, previous: false, progress: false }
    }
}

#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Change {
    Put {
        kv: KeyValue,
        previous: Option<KeyValue>,
    },
    /// `at`: the revision that deleted it. By somebody, or because its lease ended.
    Delete {
        key: Vec<u8>,
        at: Revision,
        previous: Option<KeyValue>,
    },
}

/// What happened at and before a revision; nothing when it is told as progress alone.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Changes {
    pub revision: Revision,
    pub changes: Vec<Change>,
}

/// An open watch; dropping it ends it.
pub struct Watcher {
    client: Client,
    link: Link,
    requests: mpsc::Sender<WatchRequest>,
    answers: Streaming<WatchResponse>,
    /// Of a revision that has been told in part.
    partial: Vec<Change>,
}

impl Client {
    /// Opens a watch. It is there when this returns: what is written from now on is told.
    ///
    /// # Errors
    /// [`EtcdError::Compacted`] when [`Watch::start`] is history no longer.
    pub async fn watch(&self, watch: Watch) -> Result<Watcher, EtcdError> {
        let link = self.link().await?;
        let (requests, receiver) = mpsc::channel(4);
        let (key, range_end) = watch.keys.bounds();
        let create = WatchCreateRequest {
            key,
            range_end,
            start_revision: watch.start.unwrap_or(0),
            progress_notify: watch.progress,
            prev_kv: watch.previous,
            // Large answers come in pieces instead of failing.
            fragment: true,
            ..WatchCreateRequest::default()
        };
        let create = WatchRequest { request_union: Some(RequestUnion::CreateRequest(create)) };
        requests.try_send(create).expect("room for four");
        let mut request = link.request(ReceiverStream::new(receiver));
        // A member that lost its leader ends the watch instead of falling silent.
        request.metadata_mut().insert("hasleader", "true".parse().expect("ASCII"));
        let mut client = WatchClient::new(link.channel.clone()).max_decoding_message_size(i32::MAX as usize);
        let answers = match client.watch(request).await {
            Ok(answer) => answer.into_inner(),
            Err(status) => return Err(self.broken(&link, &status).await),
        };
        let mut watcher = Watcher { client: self.clone(), link, requests, answers, partial: Vec::new() };
        let created = watcher.message().await?;
        if created.created && !created.canceled { Ok(watcher) } else { Err(canceled(&created)) }
    }

    async fn broken(&self, link: &Link, status: &tonic::Status) -> EtcdError {
        // A stale token is mended by logging in again; any other failure by the next member.
        let stale = crate::error::token_is_stale(status);
        self.drop_link(link, !stale).await;
        if stale {
            return EtcdError::Unavailable { url: link.url.clone(), what: "wants a new login".into() };
        }
        EtcdError::of(&link.url, status)
    }
}

impl Watcher {
    /// The next changes, in order, each revision whole. After an error the watch is over: open another one from the
    /// revision after the last that was told. Cancel safe.
    ///
    /// # Errors
    /// [`EtcdError::Compacted`]: changes were missed and are gone; list anew.
    pub async fn next(&mut self) -> Result<Changes, EtcdError> {
        loop {
            let answer = self.message().await?;
            if answer.canceled || answer.compact_revision != 0 {
                return Err(canceled(&answer));
            }
            let revision = crate::kv::revision(answer.header)?;
            for event in answer.events {
                self.partial.push(change(event)?);
            }
            if !answer.fragment {
                return Ok(Changes { revision, changes: std::mem::take(&mut self.partial) });
            }
        }
    }

    /// Asks to be told the revision reached; the answer comes from [`Watcher::next`].
    pub async fn ask_progress(&self) -> Result<(), EtcdError> {
        let request =
            WatchRequest { request_union: Some(RequestUnion::ProgressRequest(WatchProgressRequest {})) };
        let closed =
            |_| EtcdError::Unavailable { url: self.link.url.clone(), what: "ended the watch".into() };
        self.requests.send(request).await.map_err(closed)
    }

    async fn message(&mut self) -> Result<WatchResponse, EtcdError> {
        match self.answers.message().await {
            Ok(Some(answer)) => Ok(answer),
            Ok(None) => {
                self.client.drop_link(&self.link, true).await;
                Err(EtcdError::Unavailable { url: self.link.url.clone(), what: "ended the watch".into() })
            }
            Err(status) => Err(self.client.broken(&self.link, &status).await),
        }
    }
}

fn canceled(answer: &WatchResponse) -> EtcdError {
    if answer.compact_revision != 0 {
        return EtcdError::Compacted { oldest: Some(answer.compact_revision) };
    }
    EtcdError::Server {
        code: tonic::Code::Cancelled,
        message: format!("watch ended: {}", answer.cancel_reason),
    }
}

fn change(event: Event) -> Result<Change, EtcdError> {
    let deleted = event.r#type() == EventType::Delete;
    let kv = KeyValue::from(event.kv.ok_or(EtcdError::Malformed("key"))?);
    let previous = event.prev_kv.map(KeyValue::from);
    Ok(if deleted {
        Change::Delete { key: kv.key, at: kv.mod_revision, previous }
    } else {
        Change::Put { kv, previous }
    })
}
