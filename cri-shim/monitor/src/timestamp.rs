//! Time as the CRI log writes it.

use std::time::{SystemTime, UNIX_EPOCH};

/// Now, as Unix time in nanoseconds.
pub fn now_unix_nanos() -> i64 {
    SystemTime::now().duration_since(UNIX_EPOCH).map_or(0, |time| time.as_nanos() as i64)
}

/// Appends RFC 3339 in UTC as Go's `time.RFC3339Nano` has it, which the kubelet parses: trailing zeros of the fraction
/// are left out.
pub fn push_rfc3339(out: &mut Vec<u8>, unix_nanos: i64) {
    let (seconds, nanos) = (unix_nanos.div_euclid(1_000_000_000), unix_nanos.rem_euclid(1_000_000_000));
    let (days, second) = (seconds.div_euclid(86_400), seconds.rem_euclid(86_400));
    let (year, month, day) = civil(days);
    push_digits(out, year, 4);
    for (separator, value) in
        [(b'-', month), (b'-', day), (b'T', second / 3600), (b':', second / 60 % 60), (b':', second % 60)]
    {
        out.push(separator);
        push_digits(out, value, 2);
    }
    if nanos > 0 {
        out.push(b'.');
        push_digits(out, nanos, 9);
        while out.last() == Some(&b'0') {
            out.pop();
        }
    }
    out.push(b'Z');
}

fn push_digits(out: &mut Vec<u8>, value: i64, width: u32) {
    out.extend((0..width).rev().map(|place| b'0' + (value / 10_i64.pow(place) % 10) as u8));
}

/// Year, month and day of a day counted from 1970-01-01, in the Gregorian calendar: years run from March, so that the
/// leap day is the last of its year.
fn civil(days: i64) -> (i64, i64, i64) {
    let days = days + 719_468;
    let era = days.div_euclid(146_097);
    let of_era = days.rem_euclid(146_097);
    let year_of_era = (of_era - of_era / 1_460 + of_era / 36_524 - of_era / 146_096) / 365;
    let of_year = of_era - (365 * year_of_era + year_of_era / 4 - year_of_era / 100);
    let from_march = (5 * of_year + 2) / 153;
    let day = of_year - (153 * from_march + 2) / 5 + 1;
    let month = if from_march < 10 { from_march + 3 } else { from_march - 9 };
    (year_of_era + era * 400 + i64::from(month <= 2), month, day)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn time_is_written_as_go_writes_it() {
        for (nanos, text) in [
            (0, "1970-01-01T00:00:00Z"),
            (951_827_696_000_000_000, "2000-02-29T12:34:56Z"),
            (1_709_251_199_999_999_999, "2024-02-29T23:59:59.999999999Z"),
            (1_709_251_200_120_000_000, "2024-03-01T00:00:00.12Z"),
            (4_102_444_799_000_000_001, "2099-12-31T23:59:59.000000001Z"),
        ] {
            let mut out = Vec::new();
            push_rfc3339(&mut out, nanos);
            assert_eq!(String::from_utf8(out).unwrap(), text);
        }
    }
}
