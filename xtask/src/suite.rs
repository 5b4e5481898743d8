//! `cargo xtask test`: set-up, lint, tests, tests in the lab, fuzzing for a bounded time; and the tally.
//!
//! What cargo prints is read line by line: only what failed or was skipped is shown.

use std::io::{BufRead, BufReader};
use std::process::{Command, ExitCode, Stdio};

use anyhow::Context;

use crate::step::{Steps, Tally};
use crate::workspace::{Metadata, Package, cargo, root, show};
use crate::{fuzz, lint, setup};

/// Seconds for each fuzz target within the suite.
const FUZZ_SECONDS: u32 = 10;

/// Carries out everything. Whatever does not hang on what failed still runs.
pub(crate) fn suite() -> ExitCode {
    let mut steps = Steps::new();
    let ready = steps.step("setup", "cargo xtask setup", || setup::setup().map(|()| Tally::default()));
    if !ready {
        return steps.end();
    }
    steps.step("what single tests need", "cargo xtask test", || {
        setup::for_single_tests();
        Ok(Tally::default())
    });
    lint::lint(&mut steps);
    let in_lab = match packages_of_the_lab() {
        Ok(packages) => packages,
        Err(error) => {
            steps.step("packages", "cargo metadata", || Err(error));
            return steps.end();
        }
    };
    // Tests in the lab run programs of other packages, which `cargo test` alone does not build.
    lint::run(&mut steps, "build", &["build", "--workspace", "--locked"]);
    let mut words = vec!["test", "--workspace", "--locked", "--no-fail-fast"];
    words.extend(in_lab.iter().flat_map(|p| ["--exclude", p.as_str()]));
    step(&mut steps, "tests", &words);
    let mut words = vec!["test", "--locked", "--no-fail-fast"];
    words.extend(in_lab.iter().flat_map(|p| ["-p", p.as_str()]));
    step(&mut steps, "tests in the lab", &words);
    fuzz::fuzz(&mut steps, FUZZ_SECONDS, None);
    steps.end()
}

/// Packages whose tests boot lab hosts: the lab itself, and those that use it in tests only.
fn packages_of_the_lab() -> anyhow::Result<Vec<String>> {
    let metadata = Metadata::read(None)?;
    let uses_it = |p: &Package| {
        p.dependencies.iter().any(|d| d.name == "pinion-lab" && d.kind.as_deref() == Some("dev"))
    };
    let lab = metadata.members().filter(|p| p.folder().starts_with("lab") || uses_it(p));
    Ok(lab.map(|p| p.name.clone()).collect())
}

fn step(steps: &mut Steps, name: &str, words: &[&str]) {
    let mut command = cargo(words);
    let repeat = show(&command);
    command.args(["--", "--show-output"]);
    steps.step(name, &repeat, || run(command));
}

/// Runs `cargo test` and counts. One that fails without a failed test (it did not compile) counts as one.
fn run(mut command: Command) -> anyhow::Result<Tally> {
    command.stdout(Stdio::piped()).current_dir(root());
    let mut child = command.spawn().context("cannot run cargo")?;
    let mut reading = Reading::default();
    if let Some(stdout) = child.stdout.take() {
        for line in BufReader::new(stdout).split(b'\n') {
            let line = line?;
            let line = String::from_utf8_lossy(&line);
            if reading.line(&line) {
                println!("{line}");
            }
        }
    }
    let status = child.wait()?;
    if !status.success() {
        reading.tally.failed = reading.tally.failed.max(1);
    }
    Ok(reading.tally)
}

/// What was read of the test harness's output.
#[derive(Debug, Default)]
struct Reading {
    tally: Tally,
    in_failures: bool,
    skipped: u64,
    /// Whether the test whose output is being read has said so already.
    said: bool,
}

impl Reading {
    /// Takes a line, and says whether it is worth showing.
    fn line(&mut self, line: &str) -> bool {
        if let Some(result) = line.strip_prefix("test result: ") {
            self.in_failures = false;
            let mut tally = counts(result);
            // A test that says that it cannot run here did not pass.
            let unable = self.skipped.min(tally.passed);
            tally.passed -= unable;
            tally.skipped += unable;
            (self.skipped, self.said) = (0, false);
            self.tally.add(tally);
            return tally.failed > 0;
        }
        match line.trim_end() {
            "failures:" => self.in_failures = true,
            "successes:" => self.in_failures = false,
            other if other.starts_with("---- ") && other.ends_with(" ----") => self.said = false,
            other if other.starts_with("skipped: ") && !self.in_failures => {
                self.skipped += u64::from(!self.said);
                self.said = true;
                return true;
            }
            other if other.starts_with("test ") && other.ends_with("FAILED") => return true,
            _ => {}
        }
        self.in_failures
    }
}

/// From `ok. 3 passed; 0 failed; 1 ignored; …`.
fn counts(result: &str) -> Tally {
    let count = |what: &str| {
        let words: Vec<&str> = result.split([' ', ';']).collect();
        let place = words.iter().position(|w| *w == what);
        place.and_then(|p| words.get(p.checked_sub(1)?)?.parse().ok()).unwrap_or(0)
    };
    Tally { passed: count("passed"), failed: count("failed"), skipped: count("ignored") }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn packages_that_boot_labs_are_known() {
        let packages = packages_of_the_lab().unwrap();
        assert!(packages.iter().any(|p| p == "pinion-lab") && !packages.iter().any(|p| p == "xtask"));
    }

    #[test]
    fn results_are_counted() {
        let tally = counts("FAILED. 12 passed; 3 failed; 4 ignored; 0 measured; 0 filtered out");
        assert_eq!(tally, Tally { passed: 12, failed: 3, skipped: 4 });
    }

    #[test]
    fn a_test_that_says_it_is_skipped_is_not_counted_as_passed() {
        let mut reading = Reading::default();
        for line in
            ["successes:", "---- a stdout ----", "skipped: no KVM here", "", "successes:", "    a", "    b"]
        {
            reading.line(line);
        }
        reading.line("test result: ok. 2 passed; 0 failed; 0 ignored; 0 measured");
        assert_eq!(reading.tally, Tally { passed: 1, failed: 0, skipped: 1 });
    }

    #[test]
    fn a_test_that_says_so_twice_is_skipped_once() {
        let mut reading = Reading::default();
        for test in ["a", "b"] {
            reading.line(&format!("---- {test} stdout ----"));
            assert!(reading.line("skipped: no KVM here") && reading.line("skipped: no KVM here"));
        }
        reading.line("test result: ok. 3 passed; 0 failed; 0 ignored; 0 measured");
        assert_eq!(reading.tally, Tally { passed: 1, failed: 0, skipped: 2 });
    }

    #[test]
    fn what_failed_is_shown_and_what_passed_is_not() {
        let mut reading = Reading::default();
        assert!(!reading.line("test a ... ok") && reading.line("test b ... FAILED"));
        assert!(!reading.line("successes:") && !reading.line("text of a"));
        assert!(reading.line("failures:") && reading.line("---- b stdout ----") && reading.line("why"));
        assert!(reading.line("test result: FAILED. 1 passed; 1 failed; 0 ignored"));
    }
}
