//! What was measured on one CPU.

/// Gaps of fewer cycles are counted by length; longer ones are kept one by one.
pub const LONG_GAP_CYCLES: usize = 1 << 16;
/// As many long gaps are kept.
pub(crate) const LONGEST_LOG: usize = 1 << 18;

/// A long gap.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Gap {
    /// When it ended, in the host's time-stamp counter.
    pub end_tsc: u64,
    /// How long it was, cycles.
    pub cycles: u64,
}

/// What was measured on one CPU in one run.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Record {
    /// The CPU.
    pub cpu: u32,
    /// How many gaps there were of each length, by cycles; those of [`Record::gaps`] too long are not among them.
    pub counts: Vec<u64>,
    /// Gaps of at least `threshold` cycles, in the order they came; at most 262,144.
    pub gaps: Vec<Gap>,
    /// Such gaps that found no room: where this is not 0, percentiles are too low.
    pub dropped: u64,
    /// From how many cycles on gaps are in `gaps`.
    pub threshold: u64,
    /// The host's time-stamp counter around the run.
    pub tsc: (u64, u64),
    /// How long the run took, ns.
    pub took_ns: u64,
}

impl Record {
    /// How many gaps there were.
    #[must_use]
    pub fn samples(&self) -> u64 {
        let short: u64 = self.counts.iter().sum();
        short.saturating_add(self.gaps.len() as u64).saturating_add(self.dropped)
    }

    /// Cycles in a nanosecond, by the host's clock.
    #[must_use]
    pub fn cycles_per_ns(&self) -> f64 {
        let cycles = self.tsc.1.saturating_sub(self.tsc.0);
        if self.took_ns == 0 { 1.0 } else { cycles as f64 / self.took_ns as f64 }
    }
}
