//! What is new each time: the time, uids, the ends of generated names.

use std::sync::LazyLock;

use k8s_openapi::jiff::Timestamp;
use rustls::crypto::SecureRandom;

/// RFC 3339, seconds: as `metav1.Time` is written.
pub fn now() -> String {
    time(Timestamp::now())
}

/// Seconds since 1970.
pub fn seconds() -> i64 {
    Timestamp::now().as_second()
}

/// RFC 3339, seconds.
pub fn time(at: Timestamp) -> String {
    // Upstream cuts fractions off.
    let at = Timestamp::from_second(at.as_second()).unwrap_or(at);
    at.to_string()
}

/// RFC 3339, microseconds: as `metav1.MicroTime` is written.
pub fn micro_time(at: Timestamp) -> String {
    format!("{at:.6}")
}

pub fn parse_time(text: &str) -> Option<Timestamp> {
    text.parse().ok()
}

/// A uid: a random (version 4) UUID.
pub fn uid() -> String {
    let mut bytes = [0; 16];
    fill(&mut bytes);
    let number = u128::from_be_bytes(bytes);
    let number = number & !(0xf << 76) & !(0x3 << 62) | (0x4 << 76) | (0x2 << 62);
    let text = format!("{number:032x}");
    format!("{}-{}-{}-{}-{}", &text[..8], &text[8..12], &text[12..16], &text[16..20], &text[20..])
}

/// The name that upstream makes of a `generateName`: cut to 58 bytes, and five characters that make no words.
pub fn name(prefix: &str) -> String {
    const LETTERS: &[u8; 27] = b"bcdfghjklmnpqrstvwxz2456789";
    const LONGEST: usize = 63 - 5;
    let mut name = prefix[..prefix.floor_char_boundary(LONGEST)].to_owned();
    let mut bytes = [0; 5];
    fill(&mut bytes);
    name.extend(bytes.iter().map(|&byte| char::from(LETTERS[usize::from(byte) % LETTERS.len()])));
    name
}

/// From 0 to 1.
pub fn fraction() -> f64 {
    let mut bytes = [0; 4];
    fill(&mut bytes);
    f64::from(u32::from_ne_bytes(bytes)) / f64::from(u32::MAX)
}

fn fill(bytes: &mut [u8]) {
    static RANDOM: LazyLock<&'static dyn SecureRandom> =
        LazyLock::new(|| rustls::crypto::ring::default_provider().secure_random);
    RANDOM.fill(bytes).expect("the kernel has random bytes");
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn uids_are_uuids_of_version_4() {
        let one = uid();
        assert_eq!(one.len(), 36);
        assert_eq!(&one[14..15], "4");
        assert!("89ab".contains(&one[19..20]), "{one}");
        assert_ne!(one, uid());
    }

    #[test]
    fn generated_names_stay_within_a_label() {
        assert_eq!(name("a-").len(), 7);
        assert_eq!(name(&"x".repeat(200)).len(), 63);
        // A cut within a character.
        assert!(name(&"ä".repeat(200)).len() <= 63);
    }

    #[test]
    fn times_have_seconds_or_microseconds() {
        let at = parse_time("2026-11-21T18:40:40.123456789+01:00").expect("a time");
        assert_eq!(time(at), "2026-11-21T17:40:40Z");
        assert_eq!(micro_time(at), "2026-11-21T17:40:40.123456Z");
        assert_eq!(now().len(), 20);
    }
}
