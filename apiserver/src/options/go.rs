//! Values as Go's flags take them.

use std::time::Duration;

use clap::builder::{BoolishValueParser, TypedValueParser};

/// `1`, `t`, `TRUE`, `true` and their opposites; also yes, on and their opposites.
pub fn boolean() -> impl TypedValueParser<Value = bool> {
    BoolishValueParser::new()
}

/// `1h30m`, `500ms`, `0`. Source: Go `time.ParseDuration`.
pub fn duration(text: &str) -> Result<Duration, String> {
    let wrong = || format!("{text} is no duration such as 30s, 5m or 1h30m");
    if text == "0" {
        return Ok(Duration::ZERO);
    }
    if text.is_empty() {
        return Err(wrong());
    }
    let mut total = Duration::ZERO;
    let mut rest = text;
    while !rest.is_empty() {
        let digits = rest.find(|c: char| !c.is_ascii_digit() && c != '.').ok_or_else(wrong)?;
        let number: f64 = rest[..digits].parse().map_err(|_| wrong())?;
        rest = &rest[digits..];
        let letters = rest.find(|c: char| c.is_ascii_digit() || c == '.').unwrap_or(rest.len());
        let seconds = match &rest[..letters] {
            "ns" => 1e-9,
            "us" | "µs" | "μs" => 1e-6,
            "ms" => 1e-3,
            "s" => 1.0,
            "m" => 60.0,
            "h" => 3600.0,
            _ => return Err(wrong()),
        };
        rest = &rest[letters..];
        total += Duration::try_from_secs_f64(number * seconds).map_err(|_| wrong())?;
    }
    Ok(total)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn durations_are_gos() {
        let table = [
            ("0", Some(0)),
            ("30s", Some(30_000)),
            ("1h30m", Some(5_400_000)),
            ("1.5s", Some(1500)),
            ("500ms", Some(500)),
            ("30", None),
            ("", None),
            ("-1s", None),
            ("1y", None),
        ];
        for (text, ms) in table {
            assert_eq!(duration(text).ok().map(|time| time.as_millis()), ms, "{text}");
        }
    }
}
