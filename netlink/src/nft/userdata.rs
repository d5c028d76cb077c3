//! Comments, as nft(8) keeps them: type, length, text with a NUL (libnftnl/udata.h).

/// NFTNL_UDATA_{TABLE,CHAIN,RULE,SET_ELEM}_COMMENT are all 0.
const COMMENT: u8 = 0;
/// NFTNL_UDATA_SET_COMMENT.
pub const SET_COMMENT: u8 = 7;
/// Ours, outside libnftnl's numbers: nft skips what it does not know.
pub const TAG: u8 = 0x80;
/// NFTNL_UDATA_COMMENT_MAXLEN.
const MAX_BYTES: usize = 128;

pub fn encode(comment: &str) -> Vec<u8> {
    encode_as(COMMENT, comment)
}

/// Cut at 127 bytes (on a character boundary): nft refuses longer ones, the kernel's user data ends at 256.
pub fn encode_as(kind: u8, comment: &str) -> Vec<u8> {
    let end =
        (0..=comment.len().min(MAX_BYTES - 1)).rev().find(|i| comment.is_char_boundary(*i)).unwrap_or(0);
    let text = &comment.as_bytes()[..end];
    let mut bytes = vec![kind, text.len() as u8 + 1];
    bytes.extend_from_slice(text);
    bytes.push(0);
    bytes
}

pub fn decode(bytes: &[u8]) -> Option<String> {
    decode_as(COMMENT, bytes)
}

pub fn decode_as(wanted: u8, mut bytes: &[u8]) -> Option<String> {
    loop {
        let (kind, length) = (*bytes.first()?, usize::from(*bytes.get(1)?));
        let value = bytes.get(2..2 + length)?;
        if kind == wanted {
            let end = value.iter().position(|b| *b == 0).unwrap_or(value.len());
            return Some(String::from_utf8_lossy(&value[..end]).into_owned());
        }
        bytes = &bytes[2 + length..];
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn comments_survive_and_long_ones_are_cut() {
        assert_eq!(decode(&encode("pod-1")).as_deref(), Some("pod-1"));
        assert_eq!(decode(&encode(&"x".repeat(200))).map(|c| c.len()), Some(127));
        assert_eq!(decode(&encode(&"ä".repeat(100))).map(|c| c.chars().count()), Some(63));
    }

    #[test]
    fn a_comment_behind_other_data_is_found_and_noise_is_not() {
        assert_eq!(decode(&[1, 2, 9, 9, 0, 2, b'a', 0]).as_deref(), Some("a"));
        for noise in [&[][..], &[0], &[0, 5, b'a'], &[1, 0], &[3, 255, 0]] {
            assert_eq!(decode(noise), None, "{noise:?}");
        }
    }
}
