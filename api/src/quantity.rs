//! Kubernetes quantities: `64M`, `1.5Gi`, `100m`, `2e3`.
//!
//! Exact integer arithmetic in billionths; what does not fit is an error, never a
//! wrapped or rounded number. The text is kept, so that it is written back as it came.

use std::cmp::Ordering;
use std::fmt;
use std::str::FromStr;

use serde::{Deserialize, Deserializer, Serialize, Serializer};

/// Billionths in one.
const NANO: i128 = 1_000_000_000;
/// Longest text that can be a quantity.
const LONGEST: usize = 64;
/// Source: the `Quantity` type of Kubernetes caps values at 2^63-1.
const LARGEST: i128 = i64::MAX as i128 * NANO;

/// An amount of something, in the notation of Kubernetes.
#[derive(Clone)]
pub struct Quantity {
    nanos: i128,
    text: Box<str>,
}

/// Why a text is no quantity.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum QuantityError {
    /// It does not follow the grammar.
    #[error("Not a quantity: write a number with an optional suffix, such as 512Mi, 1.5Gi, 64M or 100m")]
    Malformed,
    /// It is beyond 2^63-1.
    #[error("Too large: a quantity is at most 9223372036854775807")]
    TooLarge,
    /// It has more digits than an exact number can hold.
    #[error("Too many digits: a quantity is exact to one billionth")]
    TooPrecise,
}

impl Quantity {
    /// That many bytes, written with the largest binary suffix that is exact.
    #[must_use]
    pub fn from_bytes(bytes: u64) -> Self {
        const SUFFIXES: [(u32, &str); 6] =
            [(60, "Ei"), (50, "Pi"), (40, "Ti"), (30, "Gi"), (20, "Mi"), (10, "Ki")];
        let text = SUFFIXES
            .iter()
            .find(|(shift, _)| bytes != 0 && bytes.trailing_zeros() >= *shift)
            .map_or_else(|| bytes.to_string(), |(shift, suffix)| format!("{}{suffix}", bytes >> shift));
        Self { nanos: i128::from(bytes) * NANO, text: text.into() }
    }

    /// Whether it is below zero.
    #[must_use]
    pub fn is_negative(&self) -> bool {
        self.nanos < 0
    }

    /// Whether it is zero.
    #[must_use]
    pub fn is_zero(&self) -> bool {
        self.nanos == 0
    }

    /// The whole number it is, if it is one and not negative.
    #[must_use]
    pub fn whole(&self) -> Option<u64> {
        (self.nanos % NANO == 0).then(|| u64::try_from(self.nanos / NANO).ok()).flatten()
    }

    /// Bytes (or whole units), rounded up; a negative amount is zero.
    #[must_use]
    pub fn rounded_up(&self) -> u64 {
        let whole = self.nanos.max(0).div_euclid(NANO);
        let up = i128::from(self.nanos.max(0).rem_euclid(NANO) != 0);
        u64::try_from(whole + up).unwrap_or(u64::MAX)
    }
}

impl FromStr for Quantity {
    type Err = QuantityError;

    fn from_str(text: &str) -> Result<Self, QuantityError> {
        if text.is_empty() || text.len() > LONGEST || !text.is_ascii() {
            return Err(QuantityError::Malformed);
        }
        let (negative, rest) = match text.as_bytes() {
            [b'-', ..] => (true, text.get(1..).unwrap_or_default()),
            [b'+', ..] => (false, text.get(1..).unwrap_or_default()),
            _ => (false, text),
        };
        let end = rest.find(|c: char| !c.is_ascii_digit() && c != '.').unwrap_or(rest.len());
        let (number, suffix) = rest.split_at(end);
        let nanos = magnitude(number, scale_of(suffix)?)?;
        Ok(Self { nanos: if negative { -nanos } else { nanos }, text: text.into() })
    }
}

/// What a suffix multiplies by.
#[derive(Clone, Copy)]
enum Scale {
    Binary(u32),
    Decimal(i32),
}

fn scale_of(suffix: &str) -> Result<Scale, QuantityError> {
    Ok(match suffix {
        "n" => Scale::Decimal(-9),
        "u" => Scale::Decimal(-6),
        "m" => Scale::Decimal(-3),
        "" => Scale::Decimal(0),
        "k" => Scale::Decimal(3),
        "M" => Scale::Decimal(6),
        "G" => Scale::Decimal(9),
        "T" => Scale::Decimal(12),
        "P" => Scale::Decimal(15),
        "E" => Scale::Decimal(18),
        "Ki" => Scale::Binary(10),
        "Mi" => Scale::Binary(20),
        "Gi" => Scale::Binary(30),
        "Ti" => Scale::Binary(40),
        "Pi" => Scale::Binary(50),
        "Ei" => Scale::Binary(60),
        other => {
            let exponent = other.strip_prefix(['e', 'E']).ok_or(QuantityError::Malformed)?;
            let digits = exponent.strip_prefix(['+', '-']).unwrap_or(exponent);
            if digits.is_empty() || !digits.bytes().all(|b| b.is_ascii_digit()) {
                return Err(QuantityError::Malformed);
            }
            // Beyond these bounds the answer is the same: too large, or one billionth.
            let exponent: i32 =
                exponent.parse().unwrap_or(if exponent.starts_with('-') { -999 } else { 999 });
            Scale::Decimal(exponent.clamp(-999, 999))
        }
    })
}

