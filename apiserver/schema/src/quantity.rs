//! Kubernetes' quantities (`100m`, `1536Mi`, `12e6`): what is one, and the form upstream writes it in.
//! Source: apimachinery `pkg/api/resource/quantity.go`.

use std::cmp::Ordering;
use std::fmt;

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Error {
    Form,
    Number,
    Suffix,
}

impl fmt::Display for Error {
    fn fmt(&self, to: &mut fmt::Formatter<'_>) -> fmt::Result {
        to.write_str(match self {
            Self::Form => {
                "quantities must match the regular expression '^([+-]?[0-9.]+)([eEinumkKMGTP]*[-+]?[0-9]*)$'"
            }
            Self::Number => "unable to parse numeric part of quantity",
            Self::Suffix => "unable to parse quantity's suffix",
        })
    }
}

impl std::error::Error for Error {}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Form {
    Decimal,
    Exponent,
    Binary,
}

/// `unscaled` × 10^`scale`.
#[derive(Debug, Clone)]
pub struct Quantity {
    unscaled: i128,
    scale: i32,
    form: Form,
    /// Upstream hands back some texts as they came.
    kept: Option<String>,
}

/// Upstream counts in 10^-9 at the finest; what is finer is rounded away from zero.
const NANO: i32 = -9;
const MOST: i128 = i64::MAX as i128;

impl Quantity {
    pub fn parse(text: &str) -> Result<Self, Error> {
        let parts = Parts::of(text)?;
        let (base, exponent, mut form) = suffix(parts.suffix).ok_or(Error::Suffix)?;
        let digits = parts.whole.len() + parts.fraction.len();
        let shifted = format!("{}{}", parts.whole, parts.fraction);
        let unscaled: i128 = shifted.parse().map_err(|_| Error::Number)?;
        let mut scale = -i32::try_from(parts.fraction.len()).map_err(|_| Error::Number)?;
        let mut value = unscaled;
        // As upstream: what fits its fast path, and looks canonical enough to it, is kept as it came.
        let mut kept = false;
        if base == 2 {
            let shift = u32::try_from(exponent).map_err(|_| Error::Suffix)?;
            value = value.checked_mul(1_i128 << shift).ok_or(Error::Number)?;
            let precision = 15 - parts.whole.len() as i32 - (f64::from(exponent) * 3.0 / 10.0) as i32 - 1;
            kept = scale == 0 && precision >= 0 && value <= MOST && unscaled & 7 != 0;
        } else {
            scale = scale.checked_add(exponent).ok_or(Error::Suffix)?;
            let fast = digits <= 18 && scale >= NANO;
            kept |= fast && scale % 3 == 0 && !shifted.ends_with("000") && !shifted.starts_with('0');
        }
        kept |= text == "0";
        if scale < NANO {
            // Away from zero.
            let by = 10_i128.checked_pow((NANO - scale) as u32);
            value = by.map_or(i128::from(value > 0), |by| value / by + i128::from(value % by != 0));
            scale = NANO;
        }
        if form == Form::Binary {
            if compare(value, scale, MOST, 0) == Ordering::Greater {
                (value, scale) = (MOST, 0);
            }
            if !kept && value > 0 && compare(value, scale, 1, 0) == Ordering::Less {
                form = Form::Decimal;
            }
        }
        let unscaled = if parts.negative { -value } else { value };
        Ok(Self { unscaled, scale, form, kept: kept.then(|| text.to_owned()) })
    }

    pub fn is_negative(&self) -> bool {
        self.unscaled < 0
    }

    pub fn is_zero(&self) -> bool {
        self.unscaled == 0
    }

    /// Which is more.
    pub fn compare(&self, other: &Self) -> Ordering {
        compare(self.unscaled, self.scale, other.unscaled, other.scale)
    }

    /// Both together, in the form of the first that is not zero.
    #[must_use]
    pub fn plus(&self, other: &Self) -> Self {
        let scale = self.scale.min(other.scale);
        let at = |one: &Self| one.unscaled.saturating_mul(10_i128.saturating_pow(one.scale.abs_diff(scale)));
        let form = if self.is_zero() { other.form } else { self.form };
        Self { unscaled: at(self).saturating_add(at(other)), scale, form, kept: None }
    }

