//! A set of CPUs, in text as the kernel writes lists (`0-3,8`), in JSON as an array.

use std::fmt;
use std::str::FromStr;

use serde::{Deserialize, Deserializer, Serialize, Serializer};

use crate::CpuId;

/// The highest CPU index a list may name: ten times what Linux supports, so that
/// a hostile list such as `0-4294967295` cannot exhaust memory.
const MAX_CPU: u32 = 65_535;

/// A set of CPUs by OS index.
///
/// Equality, order and iteration depend on the members only.
#[derive(Clone, Default, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct CpuSet {
    // Least significant bit first; the last word is never zero, so that derived
    // equality is equality of sets.
    words: Vec<u64>,
}

/// Why a CPU list could not be read.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum CpuListError {
    /// Not a number or range.
    #[error("{0:?} is not a CPU or a range of CPUs such as 2-5")]
    Malformed(String),
    /// The range runs backwards.
    #[error("the range {first}-{last} runs backwards")]
    Backwards {
        /// First CPU as written.
        first: u32,
        /// Last CPU as written.
        last: u32,
    },
    /// The index is beyond what any kernel supports.
    #[error("CPU {0} is beyond the highest supported index {MAX_CPU}")]
    TooHigh(u32),
}

impl CpuSet {
    /// The empty set.
    #[must_use]
    pub fn new() -> Self {
        Self::default()
    }

    /// Adds a CPU; says whether it was new. CPUs beyond index 65535 are ignored.
    pub fn insert(&mut self, cpu: CpuId) -> bool {
        if cpu.0 > MAX_CPU {
            return false;
        }
        let (word, bit) = Self::slot(cpu);
        if self.words.len() <= word {
            self.words.resize(word + 1, 0);
        }
        let new = self.words[word] & bit == 0;
        self.words[word] |= bit;
        new
    }

    /// Takes a CPU out; says whether it was there.
    pub fn remove(&mut self, cpu: CpuId) -> bool {
        let (word, bit) = Self::slot(cpu);
        let Some(w) = self.words.get_mut(word) else {
            return false;
        };
        let was = *w & bit != 0;
        *w &= !bit;
        self.trim();
        was
    }

    /// Whether the CPU is a member.
    #[must_use]
    pub fn contains(&self, cpu: CpuId) -> bool {
        let (word, bit) = Self::slot(cpu);
        self.words.get(word).is_some_and(|w| w & bit != 0)
    }

    /// Number of members.
    #[must_use]
    pub fn len(&self) -> usize {
        self.words.iter().map(|w| w.count_ones() as usize).sum()
    }

    /// Whether there are no members.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.words.is_empty()
    }

    /// Lowest member.
    #[must_use]
    pub fn first(&self) -> Option<CpuId> {
        self.iter().next()
    }

    /// Members in ascending order.
    pub fn iter(&self) -> impl Iterator<Item = CpuId> + '_ {
        self.words.iter().zip(0u32..).filter(|(word, _)| **word != 0).flat_map(|(&word, index)| {
            // Each step clears the lowest bit that is set.
            let rest = std::iter::successors(Some(word), |w| Some(w & w.wrapping_sub(1)));
            rest.take_while(|w| *w != 0).map(move |w| CpuId(index * 64 + w.trailing_zeros()))
        })
    }

    /// Members of either.
    #[must_use]
    pub fn union(&self, other: &Self) -> Self {
        let (long, short) = if self.words.len() >= other.words.len() { (self, other) } else { (other, self) };
        let mut words = long.words.clone();
        for (w, o) in words.iter_mut().zip(&short.words) {
            *w |= o;
        }
        Self { words }
    }

    /// Members of both.
    #[must_use]
    pub fn intersection(&self, other: &Self) -> Self {
        let words = self.words.iter().zip(&other.words).map(|(a, b)| a & b).collect();
        let mut set = Self { words };
        set.trim();
        set
    }

    /// Members of this set that are not in the other.
    #[must_use]
    pub fn difference(&self, other: &Self) -> Self {
        let mut set = self.clone();
        for (w, o) in set.words.iter_mut().zip(&other.words) {
            *w &= !o;
        }
        set.trim();
        set
    }

    /// Whether the two share no CPU.
    #[must_use]
    pub fn is_disjoint(&self, other: &Self) -> bool {
        self.words.iter().zip(&other.words).all(|(a, b)| a & b == 0)
    }

    /// Whether every member is also in the other.
    #[must_use]
    pub fn is_subset(&self, other: &Self) -> bool {
        self.difference(other).is_empty()
    }

    fn slot(cpu: CpuId) -> (usize, u64) {
        (cpu.0 as usize / 64, 1 << (cpu.0 % 64))
    }

    fn trim(&mut self) {
        while self.words.last() == Some(&0) {
            self.words.pop();
        }
    }
}

