//! Reading and writing keys.

use crate::client::Kind;
use crate::proto::compare::{CompareResult, CompareTarget, TargetUnion};
use crate::proto::kv_client::KvClient;
use crate::proto::request_op::Request;
use crate::proto::response_op::Response;
use crate::proto::{
    self, CompactionRequest, DeleteRangeRequest, PutRequest, RangeRequest, RequestOp, ResponseHeader,
    TxnRequest,
};
use crate::{Client, EtcdError, KeyRange, LeaseId, Revision};

/// Answers as large as Go's clients take.
const MAX_ANSWER_BYTES: usize = i32::MAX as usize;

#[derive(Debug, Clone, PartialEq, Eq)]
pub struct KeyValue {
    pub key: Vec<u8>,
    pub value: Vec<u8>,
    pub create_revision: Revision,
    pub mod_revision: Revision,
    /// Puts since the key was made; 1 for a new one.
    pub version: i64,
    pub lease: Option<LeaseId>,
}

impl From<proto::KeyValue> for KeyValue {
    fn from(kv: proto::KeyValue) -> Self {
        Self {
            key: kv.key,
            value: kv.value,
            create_revision: kv.create_revision,
            mod_revision: kv.mod_revision,
            version: kv.version,
            lease: LeaseId::of(kv.lease),
        }
    }
}

/// What to read.
#[derive(Debug, Clone)]
pub struct Range {
    pub keys: KeyRange,
    /// The store as it was then; now unless given.
    pub revision: Option<Revision>,
    /// At most so many; all unless given.
    pub limit: Option<u32>,
    /// Without values.
    pub keys_only: bool,
    /// Only [`Page::count`].
    pub count_only: bool,
    /// From the member that is asked, which may lag behind.
    pub serializable: bool,
}

impl Range {
    pub fn new(keys: KeyRange) -> Self {
        Self { keys, revision: None, limit: None, keys_only: false, count_only: false, serializable: false }
    }

    fn message(&self) -> RangeRequest {
        let (key, range_end) = self.keys.bounds();
        RangeRequest {
            key,
            range_end,
            limit: self.limit.unwrap_or(0).into(),
            revision: self.revision.unwrap_or(0),
            serializable: self.serializable,
            keys_only: self.keys_only,
            count_only: self.count_only,
            ..RangeRequest::default()
        }
    }
}

/// Keys in their order, and what they are a part of.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Page {
    pub kvs: Vec<KeyValue>,
    /// The store's when this was read: a watch from the next one misses nothing.
    pub revision: Revision,
    /// There are more keys than the limit.
    pub more: bool,
    /// How many keys there are in all.
    pub count: i64,
}

#[derive(Debug, Clone)]
pub struct Put {
    pub key: Vec<u8>,
    pub value: Vec<u8>,
    pub lease: Option<LeaseId>,
    /// Return what was there before.
    pub previous: bool,
}

impl Put {
    pub fn new(key: impl Into<Vec<u8>>, value: impl Into<Vec<u8>>) -> Self {
        Self { key: key.into(), value: value.into(), lease: None, previous: false }
    }

    #[must_use]
    pub fn lease(self, lease: Option<LeaseId>) -> Self {
        Self { lease, ..self }
    }

    fn message(self) -> PutRequest {
        PutRequest {
            key: self.key,
            value: self.value,
            lease: self.lease.map_or(0, LeaseId::number),
            prev_kv: self.previous,
            ..PutRequest::default()
        }
    }
}

#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Deleted {
    pub count: i64,
    /// When asked for.
    pub previous: Vec<KeyValue>,
    pub revision: Revision,
}

/// A condition on one key.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Compare {
    /// The key is not there.
    Absent(Vec<u8>),
    /// The key was last written at this revision: nobody has changed it since it was read.
    ModRevision(Vec<u8>, Revision),
    Value(Vec<u8>, Vec<u8>),
}

impl Compare {
    fn message(self) -> proto::Compare {
        let (key, target, union) = match self {
            Self::Absent(key) => (key, CompareTarget::Version, TargetUnion::Version(0)),
            Self::ModRevision(key, revision) => (key, CompareTarget::Mod, TargetUnion::ModRevision(revision)),
            Self::Value(key, value) => (key, CompareTarget::Value, TargetUnion::Value(value)),
        };
        proto::Compare {
            result: CompareResult::Equal.into(),
            target: target.into(),
            key,
            target_union: Some(union),
        }
    }
}

#[derive(Debug, Clone)]
pub enum Op {
    Range(Range),
    Put(Put),
    Delete { keys: KeyRange, previous: bool },
}

impl Op {
    fn message(self) -> RequestOp {
        let request = match self {
            Op::Range(range) => Request::RequestRange(range.message()),
            Op::Put(put) => Request::RequestPut(put.message()),
            Op::Delete { keys, previous } => Request::RequestDeleteRange(delete(&keys, previous)),
        };
        RequestOp { request: Some(request) }
    }
}

/// All of `when` true: all of `then`, else all of `otherwise`; at one revision.
#[derive(Debug, Clone, Default)]
pub struct Txn {
    pub when: Vec<Compare>,
    pub then: Vec<Op>,
    pub otherwise: Vec<Op>,
}

#[derive(Debug, Clone, PartialEq, Eq)]
pub struct TxnAnswer {
    /// [`Txn::when`] was true.
    pub succeeded: bool,
    pub revision: Revision,
    /// One for each [`Op`] that was done.
    pub answers: Vec<OpAnswer>,
}

#[derive(Debug, Clone, PartialEq, Eq)]
pub enum OpAnswer {
    Range(Page),
    Put { previous: Option<KeyValue> },
    Delete(Deleted),
}

