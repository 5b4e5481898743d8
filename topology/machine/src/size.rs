//! Page sizes.

use std::fmt;
use std::str::FromStr;

use serde::{Deserialize, Serialize};

/// The size of the pages that back memory, in bytes: a power of two of at least 4 KiB.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(try_from = "u64", into = "u64")]
pub struct PageSize(u64);

/// Why a page size was refused.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum PageSizeError {
    /// Not a power of two of at least 4096.
    #[error("{0} bytes is not a page size: it must be a power of two of at least 4096")]
    NotAPageSize(u64),
    /// Not a size such as `2Mi`.
    #[error("{0:?} is not a page size such as 4Ki, 2Mi or 1Gi")]
    Malformed(String),
}

impl PageSize {
    /// The base page of x86_64.
    pub const KIB4: Self = Self(4 << 10);
    /// The smaller huge page of x86_64.
    pub const MIB2: Self = Self(2 << 20);
    /// The larger huge page of x86_64.
    pub const GIB1: Self = Self(1 << 30);

    /// A page size in bytes.
    ///
    /// # Errors
    /// [`PageSizeError::NotAPageSize`] unless a power of two of at least 4096.
    pub fn new(bytes: u64) -> Result<Self, PageSizeError> {
        if bytes.is_power_of_two() && bytes >= 4096 {
            Ok(Self(bytes))
        } else {
            Err(PageSizeError::NotAPageSize(bytes))
        }
    }

    /// In bytes.
    #[must_use]
    pub const fn bytes(self) -> u64 {
        self.0
    }

    /// Whether pages of this size come from a hugetlb pool rather than ordinary memory.
    #[must_use]
    pub const fn is_huge(self) -> bool {
        self.0 > Self::KIB4.0
    }
}

impl TryFrom<u64> for PageSize {
    type Error = PageSizeError;

    fn try_from(bytes: u64) -> Result<Self, PageSizeError> {
        Self::new(bytes)
    }
}

impl From<PageSize> for u64 {
    fn from(size: PageSize) -> Self {
        size.0
    }
}

impl FromStr for PageSize {
    type Err = PageSizeError;

    /// Reads `2Mi`, `1Gi`, `4Ki` or plain bytes.
    fn from_str(text: &str) -> Result<Self, PageSizeError> {
        let malformed = || PageSizeError::Malformed(text.to_owned());
        let digits = text.trim_end_matches(|c: char| c.is_ascii_alphabetic());
        let unit = match &text[digits.len()..] {
            "" => 1,
            "Ki" => 1 << 10,
            "Mi" => 1 << 20,
            "Gi" => 1 << 30,
            _ => return Err(malformed()),
        };
        let count: u64 = digits.parse().map_err(|_| malformed())?;
        Self::new(count.checked_mul(unit).ok_or_else(malformed)?)
    }
}

impl fmt::Display for PageSize {
    /// As Kubernetes writes it: `4Ki`, `2Mi`, `1Gi`.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.0 {
            b if b % (1 << 30) == 0 => write!(f, "{}Gi", b >> 30),
            b if b % (1 << 20) == 0 => write!(f, "{}Mi", b >> 20),
            b => write!(f, "{}Ki", b >> 10),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn kubernetes_names_round_trip() {
        for (text, size) in [("4Ki", PageSize::KIB4), ("2Mi", PageSize::MIB2), ("1Gi", PageSize::GIB1)] {
            assert_eq!(text.parse(), Ok(size));
            assert_eq!(size.to_string(), text);
        }
    }

    #[test]
    fn sizes_that_are_no_page_sizes_are_refused() {
        assert_eq!("3Mi".parse::<PageSize>(), Err(PageSizeError::NotAPageSize(3 << 20)));
        assert_eq!("2MB".parse::<PageSize>(), Err(PageSizeError::Malformed("2MB".into())));
        assert_eq!("".parse::<PageSize>(), Err(PageSizeError::Malformed(String::new())));
        assert!("99999999999999999999Gi".parse::<PageSize>().is_err());
    }
}
