//! A snapshot: all keys of one revision as a stream of bytes, the same for every store.
//!
//! Taken while the store is in use. Layout, little-endian: `CORTENSNAP1\n`, i64 revision; then entries: `K` i64 create,
//! mod, version, lease; u32 length and bytes of key, of value; `L` i64 lease, u64 seconds; at the end `E` u64 entries,
//! u32 CRC-32 of all before it.

use std::collections::BTreeSet;
use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use tokio::io::{AsyncRead, AsyncReadExt, AsyncWrite, AsyncWriteExt};

use crate::StoreError;
use crate::api::{KeyValue, LeaseId, List, MAX_KEY_BYTES, Revision, Store};

const MAGIC: &[u8; 12] = b"CORTENSNAP1\n";
const PAGE: usize = 500;
/// Above [`crate::MAX_VALUE_BYTES`]: etcd may be told to take more.
const MAX_VALUE: usize = 64 << 20;

/// What a snapshot holds.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Image {
    pub revision: Revision,
    pub kvs: Vec<Arc<KeyValue>>,
    pub leases: Vec<(LeaseId, Duration)>,
}

/// Writes a snapshot of the present revision, page by page; answers the revision.
///
/// # Errors
/// [`StoreError::Compacted`]: the revision became history meanwhile; take another. [`StoreError::Snapshot`]: `out`
/// failed.
pub async fn save(
    store: &dyn Store,
    out: &mut (dyn AsyncWrite + Unpin + Send),
) -> Result<Revision, StoreError> {
    let mut out = Output { out, checksum: crc32fast::Hasher::new(), entries: 0 };
    let mut list = List { limit: Some(PAGE), ..List::default() };
    let mut leases = BTreeSet::new();
    let revision = loop {
        let page = store.list(list.clone()).await?;
        if list.at.is_none() {
            out.write(MAGIC).await?;
            out.write(&page.revision.to_le_bytes()).await?;
        }
        for kv in &page.kvs {
            leases.extend(kv.lease);
            out.key(kv).await?;
        }
        if !page.more() {
            break page.revision;
        }
        list.at = Some(page.revision);
        list.after = page.kvs.last().map(|kv| kv.key.clone());
    };
    for id in leases {
        match store.lease(id).await {
            Ok(lease) => out.lease(id, lease.granted).await?,
            // It ran out since: its keys come without one, and go with their owner's next write.
            Err(StoreError::NoLease(_)) => {}
            Err(error) => return Err(error),
        }
    }
    out.end().await?;
    Ok(revision)
}

struct Output<'a> {
    out: &'a mut (dyn AsyncWrite + Unpin + Send),
    checksum: crc32fast::Hasher,
    entries: u64,
}

impl Output<'_> {
    async fn write(&mut self, bytes: &[u8]) -> Result<(), StoreError> {
        self.checksum.update(bytes);
        self.out
            .write_all(bytes)
            .await
            .map_err(|error| StoreError::Snapshot(format!("cannot write it: {error}")))
    }

    async fn key(&mut self, kv: &KeyValue) -> Result<(), StoreError> {
        let mut head = vec![b'K'];
        let lease = kv.lease.map_or(0, LeaseId::number);
        for number in [kv.create_revision, kv.mod_revision, kv.version, lease] {
            head.extend(number.to_le_bytes());
        }
        head.extend((kv.key.len() as u32).to_le_bytes());
        head.extend_from_slice(&kv.key);
        head.extend((kv.value.len() as u32).to_le_bytes());
        self.write(&head).await?;
        self.entries += 1;
        self.write(&kv.value).await
    }

    async fn lease(&mut self, id: LeaseId, granted: Duration) -> Result<(), StoreError> {
        let mut entry = vec![b'L'];
        entry.extend(id.number().to_le_bytes());
        entry.extend(granted.as_secs().to_le_bytes());
        self.entries += 1;
        self.write(&entry).await
    }

    async fn end(mut self) -> Result<(), StoreError> {
        let mut end = vec![b'E'];
        end.extend(self.entries.to_le_bytes());
        self.write(&end).await?;
        let checksum = self.checksum.clone().finalize();
        self.write(&checksum.to_le_bytes()).await?;
        self.out.flush().await.map_err(|error| StoreError::Snapshot(format!("cannot write it: {error}")))
    }
}

impl Image {
    /// Reads a snapshot to its end and checks it; it is in memory then.
    ///
    /// # Errors
    /// [`StoreError::Snapshot`]: it is damaged, cut short, or none.
    pub async fn read(source: &mut (dyn AsyncRead + Unpin + Send)) -> Result<Self, StoreError> {
        let mut input = Input { source, checksum: crc32fast::Hasher::new() };
        if input.bytes(MAGIC.len()).await? != MAGIC[..] {
            return Err(StoreError::Snapshot("it does not begin as one of this version".into()));
        }
        let mut image = Self { revision: input.number().await?, kvs: Vec::new(), leases: Vec::new() };
        loop {
            match input.bytes(1).await?[0] {
                b'K' => image.kvs.push(Arc::new(input.key().await?)),
                b'L' => {
                    let lease = LeaseId::of(input.number().await?);
                    let seconds = input.number().await? as u64;
                    image.leases.extend(lease.map(|lease| (lease, Duration::from_secs(seconds))));
                }
                b'E' => break,
                _ => return Err(StoreError::Snapshot("it has an entry of no known kind".into())),
            }
        }
        let entries = input.number().await?;
        let checksum = input.checksum.clone().finalize().to_le_bytes();
        if input.bytes(4).await? != checksum[..] || entries as usize != image.kvs.len() + image.leases.len() {
            return Err(StoreError::Snapshot("it is damaged: its checksum is another".into()));
        }
        image.detach_lost_leases();
        Ok(image)
    }

    fn detach_lost_leases(&mut self) {
        let leases: BTreeSet<_> = self.leases.iter().map(|(lease, _)| *lease).collect();
        for kv in &mut self.kvs {
            if kv.lease.is_some_and(|lease| !leases.contains(&lease)) {
                Arc::make_mut(kv).lease = None;
            }
        }
    }
}

struct Input<'a> {
    source: &'a mut (dyn AsyncRead + Unpin + Send),
    checksum: crc32fast::Hasher,
}

impl Input<'_> {
    async fn bytes(&mut self, count: usize) -> Result<Bytes, StoreError> {
        let mut bytes = vec![0; count];
        let read = self.source.read_exact(&mut bytes).await;
        read.map_err(|error| StoreError::Snapshot(format!("cannot read it to its end: {error}")))?;
        self.checksum.update(&bytes);
        Ok(bytes.into())
    }

    async fn number(&mut self) -> Result<i64, StoreError> {
        Ok(i64::from_le_bytes(self.bytes(8).await?[..].try_into().expect("8 bytes")))
    }

    async fn sized(&mut self, limit: usize) -> Result<Bytes, StoreError> {
        let length = u32::from_le_bytes(self.bytes(4).await?[..].try_into().expect("4 bytes")) as usize;
        if length > limit {
            return Err(StoreError::Snapshot(format!("it is damaged: a length of {length} bytes")));
        }
        self.bytes(length).await
    }

    async fn key(&mut self) -> Result<KeyValue, StoreError> {
        let (create_revision, mod_revision) = (self.number().await?, self.number().await?);
        let (version, lease) = (self.number().await?, LeaseId::of(self.number().await?));
        let key = self.sized(MAX_KEY_BYTES).await?;
        let value = self.sized(MAX_VALUE).await?;
        Ok(KeyValue { key, value, create_revision, mod_revision, version, lease })
    }
}
