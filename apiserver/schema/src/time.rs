//! RFC 3339 as Go reads and upstream writes it: in UTC, to the second or the microsecond.

/// What is kept of a fraction.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Precision {
    Seconds,
    Micros,
}

/// Upstream's form of a time; `None`: it has that form.
///
/// # Errors
/// Go's words for what is no time.
pub(crate) fn rewrite(text: &str, precision: Precision) -> Result<Option<String>, String> {
    let (seconds, nanos) = parse(text, layout(precision))?;
    let new = format(seconds, nanos, precision);
    Ok((new != text).then_some(new))
}

fn layout(precision: Precision) -> &'static str {
    match precision {
        Precision::Seconds => "2006-01-02T15:04:05Z07:00",
        Precision::Micros => "2006-01-02T15:04:05.000000Z07:00",
    }
}

/// Seconds since 1970 and nanoseconds, of RFC 3339.
pub fn seconds(text: &str) -> Option<i64> {
    parse(text, layout(Precision::Seconds)).ok().map(|(seconds, _)| seconds)
}

/// `2026-01-02T15:04:05Z`, `2026-01-02T15:04:05.000001Z`.
pub fn format(seconds: i64, nanos: u32, precision: Precision) -> String {
    let (days, of_day) = (seconds.div_euclid(86_400), seconds.rem_euclid(86_400));
    let (year, month, day) = civil(days);
    let (hour, minute, second) = (of_day / 3600, of_day / 60 % 60, of_day % 60);
    let fraction = match precision {
        Precision::Seconds => String::new(),
        Precision::Micros => format!(".{:06}", nanos / 1000),
    };
    format!("{year:04}-{month:02}-{day:02}T{hour:02}:{minute:02}:{second:02}{fraction}Z")
}

/// Source: Howard Hinnant, "chrono-Compatible Low-Level Date Algorithms".
fn civil(days: i64) -> (i64, i64, i64) {
    let days = days + 719_468;
    let era = days.div_euclid(146_097);
    let of_era = days.rem_euclid(146_097);
    let year_of_era = (of_era - of_era / 1460 + of_era / 36_524 - of_era / 146_096) / 365;
    let of_year = of_era - (365 * year_of_era + year_of_era / 4 - year_of_era / 100);
    let shifted = (5 * of_year + 2) / 153;
    let day = of_year - (153 * shifted + 2) / 5 + 1;
    let month = if shifted < 10 { shifted + 3 } else { shifted - 9 };
    (year_of_era + era * 400 + i64::from(month <= 2), month, day)
}

fn days(year: i64, month: i64, day: i64) -> i64 {
    let year = if month <= 2 { year - 1 } else { year };
    let era = year.div_euclid(400);
    let year_of_era = year.rem_euclid(400);
    let shifted = if month > 2 { month - 3 } else { month + 9 };
    let of_year = (153 * shifted + 2) / 5 + day - 1;
    era * 146_097 + year_of_era * 365 + year_of_era / 4 - year_of_era / 100 + of_year - 719_468
}

struct Reader<'a> {
    whole: &'a str,
    rest: &'a str,
    layout: &'static str,
}

impl Reader<'_> {
    fn wrong(&self, element: &str) -> String {
        format!(
            "parsing time {:?} as {:?}: cannot parse {:?} as {element:?}",
            self.whole, self.layout, self.rest
        )
    }

    fn out_of_range(&self, what: &str) -> String {
        format!("parsing time {:?}: {what} out of range", self.whole)
    }

    fn digits(&mut self, count: usize, element: &str) -> Result<i64, String> {
        let digits = self.rest.get(..count).filter(|digits| digits.bytes().all(|byte| byte.is_ascii_digit()));
        let number = digits.and_then(|digits| digits.parse().ok()).ok_or_else(|| self.wrong(element))?;
        self.rest = &self.rest[count..];
        Ok(number)
    }

    fn literal(&mut self, text: &str) -> Result<(), String> {
        self.rest = self.rest.strip_prefix(text).ok_or_else(|| self.wrong(text))?;
        Ok(())
    }

    fn fraction(&mut self) -> u32 {
        let Some(digits) = self.rest.strip_prefix(['.', ',']) else { return 0 };
        let length = digits.bytes().position(|byte| !byte.is_ascii_digit()).unwrap_or(digits.len());
        if length == 0 {
            return 0;
        }
        self.rest = &digits[length..];
        let nine: String = digits[..length].chars().chain("000000000".chars()).take(9).collect();
        nine.parse().unwrap_or_default()
    }
}

