//! An endless stream of bytes of which every part can be told from every other: what bulk transfers send and check.

/// A prime, so that the stream does not repeat on any boundary that packets or buffers have.
const PERIOD: usize = 1_048_573;

pub struct Pattern(Vec<u8>);

impl Pattern {
    pub fn new() -> Self {
        let mut state = 0x9e37_79b9_7f4a_7c15_u64;
        let byte = |_| {
            state ^= state << 13;
            state ^= state >> 7;
            state ^= state << 17;
            (state >> 32) as u8
        };
        Self((0..PERIOD).map(byte).collect())
    }

    /// Bytes of the stream from `offset` on: at least one, at most `limit`.
    pub fn from(&self, offset: u64, limit: usize) -> &[u8] {
        let start = (offset % PERIOD as u64) as usize;
        &self.0[start..PERIOD.min(start + limit)]
    }

    /// The offset of the first byte of `received` that is not the stream's, with `received` starting at `offset`.
    pub fn first_wrong(&self, offset: u64, received: &[u8]) -> Option<u64> {
        let mut at = 0;
        while at < received.len() {
            let expected = self.from(offset + at as u64, received.len() - at);
            let found = &received[at..at + expected.len()];
            if found != expected {
                let wrong = found.iter().zip(expected).position(|(a, b)| a != b)?;
                return Some(offset + (at + wrong) as u64);
            }
            at += expected.len();
        }
        None
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_wrong_lost_or_doubled_byte_is_found_where_it_is() {
        let pattern = Pattern::new();
        let offset = PERIOD as u64 * 3 - 1000;
        let mut stream = Vec::new();
        while stream.len() < 5000 {
            stream.extend_from_slice(pattern.from(offset + stream.len() as u64, 700));
        }
        assert_eq!(pattern.first_wrong(offset, &stream), None);
        let mut wrong = stream.clone();
        wrong[1234] ^= 1;
        assert_eq!(pattern.first_wrong(offset, &wrong), Some(offset + 1234));
        let mut lost = stream.clone();
        lost.remove(10);
        assert!(pattern.first_wrong(offset, &lost).is_some_and(|at| at < offset + 20));
        let mut doubled = stream;
        doubled.splice(4000..4000, [0; 1448]);
        assert!(pattern.first_wrong(offset, &doubled).is_some_and(|at| at < offset + 4010));
    }
}