    /// In whole units, rounded up; beyond what an i64 holds: the most it holds.
    pub fn value(&self) -> i64 {
        self.scaled(0)
    }

    /// In thousandths, rounded up.
    pub fn milli_value(&self) -> i64 {
        self.scaled(-3)
    }

    fn scaled(&self, scale: i32) -> i64 {
        let by = 10_i128.saturating_pow(self.scale.abs_diff(scale));
        let value = if self.scale >= scale {
            self.unscaled.saturating_mul(by)
        } else {
            self.unscaled / by + if self.unscaled % by == 0 { 0 } else { self.unscaled.signum() }
        };
        i64::try_from(value).unwrap_or(if value < 0 { i64::MIN } else { i64::MAX })
    }
}

fn compare(a: i128, a_scale: i32, b: i128, b_scale: i32) -> Ordering {
    if a == 0 || b == 0 || a.signum() != b.signum() {
        return a.signum().cmp(&b.signum());
    }
    let by = 10_i128.checked_pow(a_scale.abs_diff(b_scale));
    // What does not fit is beyond what the other can be.
    let (left, right) = if a_scale >= b_scale {
        (by.and_then(|by| a.checked_mul(by)), Some(b))
    } else {
        (Some(a), by.and_then(|by| b.checked_mul(by)))
    };
    match (left, right) {
        (Some(left), Some(right)) => left.cmp(&right),
        (None, _) => a.signum().cmp(&0),
        (_, None) => 0.cmp(&b.signum()),
    }
}

impl fmt::Display for Quantity {
    fn fmt(&self, to: &mut fmt::Formatter<'_>) -> fmt::Result {
        if let Some(text) = &self.kept {
            return to.write_str(text);
        }
        if self.unscaled == 0 {
            return to.write_str("0");
        }
        let (mut value, mut scale) = (self.unscaled, self.scale);
        while value % 10 == 0 {
            value /= 10;
            scale += 1;
        }
        let small = compare(value.abs(), scale, 1024, 0) == Ordering::Less;
        if self.form == Form::Binary && !small && scale >= 0 {
            let mut whole = value * 10_i128.pow(scale as u32);
            let mut times = 0;
            while whole % 1024 == 0 && times < 6 {
                whole /= 1024;
                times += 1;
            }
            return write!(to, "{whole}{}", ["", "Ki", "Mi", "Gi", "Ti", "Pi", "Ei"][times]);
        }
        while scale.rem_euclid(3) != 0 {
            value *= 10;
            scale -= 1;
        }
        match (self.form, scale) {
            (_, 0) => write!(to, "{value}"),
            (Form::Exponent, scale) => write!(to, "{value}e{scale}"),
            (Form::Decimal | Form::Binary, scale) => {
                let suffix = DECIMAL.iter().find(|(_, exponent)| *exponent == scale);
                write!(to, "{value}{}", suffix.map_or("", |(suffix, _)| suffix))
            }
        }
    }
}

const DECIMAL: [(&str, i32); 10] =
    [("n", -9), ("u", -6), ("m", -3), ("", 0), ("k", 3), ("M", 6), ("G", 9), ("T", 12), ("P", 15), ("E", 18)];
const BINARY: [(&str, i32); 6] = [("Ki", 10), ("Mi", 20), ("Gi", 30), ("Ti", 40), ("Pi", 50), ("Ei", 60)];

/// Base and exponent.
fn suffix(text: &str) -> Option<(u32, i32, Form)> {
    if let Some((_, exponent)) = DECIMAL.iter().find(|(suffix, _)| *suffix == text) {
        return Some((10, *exponent, Form::Decimal));
    }
    if let Some((_, exponent)) = BINARY.iter().find(|(suffix, _)| *suffix == text) {
        return Some((2, *exponent, Form::Binary));
    }
    let exponent = text.strip_prefix(['e', 'E'])?;
    Some((10, exponent.parse().ok()?, Form::Exponent))
}

