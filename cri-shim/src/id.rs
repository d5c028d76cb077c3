//! Identifiers of sandboxes and containers: 64 hexadecimal digits, as the kubelet's cgroup parser wants them.

use std::fmt::Write;
use std::fs::File;
use std::io::{self, Read};

/// A new identifier: 256 random bits.
pub fn new() -> io::Result<String> {
    let mut bytes = [0u8; 32];
    File::open("/dev/urandom")?.read_exact(&mut bytes)?;
    let mut text = String::with_capacity(64);
    for byte in bytes {
        write!(text, "{byte:02x}").expect("a String takes everything");
    }
    Ok(text)
}

/// True for what [`new`] makes. Directory names that fail this are not ours.
pub fn is_id(text: &str) -> bool {
    text.len() == 64 && text.bytes().all(|b| b.is_ascii_digit() || (b'a'..=b'f').contains(&b))
}

/// Why an identifier given by a client names nothing.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Unresolved {
    Missing,
    /// The prefix fits these (two are enough to say so).
    Ambiguous(String, String),
}

/// Finds the one of `known` (sorted) that `given` names: in full, or by a prefix that fits no other.
pub fn resolve<'a>(given: &str, known: impl IntoIterator<Item = &'a String>) -> Result<&'a str, Unresolved> {
    if given.is_empty() {
        return Err(Unresolved::Missing);
    }
    let mut found: Option<&str> = None;
    for id in known {
        if id == given {
            return Ok(id);
        }
        if id.starts_with(given) {
            if let Some(first) = found {
                return Err(Unresolved::Ambiguous(first.into(), id.clone()));
            }
            found = Some(id);
        }
    }
    found.ok_or(Unresolved::Missing)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn ids_are_64_hex_digits_and_differ() {
        let (a, b) = (new().unwrap(), new().unwrap());
        assert!(is_id(&a) && is_id(&b) && a != b);
        for bad in ["", "abc", &"A".repeat(64), &"g".repeat(64), &"a".repeat(65)] {
            assert!(!is_id(bad), "{bad}");
        }
    }

    #[test]
    fn a_prefix_must_fit_exactly_one() {
        let known: Vec<String> = ["abc1", "abc2", "b"].map(String::from).to_vec();
        let find = |given| resolve(given, &known);
        assert_eq!(find("abc1"), Ok("abc1"));
        assert_eq!(find("b"), Ok("b"));
        assert_eq!(find("abc"), Err(Unresolved::Ambiguous("abc1".into(), "abc2".into())));
        assert_eq!(find("x"), Err(Unresolved::Missing));
        assert_eq!(find(""), Err(Unresolved::Missing));
    }
}