fn parse(text: &str, layout: &'static str) -> Result<(i64, u32), String> {
    let mut read = Reader { whole: text, rest: text, layout };
    let year = read.digits(4, "2006")?;
    read.literal("-")?;
    let month = read.digits(2, "01")?;
    if !(1..=12).contains(&month) {
        return Err(read.out_of_range("month"));
    }
    read.literal("-")?;
    let day = read.digits(2, "02")?;
    read.literal("T")?;
    let hour = read.digits(2, "15")?;
    if hour > 23 {
        return Err(read.out_of_range("hour"));
    }
    read.literal(":")?;
    let minute = read.digits(2, "04")?;
    if minute > 59 {
        return Err(read.out_of_range("minute"));
    }
    read.literal(":")?;
    let second = read.digits(2, "05")?;
    if second > 59 {
        return Err(read.out_of_range("second"));
    }
    let nanos = read.fraction();
    let offset = if let Some(rest) = read.rest.strip_prefix('Z') {
        read.rest = rest;
        0
    } else {
        let sign = match read.rest.bytes().next() {
            Some(b'+') => 1,
            Some(b'-') => -1,
            _ => return Err(read.wrong("Z07:00")),
        };
        let whole = read.rest;
        read.rest = &read.rest[1..];
        let parts = read.digits(2, "").and_then(|hours| read.literal(":").map(|()| hours));
        let parts = parts.and_then(|hours| read.digits(2, "").map(|minutes| (hours, minutes)));
        let Ok((hours, minutes)) = parts else {
            read.rest = whole;
            return Err(read.wrong("Z07:00"));
        };
        sign * (hours * 3600 + minutes * 60)
    };
    if !read.rest.is_empty() {
        return Err(format!("parsing time {text:?}: extra text: {:?}", read.rest));
    }
    let at = days(year, month, day);
    if day < 1 || civil(at) != (year, month, day) {
        return Err(read.out_of_range("day"));
    }
    Ok((at * 86_400 + hour * 3600 + minute * 60 + second - offset, nanos))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn times_are_written_in_utc() {
        for (text, precision, expected) in [
            ("2026-01-02T03:04:05Z", Precision::Seconds, None),
            ("2026-01-02T03:04:05.999Z", Precision::Seconds, Some("2026-01-02T03:04:05Z")),
            ("2024-02-29T23:30:00-01:30", Precision::Seconds, Some("2024-03-01T01:00:00Z")),
            ("2026-01-02T03:04:05.123456Z", Precision::Micros, None),
            ("2026-01-02T03:04:05Z", Precision::Micros, Some("2026-01-02T03:04:05.000000Z")),
            ("1969-12-31T23:59:59Z", Precision::Seconds, None),
            ("0001-01-01T00:00:00Z", Precision::Seconds, None),
        ] {
            assert_eq!(rewrite(text, precision), Ok(expected.map(str::to_owned)), "{text}");
        }
    }

    #[test]
    fn what_is_no_time_is_refused_in_gos_words() {
        for (text, expected) in [
            ("", r#"parsing time "" as "2006-01-02T15:04:05Z07:00": cannot parse "" as "2006""#),
            ("2026-13-01T00:00:00Z", r#"parsing time "2026-13-01T00:00:00Z": month out of range"#),
            ("2026-02-30T00:00:00Z", r#"parsing time "2026-02-30T00:00:00Z": day out of range"#),
            (
                "2026-01-01 00:00:00Z",
                r#"parsing time "2026-01-01 00:00:00Z" as "2006-01-02T15:04:05Z07:00": cannot parse " 00:00:00Z" as "T""#,
            ),
            ("2026-01-01T00:00:00Zx", r#"parsing time "2026-01-01T00:00:00Zx": extra text: "x""#),
        ] {
            assert_eq!(rewrite(text, Precision::Seconds), Err(expected.to_owned()), "{text}");
        }
    }
}
