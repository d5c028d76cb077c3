//! What happened at one revision, and its bytes on disk.
//!
//! ```text
//! u32 CRC-32 of revision and all that follows; u8 kind
//! kind 1, put:    i64 previous, create, version, lease (0: none); u32 length of key; key; value
//! kind 2, delete: for each key: i64 previous; u32 length of key; key
//! ```
//! All numbers little-endian.

use bytes::Bytes;
use std::sync::Arc;

use crate::api::{KeyValue, LeaseId, Revision};

#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Record {
    /// `previous`: the revision that the key had before; 0: it is new.
    Put { kv: Arc<KeyValue>, previous: Revision },
    /// Keys with the revisions they had. More than one when a lease ended.
    Delete(Vec<(Bytes, Revision)>),
}

impl Record {
    pub fn bytes(&self) -> usize {
        const HEAD: usize = 64;
        match self {
            Self::Put { kv, .. } => HEAD + kv.key.len() + kv.value.len(),
            Self::Delete(keys) => keys.iter().map(|(key, _)| HEAD + key.len()).sum(),
        }
    }

    pub fn encode(&self, revision: Revision) -> Vec<u8> {
        let mut out = Vec::with_capacity(self.bytes());
        out.extend([0; 4]);
        match self {
            Self::Put { kv, previous } => {
                out.push(1);
                let lease = kv.lease.map_or(0, LeaseId::number);
                for number in [*previous, kv.create_revision, kv.version, lease] {
                    out.extend(number.to_le_bytes());
                }
                push_key(&mut out, &kv.key);
                out.extend_from_slice(&kv.value);
            }
            Self::Delete(keys) => {
                out.push(2);
                for (key, previous) in keys {
                    out.extend(previous.to_le_bytes());
                    push_key(&mut out, key);
                }
            }
        }
        let checksum = checksum(revision, &out[4..]);
        out[..4].copy_from_slice(&checksum.to_le_bytes());
        out
    }

    /// # Errors
    /// What is wrong with the bytes.
    pub fn decode(revision: Revision, bytes: &[u8]) -> Result<Self, &'static str> {
        let (sum, rest) = bytes.split_first_chunk::<4>().ok_or("is cut short")?;
        if u32::from_le_bytes(*sum) != checksum(revision, rest) {
            return Err("has a wrong checksum");
        }
        let mut rest = Rest(rest);
        match rest.take(1).ok_or("is cut short")?[0] {
            1 => put(revision, &mut rest).ok_or("is cut short"),
            2 => deletes(&mut rest).ok_or("is cut short"),
            _ => Err("is of an unknown kind"),
        }
    }
}

fn put(revision: Revision, rest: &mut Rest<'_>) -> Option<Record> {
    let (previous, create_revision, version, lease) =
        (rest.number()?, rest.number()?, rest.number()?, rest.number()?);
    let key = rest.key()?;
    let kv = KeyValue {
        key,
        value: Bytes::copy_from_slice(rest.0),
        create_revision,
        mod_revision: revision,
        version,
        lease: LeaseId::of(lease),
    };
    Some(Record::Put { kv: Arc::new(kv), previous })
}

fn deletes(rest: &mut Rest<'_>) -> Option<Record> {
    let mut keys = Vec::new();
    while !rest.0.is_empty() {
        let previous = rest.number()?;
        keys.push((rest.key()?, previous));
    }
    Some(Record::Delete(keys))
}

fn push_key(out: &mut Vec<u8>, key: &[u8]) {
    out.extend((key.len() as u32).to_le_bytes());
    out.extend_from_slice(key);
}

/// The revision is in it: a whole record in another's place is found out.
fn checksum(revision: Revision, rest: &[u8]) -> u32 {
    let mut hasher = crc32fast::Hasher::new();
    hasher.update(&revision.to_le_bytes());
    hasher.update(rest);
    hasher.finalize()
}

struct Rest<'a>(&'a [u8]);

impl<'a> Rest<'a> {
    fn take(&mut self, count: usize) -> Option<&'a [u8]> {
        let (head, tail) = self.0.split_at_checked(count)?;
        self.0 = tail;
        Some(head)
    }

    fn number(&mut self) -> Option<i64> {
        Some(i64::from_le_bytes(self.take(8)?.try_into().ok()?))
    }

    fn key(&mut self) -> Option<Bytes> {
        let length = u32::from_le_bytes(self.take(4)?.try_into().ok()?);
        Some(Bytes::copy_from_slice(self.take(length as usize)?))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn record() -> Record {
        let kv = KeyValue {
            key: "/a/b".into(),
            value: "value".into(),
            create_revision: 3,
            mod_revision: 9,
            version: 2,
            lease: LeaseId::of(7),
        };
        Record::Put { kv: Arc::new(kv), previous: 5 }
    }

    #[test]
    fn records_come_back_as_they_were() {
        let deletes = Record::Delete(vec![("/a".into(), 4), ("/b".into(), 5)]);
        for record in [record(), deletes, Record::Delete(vec![])] {
            assert_eq!(Record::decode(9, &record.encode(9)), Ok(record));
        }
    }

    #[test]
    fn any_changed_or_missing_byte_is_found_out() {
        let bytes = record().encode(9);
        for place in 0..bytes.len() {
            for bit in 0..8 {
                let mut changed = bytes.clone();
                changed[place] ^= 1 << bit;
                assert!(Record::decode(9, &changed).is_err(), "bit {bit} of byte {place}");
            }
            assert!(Record::decode(9, &bytes[..place]).is_err(), "cut at {place}");
        }
        assert!(Record::decode(10, &bytes).is_err(), "in another revision's place");
    }
}
