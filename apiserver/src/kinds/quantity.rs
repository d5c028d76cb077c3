//! Quantities: `500m`, `1Gi`, `1e3`. Exact to a nano, rounded up below that. Source: apimachinery
//! `pkg/api/resource/quantity.go`.

use std::fmt;

const NANO: i128 = 1_000_000_000;

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Form {
    Decimal,
    Exponent,
    Binary,
}

/// An amount, in units of 10⁻⁹, and the way it is written.
#[derive(Debug, Clone, Copy)]
pub struct Quantity {
    nanos: i128,
    form: Form,
}

const DECIMAL: [(&str, i32); 10] =
    [("n", -9), ("u", -6), ("m", -3), ("", 0), ("k", 3), ("M", 6), ("G", 9), ("T", 12), ("P", 15), ("E", 18)];
const BINARY: [(&str, u32); 6] = [("Ki", 10), ("Mi", 20), ("Gi", 30), ("Ti", 40), ("Pi", 50), ("Ei", 60)];

impl Quantity {
    /// `None`: it is none.
    pub fn parse(text: &str) -> Option<Self> {
        let (negative, rest) = match text.as_bytes().first()? {
            b'-' => (true, &text[1..]),
            b'+' => (false, &text[1..]),
            _ => (false, text),
        };
        let end = rest.find(|c: char| !c.is_ascii_digit() && c != '.').unwrap_or(rest.len());
        let (number, suffix) = rest.split_at(end);
        let (whole, fraction) = number.split_once('.').unwrap_or((number, ""));
        if whole.is_empty() && fraction.is_empty() || fraction.contains('.') {
            return None;
        }
        let (form, two, ten) = suffix_of(suffix)?;
        let digits = format!("{whole}{fraction}");
        let digits = digits.trim_start_matches('0');
        // More than Int64 can hold is capped, as upstream does.
        let cap = i128::from(i64::MAX) * NANO;
        let mantissa: i128 = if digits.is_empty() { 0 } else { digits.parse().unwrap_or(cap) };
        let scale = ten - i32::try_from(fraction.len()).ok()? + 9;
        let nanos = scaled(mantissa.checked_mul(1 << two).unwrap_or(cap), scale).min(cap);
        Some(Self { nanos: if negative { -nanos } else { nanos }, form })
    }

    pub fn of(value: &serde_json::Value) -> Option<Self> {
        match value {
            serde_json::Value::String(text) => Self::parse(text),
            serde_json::Value::Number(number) => Self::parse(&number.to_string()),
            _ => None,
        }
    }

    pub fn is_negative(self) -> bool {
        self.nanos < 0
    }

    pub fn is_positive(self) -> bool {
        self.nanos > 0
    }

    pub fn is_zero(self) -> bool {
        self.nanos == 0
    }

    /// In whole units, rounded up.
    pub fn value(self) -> i64 {
        i64::try_from(div_up(self.nanos, NANO)).unwrap_or(i64::MAX)
    }

    /// In thousandths, rounded up.
    pub fn milli(self) -> i128 {
        div_up(self.nanos, NANO / 1000)
    }

    /// It has no fraction (seen at a thousandth).
    pub fn is_whole(self) -> bool {
        self.milli() % 1000 == 0
    }

    #[must_use]
    pub fn plus(self, other: Self) -> Self {
        Self { nanos: self.nanos.saturating_add(other.nanos), form: self.form }
    }

    /// Rounded up to thousandths, as every resource list is.
    #[must_use]
    pub fn round_to_milli(self) -> Self {
        Self { nanos: self.milli() * (NANO / 1000), form: self.form }
    }
}

impl PartialEq for Quantity {
    fn eq(&self, other: &Self) -> bool {
        self.nanos == other.nanos
    }
}

impl Eq for Quantity {}

impl PartialOrd for Quantity {
    fn partial_cmp(&self, other: &Self) -> Option<std::cmp::Ordering> {
        Some(self.cmp(other))
    }
}

