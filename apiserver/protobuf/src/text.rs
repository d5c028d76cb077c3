//! Times as RFC 3339 and durations as Go write them.

use std::fmt::Write;

const NANO: u64 = 1_000_000_000;

/// `micros`: of a MicroTime, which always shows six digits. `None`: before the year 0 or after 9999.
pub(crate) fn rfc3339(seconds: i64, micros: Option<u32>) -> Option<String> {
    let (days, rest) = (seconds.div_euclid(86_400), seconds.rem_euclid(86_400));
    let (year, month, day) = civil(days);
    if !(0..=9999).contains(&year) {
        return None;
    }
    let (hour, minute, second) = (rest / 3600, rest / 60 % 60, rest % 60);
    let mut text = format!("{year:04}-{month:02}-{day:02}T{hour:02}:{minute:02}:{second:02}");
    if let Some(micros) = micros {
        let _ = write!(text, ".{micros:06}");
    }
    text.push('Z');
    Some(text)
}

/// Seconds since 1970 and nanoseconds.
pub(crate) fn parse_rfc3339(text: &str) -> Option<(i64, u32)> {
    let bytes = text.as_bytes();
    let digits = |from: usize, to: usize| -> Option<i64> {
        let part = text.get(from..to)?;
        if part.bytes().all(|byte| byte.is_ascii_digit()) { part.parse().ok() } else { None }
    };
    let is = |at: usize, wanted: &[u8]| bytes.get(at).is_some_and(|byte| wanted.contains(byte));
    if !(is(4, b"-") && is(7, b"-") && is(10, b"Tt") && is(13, b":") && is(16, b":")) {
        return None;
    }
    let (year, month, day) = (digits(0, 4)?, digits(5, 7)?, digits(8, 10)?);
    let (hour, minute, second) = (digits(11, 13)?, digits(14, 16)?, digits(17, 19)?);
    let in_range =
        (1..=12).contains(&month) && (1..=31).contains(&day) && hour < 24 && minute < 60 && second < 61;
    if !in_range || civil(days_of(year, month, day)) != (year, month, day) {
        return None;
    }
    let mut at = 19;
    let mut nanos = 0;
    if is(at, b".") {
        let end = at + 1 + bytes[at + 1..].iter().take_while(|byte| byte.is_ascii_digit()).count();
        let shown = text.get(at + 1..end.min(at + 10))?;
        nanos = shown.parse::<u32>().ok()? * 10_u32.pow(9 - shown.len() as u32);
        at = end;
    }
    let offset = match text.get(at..)? {
        "Z" | "z" => 0,
        zone if zone.len() == 6 && is(at, b"+-") && is(at + 3, b":") => {
            let offset = digits(at + 1, at + 3)? * 3600 + digits(at + 4, at + 6)? * 60;
            if is(at, b"-") { -offset } else { offset }
        }
        _ => return None,
    };
    Some((days_of(year, month, day) * 86_400 + hour * 3600 + minute * 60 + second - offset, nanos))
}

/// Days since 1970 to year, month, day. Source: Howard Hinnant, "chrono-compatible low-level date algorithms".
fn civil(days: i64) -> (i64, i64, i64) {
    let days = days + 719_468;
    let era = days.div_euclid(146_097);
    let of_era = days.rem_euclid(146_097);
    let year_of_era = (of_era - of_era / 1460 + of_era / 36_524 - of_era / 146_096) / 365;
    let of_year = of_era - (365 * year_of_era + year_of_era / 4 - year_of_era / 100);
    let shifted = (5 * of_year + 2) / 153;
    let month = if shifted < 10 { shifted + 3 } else { shifted - 9 };
    let year = year_of_era + era * 400 + i64::from(month <= 2);
    (year, month, of_year - (153 * shifted + 2) / 5 + 1)
}

fn days_of(year: i64, month: i64, day: i64) -> i64 {
    let year = if month <= 2 { year - 1 } else { year };
    let era = year.div_euclid(400);
    let year_of_era = year.rem_euclid(400);
    let shifted = if month > 2 { month - 3 } else { month + 9 };
    let of_year = (153 * shifted + 2) / 5 + day - 1;
    era * 146_097 + year_of_era * 365 + year_of_era / 4 - year_of_era / 100 + of_year - 719_468
}

/// As Go's `time.Duration.String`: `1h2m3.5s`, `1.5ms`, `0s`.
pub(crate) fn duration(nanos: i64) -> String {
    let (sign, all) = (if nanos < 0 { "-" } else { "" }, nanos.unsigned_abs());
    if all == 0 {
        return "0s".to_owned();
    }
    if all < NANO {
        let (unit, name) = match all {
            0..1000 => (1, "ns"),
            1000..1_000_000 => (1000, "µs"),
            _ => (1_000_000, "ms"),
        };
        return format!("{sign}{}{name}", decimal(all, unit));
    }
    let seconds = decimal(all % (60 * NANO), NANO);
    let (hours, minutes) = (all / NANO / 3600, all / NANO / 60 % 60);
    match (hours, minutes) {
        (0, 0) => format!("{sign}{seconds}s"),
        (0, _) => format!("{sign}{minutes}m{seconds}s"),
        _ => format!("{sign}{hours}h{minutes}m{seconds}s"),
    }
}

