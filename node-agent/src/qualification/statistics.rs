//! Statistics of gaps: exact percentiles, and bounds that say what was not seen. Pure.

use std::collections::BTreeMap;

/// Latency classes, ns: a host is of the first that no gap exceeds.
pub const LATENCY_CLASSES_NS: [u64; 14] = [
    5_000,
    10_000,
    20_000,
    50_000,
    100_000,
    200_000,
    500_000,
    1_000_000,
    2_000_000,
    5_000_000,
    10_000_000,
    20_000_000,
    50_000_000,
    100_000_000,
];

/// Gaps by their length in cycles, each with how often it came.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Gaps(BTreeMap<u64, u64>);

impl Gaps {
    /// Adds `count` gaps of a length.
    pub fn add(&mut self, cycles: u64, count: u64) {
        if count > 0 {
            let all = self.0.entry(cycles).or_default();
            *all = all.saturating_add(count);
        }
    }

    /// How many there are.
    #[must_use]
    pub fn samples(&self) -> u64 {
        self.0.values().fold(0, |all, n| all.saturating_add(*n))
    }

    /// The longest, cycles.
    #[must_use]
    pub fn longest(&self) -> u64 {
        self.0.keys().next_back().copied().unwrap_or(0)
    }

    /// How many are longer than this.
    #[must_use]
    pub fn above(&self, cycles: u64) -> u64 {
        self.0.range(cycles.saturating_add(1)..).map(|(_, n)| n).sum()
    }

    /// The length that `share` of all gaps do not exceed, cycles; exact.
    #[must_use]
    pub fn percentile(&self, share: f64) -> u64 {
        let samples = self.samples();
        let beyond = whole((1.0 - share.clamp(0.0, 1.0)) * samples as f64);
        let mut above = 0u64;
        for (cycles, count) in self.0.iter().rev() {
            above = above.saturating_add(*count);
            if above > beyond {
                return *cycles;
            }
        }
        0
    }

    /// Length and count, from the shortest.
    pub fn iter(&self) -> impl Iterator<Item = (u64, u64)> {
        self.0.iter().map(|(cycles, count)| (*cycles, *count))
    }
}

/// The whole part of a number that is not negative.
#[expect(clippy::cast_possible_truncation, clippy::cast_sign_loss, reason = "casts of floats saturate")]
#[must_use]
pub(super) fn whole(number: f64) -> u64 {
    number.max(0.0).floor() as u64
}

/// How often a second something happens at most that was seen `count` times in `seconds`, with 95 % confidence: the
/// upper limit of a Poisson rate, 3 / `seconds` where it was never seen.
#[must_use]
pub fn rate_bound(count: u64, seconds: f64) -> f64 {
    if seconds <= 0.0 {
        return f64::INFINITY;
    }
    // Half the 95th percentile of the chi-square distribution with 2 (count + 1) degrees of freedom, after Wilson and
    // Hilferty.
    let freedom = 2.0 * (count as f64 + 1.0);
    let spread = 2.0 / (9.0 * freedom);
    0.5 * freedom * (1.0 - spread + 1.645 * spread.sqrt()).powi(3) / seconds
}

/// A latency class's name, as the node label has it: `20us`, `1ms`.
#[must_use]
pub fn class_name(ns: u64) -> String {
    if ns >= 1_000_000 { format!("{}ms", ns / 1_000_000) } else { format!("{}us", ns / 1000) }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn percentiles_are_exact() {
        let mut gaps = Gaps::default();
        gaps.add(10, 98);
        gaps.add(500, 1);
        gaps.add(9000, 1);
        assert_eq!(gaps.samples(), 100);
        assert_eq!([0.5, 0.98, 0.99, 1.0].map(|p| gaps.percentile(p)), [10, 10, 500, 9000]);
        assert_eq!(gaps.above(10), 2);
        assert_eq!(gaps.longest(), 9000);
        assert_eq!(Gaps::default().percentile(0.99), 0);
    }

    #[test]
    fn what_was_never_seen_has_a_bound() {
        assert!((rate_bound(0, 60.0) * 60.0 - 3.0).abs() < 0.05);
        // Tables say 4.74 for one and 16.96 for ten.
        assert!((rate_bound(1, 1.0) - 4.74).abs() < 0.05);
        assert!((rate_bound(10, 1.0) - 16.96).abs() < 0.05);
        assert!(rate_bound(3, 0.0).is_infinite());
    }

    #[test]
    fn classes_have_short_names() {
        assert_eq!(class_name(20_000), "20us");
        assert_eq!(class_name(5_000_000), "5ms");
    }
}