/// The value in billionths; rounded up where it is finer than that, as Kubernetes does.
fn magnitude(number: &str, scale: Scale) -> Result<i128, QuantityError> {
    let (whole, fraction) = number.split_once('.').unwrap_or((number, ""));
    if (whole.is_empty() && fraction.is_empty()) || fraction.contains('.') {
        return Err(QuantityError::Malformed);
    }
    let fraction = fraction.trim_end_matches('0');
    let digits = format!("{whole}{fraction}");
    let digits = digits.trim_start_matches('0');
    if digits.is_empty() {
        return Ok(0);
    }
    let mut value: i128 = digits.parse().map_err(|_| QuantityError::TooPrecise)?;
    // At most LONGEST digits, so the casts below cannot lose anything.
    let places = i32::try_from(fraction.len()).map_err(|_| QuantityError::TooPrecise)?;
    let power = match scale {
        Scale::Binary(shift) => {
            value = value.checked_mul(1 << shift).ok_or(QuantityError::TooLarge)?;
            9 - places
        }
        Scale::Decimal(exponent) => 9 + exponent - places,
    };
    let nanos = if power >= 0 {
        let factor = 10_i128.checked_pow(power.unsigned_abs()).ok_or(QuantityError::TooLarge)?;
        value.checked_mul(factor).ok_or(QuantityError::TooLarge)?
    } else {
        match 10_i128.checked_pow(power.unsigned_abs()) {
            Some(divisor) => value / divisor + i128::from(value % divisor != 0),
            None => 1,
        }
    };
    if nanos > LARGEST { Err(QuantityError::TooLarge) } else { Ok(nanos) }
}

impl Default for Quantity {
    fn default() -> Self {
        Self::from_bytes(0)
    }
}

impl fmt::Display for Quantity {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.text)
    }
}

impl fmt::Debug for Quantity {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Quantity({})", self.text)
    }
}

impl PartialEq for Quantity {
    fn eq(&self, other: &Self) -> bool {
        self.nanos == other.nanos
    }
}

impl Eq for Quantity {}

impl PartialOrd for Quantity {
    fn partial_cmp(&self, other: &Self) -> Option<Ordering> {
        Some(self.cmp(other))
    }
}

impl Ord for Quantity {
    fn cmp(&self, other: &Self) -> Ordering {
        self.nanos.cmp(&other.nanos)
    }
}

impl Serialize for Quantity {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.serialize_str(&self.text)
    }
}

impl<'de> Deserialize<'de> for Quantity {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        let text = String::deserialize(deserializer)?;
        text.parse().map_err(serde::de::Error::custom)
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn parse(text: &str) -> Quantity {
        text.parse().expect(text)
    }

    #[test]
    fn suffixes_multiply_exactly() {
        assert_eq!(parse("64M").whole(), Some(64_000_000));
        assert_eq!(parse("1.5Gi").whole(), Some(3 << 29));
        assert_eq!(parse("2e3"), parse("2k"));
        assert_eq!(parse("1E").whole(), Some(10_u64.pow(18)));
        assert_eq!(parse("1E3").whole(), Some(1000));
        assert_eq!(parse("7Ei").whole(), Some(7 << 60));
        assert_eq!(parse(".5").rounded_up(), 1);
        assert_eq!(parse("100m").whole(), None);
        assert_eq!(parse("3000m").whole(), Some(3));
        assert!(parse("-1").is_negative());
        assert_eq!(parse("1e-12"), parse("1n"));
        assert!(parse("0.0").is_zero());
        assert!(parse("100m") < parse("1"));
    }

    #[test]
    fn what_is_no_quantity_is_an_error() {
        for text in
            ["", " 1", "1 Gi", "Gi", "1GiB", "1gi", "1.2.3", "--1", "e3", "1e", "1e+", "0x10", "½", "1K"]
        {
            assert_eq!(text.parse::<Quantity>(), Err(QuantityError::Malformed), "{text}");
        }
        for text in ["8Ei", "10E", "1e30", "1e999999999999", "9223372036854775808"] {
            assert_eq!(text.parse::<Quantity>(), Err(QuantityError::TooLarge), "{text}");
        }
        assert_eq!("1".repeat(60).parse::<Quantity>(), Err(QuantityError::TooPrecise));
    }

    #[test]
    fn bytes_are_written_with_the_largest_exact_suffix() {
        for (bytes, text) in
            [(0, "0"), (1, "1"), (1 << 20, "1Mi"), (3 << 29, "1536Mi"), (64_000_000, "62500Ki")]
        {
            assert_eq!(Quantity::from_bytes(bytes).to_string(), text);
            assert_eq!(parse(text).whole(), Some(bytes));
        }
    }

    proptest! {
        #[test]
        fn bytes_round_trip(bytes in 0..=i64::MAX as u64) {
            let quantity = Quantity::from_bytes(bytes);
            let back: Quantity = quantity.to_string().parse().unwrap();
            prop_assert_eq!(back.whole(), Some(bytes));
            let json = serde_json::to_string(&quantity).unwrap();
            prop_assert_eq!(serde_json::from_str::<Quantity>(&json).unwrap(), quantity);
        }

        #[test]
        fn no_text_panics(text in "[-+0-9.eEKMGTPimnuk]{0,70}") {
            let _ = text.parse::<Quantity>();
        }
    }
}