impl FromIterator<CpuId> for CpuSet {
    fn from_iter<I: IntoIterator<Item = CpuId>>(cpus: I) -> Self {
        let mut set = Self::new();
        set.extend(cpus);
        set
    }
}

impl Extend<CpuId> for CpuSet {
    fn extend<I: IntoIterator<Item = CpuId>>(&mut self, cpus: I) {
        for cpu in cpus {
            self.insert(cpu);
        }
    }
}

impl FromStr for CpuSet {
    type Err = CpuListError;

    /// Reads the kernel's list format (`cpuset(7)`, "List format"); empty text is the empty set.
    fn from_str(text: &str) -> Result<Self, CpuListError> {
        let mut set = Self::new();
        for part in text.split(',').map(str::trim).filter(|p| !p.is_empty()) {
            let number =
                |t: &str| t.trim().parse::<u32>().map_err(|_| CpuListError::Malformed(part.to_owned()));
            let (first, last) = match part.split_once('-') {
                Some((a, b)) => (number(a)?, number(b)?),
                None => (number(part)?, number(part)?),
            };
            if last < first {
                return Err(CpuListError::Backwards { first, last });
            }
            if last > MAX_CPU {
                return Err(CpuListError::TooHigh(last));
            }
            set.extend((first..=last).map(CpuId));
        }
        Ok(set)
    }
}

impl fmt::Display for CpuSet {
    /// Writes the kernel's list format, `0-3,8`; the empty set is the empty text.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let mut cpus = self.iter().map(|c| c.0).peekable();
        let mut separator = "";
        while let Some(first) = cpus.next() {
            let mut last = first;
            while let Some(next) = cpus.next_if_eq(&(last + 1)) {
                last = next;
            }
            if first == last {
                write!(f, "{separator}{first}")?;
            } else {
                write!(f, "{separator}{first}-{last}")?;
            }
            separator = ",";
        }
        Ok(())
    }
}

impl fmt::Debug for CpuSet {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{{{self}}}")
    }
}

impl Serialize for CpuSet {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.collect_seq(self.iter().map(|c| c.0))
    }
}

impl<'de> Deserialize<'de> for CpuSet {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        let cpus = Vec::<u32>::deserialize(deserializer)?;
        if let Some(&cpu) = cpus.iter().find(|&&c| c > MAX_CPU) {
            return Err(serde::de::Error::custom(CpuListError::TooHigh(cpu)));
        }
        Ok(cpus.into_iter().map(CpuId).collect())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn set(text: &str) -> CpuSet {
        text.parse().unwrap()
    }

    #[test]
    fn list_format_round_trips() {
        for text in ["", "0", "0-3", "0-3,8", "1,3,5", "0-63,65-127,1000"] {
            assert_eq!(set(text).to_string(), text);
        }
    }

    #[test]
    fn list_with_spaces_and_overlap_is_normalised() {
        assert_eq!(set(" 3, 1-2 ,2-4\n").to_string(), "1-4");
    }

    #[test]
    fn hostile_lists_are_refused() {
        assert_eq!("5-2".parse::<CpuSet>(), Err(CpuListError::Backwards { first: 5, last: 2 }));
        assert_eq!("0-4294967295".parse::<CpuSet>(), Err(CpuListError::TooHigh(u32::MAX)));
        assert_eq!("a".parse::<CpuSet>(), Err(CpuListError::Malformed("a".into())));
        assert_eq!("-1".parse::<CpuSet>(), Err(CpuListError::Malformed("-1".into())));
    }

    #[test]
    fn removing_the_highest_member_keeps_equality() {
        let mut a = set("1,200");
        assert!(a.remove(CpuId(200)));
        assert_eq!(a, set("1"));
        assert_eq!(set("1,200").difference(&set("200")), set("1"));
        assert_eq!(set("1,200").intersection(&set("1")), set("1"));
    }

    #[test]
    fn set_algebra() {
        assert_eq!(set("0-3").union(&set("3-5,100")), set("0-5,100"));
        assert!(set("0-3").is_disjoint(&set("4-7")));
        assert!(set("1-2").is_subset(&set("0-3")));
        assert!(!set("1-4").is_subset(&set("0-3")));
        assert_eq!(set("7,9").first(), Some(CpuId(7)));
    }
}
