//! Base64 as Go reads it (`encoding/base64`, standard alphabet, padded): line ends are skipped.

/// Checks it; the text without its line ends where it has some.
///
/// # Errors
/// Go's words, with the offset it tells.
pub(crate) fn rewrite(text: &str) -> Result<Option<String>, String> {
    let illegal = |at: usize| Err(format!("illegal base64 data at input byte {at}"));
    let (mut digits, mut padding) = (0_usize, 0_usize);
    for (at, byte) in text.bytes().enumerate() {
        match byte {
            b'\r' | b'\n' => {}
            b'=' => {
                padding += 1;
                if digits % 4 < 2 || padding > 4 - digits % 4 {
                    return illegal(at);
                }
            }
            _ if padding > 0 => return illegal(at),
            b'A'..=b'Z' | b'a'..=b'z' | b'0'..=b'9' | b'+' | b'/' => digits += 1,
            _ => return illegal(at),
        }
    }
    if (digits + padding) % 4 != 0 {
        // Go tells where the unfinished group began, or the end where padding is missing.
        return illegal(if padding > 0 { text.len() } else { text.len() - digits % 4 });
    }
    Ok(text.contains(['\r', '\n']).then(|| text.replace(['\r', '\n'], "")))
}

#[cfg(test)]
mod tests {
    use super::rewrite;

    #[test]
    fn base64_is_what_go_takes() {
        for text in ["", "YQ==", "YWI=", "YWJj"] {
            assert_eq!(rewrite(text), Ok(None), "{text}");
        }
        assert_eq!(rewrite("YW\nJj\r\n"), Ok(Some("YWJj".to_owned())));
        for (text, at) in [
            ("a", 0),
            ("YQ", 0),
            ("YQ=", 3),
            ("YWJjYQ", 4),
            ("Y=", 1),
            ("YQ==YQ==", 4),
            ("YW Jj", 2),
            ("=", 0),
        ] {
            assert_eq!(rewrite(text), Err(format!("illegal base64 data at input byte {at}")), "{text}");
        }
    }
}
