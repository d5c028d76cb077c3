//! Kubernetes quantities (`500m`, `128Mi`, `1e3`) as exact numbers.

/// A quantity in billionths (nano), which is the finest unit Kubernetes has.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Default)]
pub struct Amount(i128);

const NANO: i128 = 1_000_000_000;
const BINARY: [(&str, u32); 6] = [("Ki", 10), ("Mi", 20), ("Gi", 30), ("Ti", 40), ("Pi", 50), ("Ei", 60)];
const DECIMAL: [(&str, i32); 10] =
    [("n", -9), ("u", -6), ("m", -3), ("", 0), ("k", 3), ("M", 6), ("G", 9), ("T", 12), ("P", 15), ("E", 18)];

impl Amount {
    /// `None`: not a quantity, or beyond 2^63 as quantities are. Finer than a billionth is rounded up.
    pub fn parse(text: &str) -> Option<Self> {
        let (negative, text) = match text.strip_prefix('-') {
            Some(rest) => (true, rest),
            None => (false, text.strip_prefix('+').unwrap_or(text)),
        };
        let digits = text.find(|c: char| !c.is_ascii_digit() && c != '.').unwrap_or(text.len());
        let (number, suffix) = text.split_at(digits);
        let (whole, fraction) = number.split_once('.').unwrap_or((number, ""));
        if (whole.is_empty() && fraction.is_empty()) || fraction.contains('.') || number.len() > 38 {
            return None;
        }
        let mantissa: i128 = format!("0{whole}{fraction}").parse().ok()?;
        let scaled = match BINARY.iter().find(|(name, _)| *name == suffix) {
            Some((_, bits)) => mantissa.checked_mul(1 << bits)?.checked_mul(NANO)?,
            None => mantissa.checked_mul(10_i128.checked_pow((9 + exponent(suffix)?).max(0) as u32)?)?,
        };
        // What the exponent could not take below a billionth, and the fraction, is divided out, rounding up.
        let below =
            if BINARY.iter().any(|(n, _)| *n == suffix) { 0 } else { (-(9 + exponent(suffix)?)).max(0) };
        let divisor = 10_i128.checked_pow(u32::try_from(below).ok()? + fraction.len() as u32)?;
        let value = scaled.div_euclid(divisor) + i128::from(scaled.rem_euclid(divisor) != 0);
        (value <= i128::from(i64::MAX) * NANO).then_some(Self(if negative { -value } else { value }))
    }

    pub const fn from_units(units: i64) -> Self {
        Self(units as i128 * NANO)
    }
    /// Units (bytes, cores), rounded up as upstream's `Quantity.Value`.
    pub fn units(self) -> i64 {
        ceil(self.0, NANO)
    }
    /// Thousandths, rounded up as upstream's `Quantity.MilliValue`.
    pub fn milli(self) -> i64 {
        ceil(self.0, NANO / 1000)
    }
    pub fn is_zero(self) -> bool {
        self.0 == 0
    }
    pub fn is_negative(self) -> bool {
        self.0 < 0
    }
    /// How many times `divisor`, rounded up (`resourceFieldRef.divisor`).
    pub fn divided_by(self, divisor: Self) -> i64 {
        ceil(self.0, if divisor.0 == 0 { NANO } else { divisor.0 })
    }
}

impl std::ops::Add for Amount {
    type Output = Self;
    fn add(self, other: Self) -> Self {
        Self(self.0.saturating_add(other.0))
    }
}

fn ceil(value: i128, unit: i128) -> i64 {
    let quotient = value.div_euclid(unit) + i128::from(value.rem_euclid(unit) != 0);
    i64::try_from(quotient).unwrap_or(if quotient < 0 { i64::MIN } else { i64::MAX })
}

fn exponent(suffix: &str) -> Option<i32> {
    if let Some((_, power)) = DECIMAL.iter().find(|(name, _)| *name == suffix) {
        return Some(*power);
    }
    let digits = suffix.strip_prefix(['e', 'E'])?;
    digits.parse::<i32>().ok().filter(|e| (-18..=18).contains(e))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn quantities_are_read_as_upstream_reads_them() {
        for (text, milli) in [
            ("1", 1000),
            ("500m", 500),
            ("0.5", 500),
            (".5", 500),
            ("1.", 1000),
            ("2k", 2_000_000),
            ("1Ki", 1_024_000),
            ("1.5Gi", 1_610_612_736_000),
            ("1e3", 1_000_000),
            ("1E3", 1_000_000),
            ("12e-1", 1200),
            ("1n", 1),
            ("100u", 1),
            ("-1", -1000),
            ("0", 0),
        ] {
            assert_eq!(Amount::parse(text).map(Amount::milli), Some(milli), "{text}");
        }
        assert_eq!(Amount::parse("1E").map(Amount::units), Some(1_000_000_000_000_000_000));
        assert_eq!(Amount::parse("100m").map(Amount::units), Some(1), "rounded up");
    }

    #[test]
    fn what_is_no_quantity_is_refused() {
        for text in
            ["", "Mi", "1 Gi", "1mi", "1.2.3", "1e99", "0x10", "--1", "99999999999999999999", "1KiB", "."]
        {
            assert_eq!(Amount::parse(text), None, "{text}");
        }
    }

    #[test]
    fn division_rounds_up() {
        let divide = |a: &str, b: &str| Amount::parse(a).expect(a).divided_by(Amount::parse(b).expect(b));
        assert_eq!(divide("250m", "1"), 1);
        assert_eq!(divide("250m", "1m"), 250);
        assert_eq!(divide("64Mi", "1Mi"), 64);
        assert_eq!(divide("64Mi", "0"), 67_108_864);
    }
}