/// `value / unit` without zeros at its end; `unit` is a power of ten.
fn decimal(value: u64, unit: u64) -> String {
    let mut text = (value / unit).to_string();
    if !value.is_multiple_of(unit) {
        let fraction = format!("{:0width$}", value % unit, width = unit.ilog10() as usize);
        text.push('.');
        text.push_str(fraction.trim_end_matches('0'));
    }
    text
}

/// As Go's `time.ParseDuration`; nanoseconds.
pub(crate) fn parse_duration(text: &str) -> Option<i64> {
    let (negative, mut rest) = match text.strip_prefix('-') {
        Some(rest) => (true, rest),
        None => (false, text.strip_prefix('+').unwrap_or(text)),
    };
    if rest == "0" {
        return Some(0);
    }
    if rest.is_empty() {
        return None;
    }
    let mut nanos = 0_u128;
    while !rest.is_empty() {
        let number_end = rest.find(|c: char| !c.is_ascii_digit() && c != '.').unwrap_or(rest.len());
        let (number, after) = rest.split_at(number_end);
        let unit_end = after.find(|c: char| c.is_ascii_digit() || c == '.').unwrap_or(after.len());
        let (unit, after) = after.split_at(unit_end);
        let unit: u128 = match unit {
            "ns" => 1,
            "us" | "µs" | "μs" => 1000,
            "ms" => 1_000_000,
            "s" => 1_000_000_000,
            "m" => 60_000_000_000,
            "h" => 3_600_000_000_000,
            _ => return None,
        };
        let (whole, fraction) = number.split_once('.').unwrap_or((number, ""));
        if whole.len() > 20 || (whole.is_empty() && fraction.is_empty()) {
            return None;
        }
        let fraction = &fraction[..fraction.len().min(18)];
        let of = |digits: &str| if digits.is_empty() { Some(0) } else { digits.parse::<u128>().ok() };
        nanos += of(whole)? * unit + of(fraction)? * unit / 10_u128.pow(fraction.len() as u32);
        rest = after;
    }
    let nanos = i64::try_from(nanos).ok()?;
    Some(if negative { -nanos } else { nanos })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn times_are_written_as_rfc_3339_and_read_back() {
        #[rustfmt::skip]
        let table = [
            (0, "1970-01-01T00:00:00Z"),
            (-1, "1969-12-31T23:59:59Z"),
            (951_782_400, "2000-02-29T00:00:00Z"),
            (1_199_149_261, "2008-01-01T01:01:01Z"),
            (-62_135_596_800, "0001-01-01T00:00:00Z"),
            (253_402_300_799, "9999-12-31T23:59:59Z"),
        ];
        for (seconds, text) in table {
            assert_eq!(rfc3339(seconds, None).as_deref(), Some(text));
            assert_eq!(parse_rfc3339(text), Some((seconds, 0)), "{text}");
        }
        assert_eq!(rfc3339(253_402_300_800, None), None);
        assert_eq!(rfc3339(i64::MIN, None), None);
        assert_eq!(rfc3339(i64::MAX, None), None);
        assert_eq!(rfc3339(0, Some(42)).as_deref(), Some("1970-01-01T00:00:00.000042Z"));
        assert_eq!(parse_rfc3339("1970-01-01T01:00:00.25+01:00"), Some((0, 250_000_000)));
        for wrong in [
            "",
            "1970",
            "1970-02-30T00:00:00Z",
            "1970-01-01T00:00:00",
            "1970-01-01 00:00:00Z",
            "1970-01-01T00:00:00+1",
        ] {
            assert_eq!(parse_rfc3339(wrong), None, "{wrong}");
        }
    }

    #[test]
    fn durations_are_written_as_go_writes_them() {
        #[rustfmt::skip]
        let table = [
            (0, "0s"), (1, "1ns"), (1100, "1.1µs"), (2_200_000, "2.2ms"), (3_300_000_000, "3.3s"),
            (245_000_000_000, "4m5s"), (245_001_000_000, "4m5.001s"), (18_367_001_000_000, "5h6m7.001s"),
            (3_600_000_000_000, "1h0m0s"), (-1_500_000_000, "-1.5s"), (i64::MAX, "2562047h47m16.854775807s"),
        ];
        for (nanos, text) in table {
            assert_eq!(duration(nanos), text);
            assert_eq!(parse_duration(text), Some(nanos), "{text}");
        }
        assert_eq!(duration(i64::MIN), "-2562047h47m16.854775808s");
        for wrong in ["", "1", "s", ".s", "1x", "9999999h", "1e3s"] {
            assert_eq!(parse_duration(wrong), None, "{wrong}");
        }
    }
}
