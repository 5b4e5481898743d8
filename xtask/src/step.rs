//! Steps of a task: each says what it does, how long it took, and how to repeat it if it fails.
//! A failure does not keep the others from running.

use std::fmt::Display;
use std::time::{Duration, Instant};

/// What was tested, all steps together.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) struct Tally {
    pub(crate) passed: u64,
    pub(crate) failed: u64,
    pub(crate) skipped: u64,
}

impl Tally {
    pub(crate) const PASSED: Self = Self { passed: 1, failed: 0, skipped: 0 };
    pub(crate) const FAILED: Self = Self { passed: 0, failed: 1, skipped: 0 };

    pub(crate) fn add(&mut self, other: Self) {
        self.passed += other.passed;
        self.failed += other.failed;
        self.skipped += other.skipped;
    }
}

impl Display for Tally {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "{} passed, {} failed, {} skipped", self.passed, self.failed, self.skipped)
    }
}

/// The steps so far.
#[derive(Debug)]
pub(crate) struct Steps {
    began: Instant,
    tally: Tally,
    failures: Vec<String>,
    notes: Vec<String>,
}

impl Steps {
    pub(crate) fn new() -> Self {
        Self { began: Instant::now(), tally: Tally::default(), failures: Vec::new(), notes: Vec::new() }
    }

    /// Does one step; `repeat` is the command that does it alone. Says whether it went well.
    pub(crate) fn step(
        &mut self,
        name: &str,
        repeat: &str,
        work: impl FnOnce() -> anyhow::Result<Tally>,
    ) -> bool {
        println!("==> {name}");
        let began = Instant::now();
        let result = work();
        let seconds = began.elapsed().as_secs_f32();
        let mut tally = result.as_ref().copied().unwrap_or(Tally::FAILED);
        if let Err(error) = &result {
            tally.failed = tally.failed.max(1);
            println!("{error:#}");
        }
        self.tally.add(tally);
        let well = tally.failed == 0;
        if well {
            println!("<== {name}: {tally} in {seconds:.1} s");
        } else {
            println!("<== {name}: FAILED ({tally}) in {seconds:.1} s; repeat with: {repeat}");
            self.failures.push(format!("{name}; repeat with: {repeat}"));
        }
        well
    }

    /// How long all of them took so far.
    pub(crate) fn took(&self) -> Duration {
        self.began.elapsed()
    }

    /// Something to be told again in the summary.
    pub(crate) fn note(&mut self, note: String) {
        self.notes.push(note);
    }

    /// The summary, its last line alone: `N passed, N failed, N skipped`.
    pub(crate) fn end(self) -> std::process::ExitCode {
        println!("\n{:.0} s in all", self.began.elapsed().as_secs_f32());
        for note in &self.notes {
            println!("{note}");
        }
        for failure in &self.failures {
            println!("failed: {failure}");
        }
        println!("{}", self.tally);
        if self.tally.failed == 0 { std::process::ExitCode::SUCCESS } else { std::process::ExitCode::FAILURE }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_step_that_cannot_be_done_counts_as_failed_and_the_next_still_runs() {
        let mut steps = Steps::new();
        assert!(!steps.step("one", "x", || anyhow::bail!("no")));
        assert!(steps.step("two", "y", || Ok(Tally { passed: 3, failed: 0, skipped: 1 })));
        assert_eq!(steps.tally.to_string(), "3 passed, 1 failed, 1 skipped");
        assert_eq!(steps.failures, ["one; repeat with: x"]);
    }
}
