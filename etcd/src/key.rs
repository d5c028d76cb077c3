//! Which keys a request is about.

/// Keys in byte order.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum KeyRange {
    One(Vec<u8>),
    /// All that begin so; the empty prefix is all keys.
    Prefix(Vec<u8>),
    /// From the first, up to but without the second.
    Span(Vec<u8>, Vec<u8>),
}

impl KeyRange {
    pub fn one(key: impl Into<Vec<u8>>) -> Self {
        Self::One(key.into())
    }

    pub fn prefix(prefix: impl Into<Vec<u8>>) -> Self {
        Self::Prefix(prefix.into())
    }

    /// The keys of a prefix behind `after`.
    pub fn prefix_after(prefix: impl Into<Vec<u8>>, after: &[u8]) -> Self {
        let prefix = Self::prefix(prefix);
        let (start, end) = prefix.bounds();
        if after < &start[..] {
            return prefix;
        }
        let mut behind = after.to_vec();
        behind.push(0);
        Self::Span(behind, end)
    }

    /// `key` and `range_end` of a request.
    pub(crate) fn bounds(&self) -> (Vec<u8>, Vec<u8>) {
        match self {
            KeyRange::One(key) => (key.clone(), Vec::new()),
            // etcd refuses an empty key; the zero byte is the first of all.
            KeyRange::Prefix(prefix) if prefix.is_empty() => (vec![0], vec![0]),
            KeyRange::Prefix(prefix) => (prefix.clone(), end_of_prefix(prefix)),
            KeyRange::Span(start, end) => (start.clone(), end.clone()),
        }
    }
}

/// The first key behind all that begin with `prefix`; one zero byte (which means "to the end") when there is none.
fn end_of_prefix(prefix: &[u8]) -> Vec<u8> {
    let mut end = prefix.to_vec();
    while let Some(last) = end.pop() {
        if last < 0xff {
            end.push(last + 1);
            return end;
        }
    }
    vec![0]
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_prefix_ends_before_the_next_key_that_does_not_have_it() {
        assert_eq!(KeyRange::prefix("/a/").bounds(), (b"/a/".to_vec(), b"/a0".to_vec()));
        assert_eq!(KeyRange::prefix(vec![b'a', 0xff]).bounds().1, b"b");
        assert_eq!(KeyRange::prefix(vec![0xff, 0xff]).bounds().1, [0]);
        assert_eq!(KeyRange::prefix("").bounds(), (vec![0], vec![0]));
        assert_eq!(KeyRange::one("a").bounds(), (b"a".to_vec(), vec![]));
    }
}
