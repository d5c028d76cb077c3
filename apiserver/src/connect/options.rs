//! What the query of such a request says, as upstream reads it.

use super::go;
use crate::request::Query;
use crate::status::{Result, Status};

/// A number; 400 of what is none.
pub(super) fn number(query: &Query, name: &str) -> Result<Option<i64>> {
    query.get(name).map(go::parse_int).transpose().map_err(Status::bad_request)
}

/// RFC 3339, as `metav1.Time` reads a parameter; `null` and nothing are none.
pub(super) fn time<'q>(query: &'q Query, name: &str) -> Result<Option<&'q str>> {
    match query.get(name) {
        None | Some("" | "null") => Ok(None),
        Some(text) if is_rfc3339(text) => Ok(Some(text)),
        Some(text) => {
            let shown = serde_json::Value::from(text);
            const LAYOUT: &str = "2006-01-02T15:04:05Z07:00";
            Err(Status::bad_request(format!(
                "parsing time {shown} as \"{LAYOUT}\": cannot parse {shown} as \"2006\""
            )))
        }
    }
}

fn is_rfc3339(text: &str) -> bool {
    // `2006-01-02T15:04:05`, a fraction, `Z` or `+01:00`.
    let bytes = text.as_bytes();
    let shaped = |at: usize, form: &[u8]| {
        bytes.get(at..at + form.len()).is_some_and(|part| {
            part.iter()
                .zip(form)
                .all(|(have, want)| if *want == b'0' { have.is_ascii_digit() } else { have == want })
        })
    };
    let number = |at: usize| text[at..at + 2].parse::<u8>().unwrap_or(u8::MAX);
    if !shaped(0, b"0000-00-00T00:00:00") || !text.is_ascii() {
        return false;
    }
    let in_range = (1..=12).contains(&number(5))
        && (1..=31).contains(&number(8))
        && number(11) < 24
        && number(14) < 60
        && number(17) < 60;
    let rest = &text[19..];
    let rest = match rest.strip_prefix('.') {
        Some(fraction) => {
            let zone = fraction.trim_start_matches(|c: char| c.is_ascii_digit());
            if zone.len() == fraction.len() {
                return false;
            }
            zone
        }
        None => rest,
    };
    let at = text.len() - rest.len();
    in_range && (rest == "Z" || (rest.len() == 6 && (shaped(at, b"+00:00") || shaped(at, b"-00:00"))))
}

/// `true` only when it was asked for.
pub(super) fn flag(query: &Query, name: &str) -> bool {
    query.flag(name).unwrap_or(false)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn times_and_numbers_are_read_as_go_reads_them() {
        for right in ["2024-01-02T03:04:05Z", "2024-01-02T03:04:05.123Z", "2024-01-02T03:04:05+01:00"] {
            assert!(is_rfc3339(right), "{right}");
        }
        for wrong in [
            "",
            "5m",
            "2024-13-02T03:04:05Z",
            "2024-01-02T03:04:05",
            "2024-01-02T03:04:05.Z",
            "2024-01-02 03:04:05Z",
        ] {
            assert!(!is_rfc3339(wrong), "{wrong}");
        }
        let said = |text: &str| {
            let query = Query::parse(&format!("tailLines={text}"));
            number(&query, "tailLines").map_err(|status| status.message().to_owned())
        };
        assert_eq!(said("-5"), Ok(Some(-5)));
        assert_eq!(said("x"), Err("strconv.ParseInt: parsing \"x\": invalid syntax".to_owned()));
        let long = "99999999999999999999";
        assert_eq!(said(long), Err(format!("strconv.ParseInt: parsing \"{long}\": value out of range")));
    }
}