impl Ord for Quantity {
    fn cmp(&self, other: &Self) -> std::cmp::Ordering {
        self.nanos.cmp(&other.nanos)
    }
}

/// The canonical form: no fraction, the largest suffix that leaves none.
impl fmt::Display for Quantity {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        if self.nanos == 0 {
            return f.write_str("0");
        }
        let whole = self.nanos / NANO;
        if self.form == Form::Binary && self.nanos % NANO == 0 && whole.abs() >= 1024 {
            let by = (whole.trailing_zeros() / 10).min(6);
            let suffix = by.checked_sub(1).map_or("", |at| BINARY[at as usize].0);
            return write!(f, "{}{suffix}", whole >> (10 * by));
        }
        let (mut number, mut exponent) = (self.nanos, -9);
        while number % 1000 == 0 && exponent < 18 {
            number /= 1000;
            exponent += 3;
        }
        if self.form == Form::Exponent {
            return if exponent == 0 { write!(f, "{number}") } else { write!(f, "{number}e{exponent}") };
        }
        let suffix = DECIMAL.iter().find(|(_, at)| *at == exponent).map_or("", |(suffix, _)| suffix);
        write!(f, "{number}{suffix}")
    }
}

/// The canonical form of a text; `None`: it is no quantity.
pub fn canonical(text: &str) -> Option<String> {
    Quantity::parse(text).map(|quantity| quantity.to_string())
}

/// Form, power of two, power of ten.
fn suffix_of(suffix: &str) -> Option<(Form, u32, i32)> {
    if let Some((_, ten)) = DECIMAL.iter().find(|(name, _)| *name == suffix) {
        return Some((Form::Decimal, 0, *ten));
    }
    if let Some((_, two)) = BINARY.iter().find(|(name, _)| *name == suffix) {
        return Some((Form::Binary, *two, 0));
    }
    let exponent = suffix.strip_prefix(['e', 'E'])?;
    let ten: i32 = exponent.strip_prefix('+').unwrap_or(exponent).parse().ok()?;
    (-1000..=1000).contains(&ten).then_some((Form::Exponent, 0, ten))
}

/// times 10^scale; rounded up.
fn scaled(number: i128, scale: i32) -> i128 {
    let ten = 10_i128.checked_pow(scale.unsigned_abs());
    match (scale >= 0, ten) {
        (true, Some(ten)) => number.saturating_mul(ten),
        (true, None) => {
            if number == 0 {
                0
            } else {
                i128::MAX
            }
        }
        (false, Some(ten)) => div_up(number, ten),
        (false, None) => i128::from(number > 0),
    }
}

fn div_up(number: i128, by: i128) -> i128 {
    let quotient = number / by;
    if number > 0 && number % by != 0 { quotient + 1 } else { quotient }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn quantities_are_written_as_upstream_writes_them() {
        for (text, expected) in [
            ("0", "0"),
            ("0.5", "500m"),
            ("1000m", "1"),
            ("1500m", "1500m"),
            ("1024Mi", "1Gi"),
            ("1Ki", "1Ki"),
            ("1000Ki", "1000Ki"),
            ("512", "512"),
            ("1000", "1k"),
            ("1e3", "1e3"),
            ("1E", "1E"),
            ("0.1Ki", "102400m"),
            ("1.5Gi", "1536Mi"),
            ("-1", "-1"),
            ("100m", "100m"),
            ("0.0000000001", "1n"),
            ("12e6", "12e6"),
        ] {
            assert_eq!(canonical(text).as_deref(), Some(expected), "{text}");
        }
        for text in ["", "a", "1.2.3", "1Zi", "1 Gi", "--1", "1e", ".", "Ki"] {
            assert_eq!(canonical(text), None, "{text}");
        }
    }

    #[test]
    fn quantities_compare_by_amount() {
        let of = |text| Quantity::parse(text).expect("a quantity");
        assert_eq!(of("1"), of("1000m"));
        assert!(of("1Gi") > of("1G"));
        assert!(of("-1").is_negative());
        assert!(!of("1500m").is_whole());
        assert_eq!(of("1500m").value(), 2);
    }
}