struct Parts<'a> {
    negative: bool,
    /// Without zeros before it, except a single one.
    whole: &'a str,
    fraction: &'a str,
    suffix: &'a str,
}

impl<'a> Parts<'a> {
    fn of(text: &'a str) -> Result<Self, Error> {
        if text.is_empty() {
            return Err(Error::Form);
        }
        let digits = |text: &'a str| {
            text.split_at(text.bytes().position(|byte| !byte.is_ascii_digit()).unwrap_or(text.len()))
        };
        let negative = text.starts_with('-');
        let rest = text.strip_prefix(['-', '+']).unwrap_or(text);
        let (whole, rest) = digits(rest.trim_start_matches('0'));
        let whole = if whole.is_empty() { "0" } else { whole };
        let (fraction, suffix) = rest.strip_prefix('.').map_or(("", rest), digits);
        let letters = suffix.trim_start_matches(|letter: char| "eEinumkKMGTP".contains(letter));
        let letters = letters.strip_prefix(['-', '+']).unwrap_or(letters);
        if !letters.bytes().all(|byte| byte.is_ascii_digit()) {
            return Err(Error::Form);
        }
        Ok(Self { negative, whole, fraction, suffix })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn quantities_are_written_as_upstream_writes_them() {
        for (text, expected) in [
            ("0", "0"),
            ("0.0", "0"),
            ("0.5", "500m"),
            ("1.5", "1500m"),
            ("1.5Gi", "1536Mi"),
            ("1024Mi", "1Gi"),
            ("1025Mi", "1025Mi"),
            ("1000m", "1"),
            ("1e3", "1e3"),
            ("1000e0", "1e3"),
            ("12E6", "12E6"),
            ("1000000", "1M"),
            ("1000k", "1M"),
            ("0.1n", "1n"),
            ("-0.5", "-500m"),
            ("512", "512"),
            ("0.5Ki", "512"),
            ("0.5", "500m"),
            ("1.125", "1.125"),
            ("100.000", "100"),
            ("2Ei", "2Ei"),
            ("+1", "+1"),
            ("1.", "1."),
            ("9999999999Ei", "9223372036854775807"),
            ("64", "64"),
            ("8Gi", "8Gi"),
            ("0.001Ki", "1024m"),
        ] {
            let quantity = Quantity::parse(text).unwrap_or_else(|error| panic!("{text}: {error}"));
            assert_eq!(quantity.to_string(), expected, "{text}");
        }
    }

    #[test]
    fn what_is_no_quantity_is_refused() {
        for (text, expected) in [
            ("", Error::Form),
            ("1 Gi", Error::Form),
            ("abc", Error::Form),
            ("1.2.3", Error::Form),
            ("1ki", Error::Suffix),
            ("10GB", Error::Form),
            ("1e", Error::Suffix),
        ] {
            assert_eq!(Quantity::parse(text).map(|quantity| quantity.to_string()), Err(expected), "{text}");
        }
    }

    #[test]
    fn quantities_compare_across_suffixes_and_never_overflow() {
        let quantity = |text| Quantity::parse(text).expect(text);
        assert_eq!(quantity("1Gi").compare(&quantity("1G")), Ordering::Greater);
        assert_eq!(quantity("1000m").compare(&quantity("1")), Ordering::Equal);
        assert_eq!(quantity("-1").compare(&quantity("1n")), Ordering::Less);
        assert_eq!(quantity("1e300").compare(&quantity("1")), Ordering::Greater);
        assert_eq!(quantity("1").compare(&quantity("1e300")), Ordering::Less);
        assert_eq!((quantity("1500m").value(), quantity("1500m").milli_value()), (2, 1500));
        assert_eq!(quantity("1e300").value(), i64::MAX);
        let _ = (
            quantity("1e300").to_string(),
            quantity("1e-300").to_string(),
            quantity("1e2147483647").milli_value(),
        );
    }
}