impl Client {
    /// One key.
    pub async fn get(&self, key: impl Into<Vec<u8>>) -> Result<Option<KeyValue>, EtcdError> {
        let page = self.range(&Range::new(KeyRange::one(key))).await?;
        Ok(page.kvs.into_iter().next())
    }

    /// # Errors
    /// [`EtcdError::Compacted`] and [`EtcdError::Future`] of [`Range::revision`].
    pub async fn range(&self, range: &Range) -> Result<Page, EtcdError> {
        let answer = self
            .call(Kind::Read, |link| async move {
                kv(&link).range(link.request(range.message())).await.map(tonic::Response::into_inner)
            })
            .await?;
        Ok(page(answer))
    }

    /// All keys of a range as they were at one moment, read in pages of `limit`.
    pub async fn range_all(&self, keys: KeyRange, limit: u32) -> Result<Page, EtcdError> {
        let mut next = Range { limit: Some(limit), ..Range::new(keys) };
        let mut all = self.range(&next).await?;
        let (_, end) = next.keys.bounds();
        let mut more = all.more;
        while let (true, Some(last)) = (more, all.kvs.last()) {
            let mut start = last.key.clone();
            start.push(0);
            next.keys = KeyRange::Span(start, end.clone());
            next.revision = Some(all.revision);
            let page = self.range(&next).await?;
            more = page.more;
            all.kvs.extend(page.kvs);
        }
        all.more = false;
        Ok(all)
    }

    /// The store's new revision, and what was there before when asked for.
    pub async fn put(&self, put: Put) -> Result<(Revision, Option<KeyValue>), EtcdError> {
        let lease = put.lease;
        let message = put.message();
        let answer = self
            .call(Kind::Write, |link| {
                let message = message.clone();
                async move { kv(&link).put(link.request(message)).await.map(tonic::Response::into_inner) }
            })
            .await
            .map_err(|error| name_lease(error, lease))?;
        Ok((revision(answer.header)?, answer.prev_kv.map(KeyValue::from)))
    }

    pub async fn delete(&self, keys: &KeyRange, previous: bool) -> Result<Deleted, EtcdError> {
        let answer = self
            .call(Kind::Write, |link| async move {
                let message = link.request(delete(keys, previous));
                kv(&link).delete_range(message).await.map(tonic::Response::into_inner)
            })
            .await?;
        Ok(deleted(answer))
    }

    pub async fn txn(&self, txn: Txn) -> Result<TxnAnswer, EtcdError> {
        let lease = txn.then.iter().chain(&txn.otherwise).find_map(|op| match op {
            Op::Put(put) => put.lease,
            _ => None,
        });
        let message = TxnRequest {
            compare: txn.when.into_iter().map(Compare::message).collect(),
            success: txn.then.into_iter().map(Op::message).collect(),
            failure: txn.otherwise.into_iter().map(Op::message).collect(),
        };
        let answer = self
            .call(Kind::Write, |link| {
                let message = message.clone();
                async move { kv(&link).txn(link.request(message)).await.map(tonic::Response::into_inner) }
            })
            .await
            .map_err(|error| name_lease(error, lease))?;
        let revision = revision(answer.header)?;
        let one = |op: proto::ResponseOp| match op.response.ok_or(EtcdError::Malformed("operation"))? {
            Response::ResponseRange(range) => Ok(OpAnswer::Range(page(range))),
            Response::ResponsePut(put) => Ok(OpAnswer::Put { previous: put.prev_kv.map(KeyValue::from) }),
            Response::ResponseDeleteRange(range) => Ok(OpAnswer::Delete(deleted(range))),
        };
        let answers = answer.responses.into_iter().map(one).collect::<Result<_, EtcdError>>()?;
        Ok(TxnAnswer { succeeded: answer.succeeded, revision, answers })
    }

    /// Forgets history before `revision`.
    pub async fn compact(&self, revision: Revision) -> Result<(), EtcdError> {
        self.call(Kind::Write, |link| async move {
            kv(&link).compact(link.request(CompactionRequest { revision, physical: false })).await
        })
        .await
        .map(|_| ())
    }
}

fn kv(link: &crate::client::Link) -> KvClient<tonic::transport::Channel> {
    KvClient::new(link.channel.clone()).max_decoding_message_size(MAX_ANSWER_BYTES)
}

fn delete(keys: &KeyRange, previous: bool) -> DeleteRangeRequest {
    let (key, range_end) = keys.bounds();
    DeleteRangeRequest { key, range_end, prev_kv: previous }
}

pub(crate) fn revision(header: Option<ResponseHeader>) -> Result<Revision, EtcdError> {
    header.map(|header| header.revision).ok_or(EtcdError::Malformed("header"))
}

fn page(answer: proto::RangeResponse) -> Page {
    Page {
        // Inside a transaction only the transaction has a header.
        revision: answer.header.map_or(0, |header| header.revision),
        kvs: answer.kvs.into_iter().map(KeyValue::from).collect(),
        more: answer.more,
        count: answer.count,
    }
}

fn deleted(answer: proto::DeleteRangeResponse) -> Deleted {
    Deleted {
        count: answer.deleted,
        previous: answer.prev_kvs.into_iter().map(KeyValue::from).collect(),
        revision: answer.header.map_or(0, |header| header.revision),
    }
}

/// etcd does not say which lease it misses.
pub(crate) fn name_lease(error: EtcdError, lease: Option<LeaseId>) -> EtcdError {
    match (error, lease) {
        (EtcdError::NoLease(0), Some(lease)) => EtcdError::NoLease(lease.number()),
        (error, _) => error,
    }
}
