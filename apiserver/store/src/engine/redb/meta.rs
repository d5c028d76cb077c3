//! The store's own facts in its file, under the key `corten-store` of table `meta`.
//!
//! Layout: u32 CRC-32 of all that follows; u32 version; i64 revision, ceiling, compacted; u32 count of lost ranges;
//! for each i64 first, last. Little-endian.

use crate::engine::{Lost, Meta};

/// Of tables and records. A higher one is of a later release.
pub const VERSION: u32 = 1;

#[derive(Debug, PartialEq, Eq)]
pub enum Unreadable {
    Version(u32),
    Damaged,
}

pub fn encode(meta: &Meta) -> Vec<u8> {
    let mut out = vec![0; 4];
    out.extend(VERSION.to_le_bytes());
    for number in [meta.revision, meta.ceiling, meta.compacted] {
        out.extend(number.to_le_bytes());
    }
    out.extend((meta.lost.len() as u32).to_le_bytes());
    for number in meta.lost.iter().flat_map(|lost| [lost.first, lost.last]) {
        out.extend(number.to_le_bytes());
    }
    let checksum = crc32fast::hash(&out[4..]);
    out[..4].copy_from_slice(&checksum.to_le_bytes());
    out
}

pub fn decode(bytes: &[u8]) -> Result<Meta, Unreadable> {
    let (sum, rest) = bytes.split_first_chunk::<4>().ok_or(Unreadable::Damaged)?;
    if u32::from_le_bytes(*sum) != crc32fast::hash(rest) {
        return Err(Unreadable::Damaged);
    }
    // The version first: what follows it is the version's.
    let (version, rest) = rest.split_first_chunk::<4>().ok_or(Unreadable::Damaged)?;
    match u32::from_le_bytes(*version) {
        VERSION => known(rest).ok_or(Unreadable::Damaged),
        version => Err(Unreadable::Version(version)),
    }
}

fn known(rest: &[u8]) -> Option<Meta> {
    let (numbers, rest) = rest.split_at_checked(24)?;
    let (count, lost) = rest.split_first_chunk::<4>()?;
    let number = |bytes: &[u8]| i64::from_le_bytes(bytes.try_into().expect("8 bytes"));
    let ranges = lost.chunks_exact(16);
    if !ranges.remainder().is_empty() || ranges.len() != u32::from_le_bytes(*count) as usize {
        return None;
    }
    Some(Meta {
        revision: number(&numbers[..8]),
        ceiling: number(&numbers[8..16]),
        compacted: number(&numbers[16..]),
        lost: ranges.map(|range| Lost { first: number(&range[..8]), last: number(&range[8..]) }).collect(),
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn meta_comes_back_and_any_change_is_found_out() {
        let lost = vec![Lost { first: 8, last: 9 }, Lost { first: 20, last: 30 }];
        let meta = Meta { revision: 40, ceiling: 50, compacted: 7, lost };
        let bytes = encode(&meta);
        assert_eq!(decode(&bytes), Ok(meta));
        for place in 0..bytes.len() {
            let mut changed = bytes.clone();
            changed[place] ^= 4;
            assert_eq!(decode(&changed), Err(Unreadable::Damaged), "byte {place}");
            assert_eq!(decode(&bytes[..place]), Err(Unreadable::Damaged), "cut at {place}");
        }
    }

    #[test]
    fn a_later_version_is_named() {
        let mut bytes = encode(&Meta::default());
        bytes[4] = 9;
        let checksum = crc32fast::hash(&bytes[4..]);
        bytes[..4].copy_from_slice(&checksum.to_le_bytes());
        assert_eq!(decode(&bytes), Err(Unreadable::Version(9)));
    }
}
