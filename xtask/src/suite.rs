//! `cargo xtask test`: set-up, lint, tests, tests in the lab, fuzzing for a bounded time; and the tally.
//!
//! What cargo prints is read line by line: only what failed or was skipped is shown. All steps select from the whole
//! workspace, never single packages: for those, cargo would choose other features and build their dependencies again.

use std::io::{BufRead, BufReader};
use std::process::{ExitCode, Stdio};
use std::time::{Duration, Instant};

use anyhow::Context;
use pinion_lab::Programs;

use crate::step::{Steps, Tally};
use crate::workspace::{Metadata, Package, cargo, root, show};
use crate::{fuzz, kept, lint, setup};

/// Seconds for each fuzz target within the suite.
const FUZZ_SECONDS: u32 = 10;
/// Tests in the lab that may fail and are run again; with more, something is broken.
const RUN_AGAIN: usize = 3;
/// Files of tests that bring up a cluster.
const IN_CLUSTER: [&str; 6] = ["controller", "crds", "machines", "pods", "publisher", "webhook"];
/// Kubernetes is not built by a suite that took longer than this for everything else.
const LATE: Duration = Duration::from_secs(50 * 60);
/// Words that every run of tests begins with.
const TEST: [&str; 4] = ["test", "--workspace", "--locked", "--no-fail-fast"];

/// Carries out everything. Whatever does not hang on what failed still runs.
pub(crate) fn suite() -> ExitCode {
    kept::begin();
    let code = all_steps();
    kept::end();
    code
}

fn all_steps() -> ExitCode {
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
    let targets = match Targets::of_workspace() {
        Ok(targets) => targets,
        Err(error) => {
            steps.step("packages", "cargo metadata", || Err(error));
            return steps.end();
        }
    };
    let words = [&TEST[..], &["--lib", "--bins"], &selected(&targets.others)].concat();
    steps.step("tests", &show(&cargo(&words)), || Ok(run(&words, &[], Progress::Silent)?.tally));
    let words = [&TEST[..], &["--doc"]].concat();
    steps.step("tests in documentation", &show(&cargo(&words)), || {
        Ok(run(&words, &[], Progress::Silent)?.tally)
    });
    steps.step("programs for the lab", "cargo build --workspace --bins --profile emulated", || {
        Programs::built()?;
        Ok(Tally::default())
    });
    // A host's emulated CPUs do not keep all of this machine's busy.
    let beside = fuzz::build_beside();
    tests_in_lab(&mut steps, "tests in the lab", &targets.in_lab);
    fuzz::fuzz(&mut steps, FUZZ_SECONDS, None);
    drop(beside);
    // Last, since it costs most: where there is no time left for it, everything else is done.
    let late = Some(steps.took()).filter(|took| *took > LATE);
    steps.step("what tests in a cluster need", "cargo xtask setup --cluster", || {
        setup::for_cluster_tests(late);
        Ok(Tally::default())
    });
    tests_in_lab(&mut steps, "tests in a cluster", &targets.in_cluster);
    steps.end()
}

fn tests_in_lab(steps: &mut Steps, name: &str, targets: &[String]) {
    let words = [&TEST[..], &selected(targets)].concat();
    let mut unstable = Vec::new();
    steps.step(name, &show(&cargo(&words)), || in_lab(&words, &mut unstable));
    for name in unstable {
        steps.note(format!("unstable: {name} failed, and passed when it was run again"));
    }
}

/// Names of the files of tests in all packages.
#[derive(Debug, Default)]
struct Targets {
    /// Of packages whose tests boot lab hosts: the lab itself, and those that use it in tests only.
    in_lab: Vec<String>,
    /// Of those, the ones that bring up a cluster.
    in_cluster: Vec<String>,
    others: Vec<String>,
}

impl Targets {
    fn of_workspace() -> anyhow::Result<Self> {
        let metadata = Metadata::read(None)?;
        let uses_it = |p: &Package| {
            p.dependencies.iter().any(|d| d.name == "pinion-lab" && d.kind.as_deref() == Some("dev"))
        };
        let mut targets = Self::default();
        for package in metadata.members() {
            let is_in_lab = package.folder().starts_with("lab") || uses_it(package);
            let names = if is_in_lab { &mut targets.in_lab } else { &mut targets.others };
            let files = package.targets.iter().filter(|t| t.kind.iter().any(|k| k == "test"));
            names.extend(files.map(|t| t.name.clone()));
        }
        // Files of the same name are run together.
        let Self { in_lab, in_cluster, others } = &mut targets;
        others.retain(|name| !in_lab.contains(name));
        in_cluster.extend(in_lab.extract_if(.., |name| IN_CLUSTER.contains(&name.as_str())));
        Ok(targets)
    }
}

fn selected(targets: &[String]) -> Vec<&str> {
    targets.iter().flat_map(|name| ["--test", name.as_str()]).collect()
}

/// Runs the tests that boot lab hosts. A host's emulated CPUs share those of this machine with whatever else it does, so
/// that a wait may run into its limit now and then: a few tests that fail are run again, and told as unstable where they
/// pass then. What fails twice has failed.
fn in_lab(words: &[&str], unstable: &mut Vec<String>) -> anyhow::Result<Tally> {
    let Outcome { mut tally, failed } = run(words, &[], Progress::EachTest)?;
    if failed.is_empty() || failed.len() > RUN_AGAIN {
        return Ok(tally);
    }
    println!("once more: {}", failed.join(" "));
    let filter: Vec<&str> = std::iter::once("--exact").chain(failed.iter().map(String::as_str)).collect();
    let again = run(words, &filter, Progress::EachTest)?;
    let passed = failed.into_iter().filter(|name| !again.failed.contains(name));
    unstable.extend(passed.take(usize::try_from(again.tally.passed).unwrap_or(0)));
    let cured = u64::try_from(unstable.len()).unwrap_or(0);
    tally.passed += cured;
    tally.failed = tally.failed.saturating_sub(cured);
    Ok(tally)
}

/// What is told of tests that pass.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Progress {
    Silent,
    /// A line for each, with the time since the one before: tests in the lab run one after the other.
    EachTest,
}

/// What a run of tests came to.
#[derive(Debug)]
struct Outcome {
    tally: Tally,
    failed: Vec<String>,
}

/// Runs `cargo test` and counts. One that fails without a failed test (it did not compile) counts as one.
fn run(words: &[&str], of_harness: &[&str], progress: Progress) -> anyhow::Result<Outcome> {
    let mut command = cargo(words);
    command.args(["--", "--show-output"]).args(of_harness).stdout(Stdio::piped()).current_dir(root());
    let mut child = command.spawn().context("cannot run cargo")?;
    let mut reading = Reading::default();
    let mut before = Instant::now();
    if let Some(stdout) = child.stdout.take() {
        for line in BufReader::new(stdout).split(b'\n') {
            let line = line?;
            let line = String::from_utf8_lossy(&line);
            if reading.line(&line) {
                println!("{line}");
            } else if let Some(name) = passed(&line).filter(|_| progress == Progress::EachTest) {
                println!("{:>6.0} s  {name}", before.elapsed().as_secs_f32());
            }
            if passed(&line).is_some() || has_failed(&line) {
                before = Instant::now();
            }
        }
    }
    let status = child.wait()?;
    let Reading { mut tally, failed, .. } = reading;
    if !status.success() {
        tally.failed = tally.failed.max(1);
    }
    Ok(Outcome { tally, failed })
}

/// The name of a test that has passed.
fn passed(line: &str) -> Option<&str> {
    line.trim_end().strip_prefix("test ")?.strip_suffix(" ... ok")
}

fn has_failed(line: &str) -> bool {
    line.starts_with("test ") && line.trim_end().ends_with("FAILED")
}

/// What was read of the test harness's output.
#[derive(Debug, Default)]
struct Reading {
    tally: Tally,
    /// Names of the tests that failed, of all files that are done.
    failed: Vec<String>,
    /// Of this one: the list below the last heading.
    list: Vec<String>,
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
            self.failed.append(&mut self.list);
            return tally.failed > 0;
        }
        match line.trim_end() {
            "failures:" => {
                self.in_failures = true;
                self.list.clear();
            }
            "successes:" => {
                self.in_failures = false;
                self.list.clear();
            }
            other if other.starts_with("---- ") && other.ends_with(" ----") => self.said = false,
            other if other.starts_with("skipped: ") && !self.in_failures => {
                self.skipped += u64::from(!self.said);
                self.said = true;
                return true;
            }
            other if has_failed(other) => return true,
            other => {
                let name = other.strip_prefix("    ").filter(|n| !n.contains(' ') && !n.is_empty());
                self.list.extend(name.filter(|_| self.in_failures).map(str::to_owned));
            }
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
    fn tests_that_boot_labs_are_known() {
        let targets = Targets::of_workspace().unwrap();
        let has = |names: &[String], name: &str| names.iter().any(|n| n == name);
        assert!(has(&targets.in_lab, "guest") && has(&targets.in_lab, "host"), "{targets:?}");
        assert!(has(&targets.others, "planner") && !has(&targets.others, "guest"), "{targets:?}");
        assert!(targets.others.iter().all(|name| !has(&targets.in_lab, name)), "{targets:?}");
        let mut in_cluster = targets.in_cluster.clone();
        in_cluster.sort_unstable();
        assert_eq!(in_cluster, IN_CLUSTER);
        assert!(IN_CLUSTER.iter().all(|name| !has(&targets.in_lab, name)), "{targets:?}");
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
    fn tests_that_failed_are_named_by_the_list_at_the_end() {
        let mut reading = Reading::default();
        for line in
            ["failures:", "---- a stdout ----", "    indented", "", "failures:", "    a", "    b::c", ""]
        {
            reading.line(line);
        }
        reading.line("test result: FAILED. 1 passed; 2 failed; 0 ignored");
        reading.line("test result: ok. 1 passed; 0 failed; 0 ignored");
        assert_eq!(reading.failed, ["a", "b::c"]);
    }

    #[test]
    fn tests_that_passed_are_named_with_their_time() {
        assert_eq!(passed("test a::b ... ok\n"), Some("a::b"));
        assert_eq!([passed("test a ... FAILED"), passed("test result: ok. 1 passed")], [None; 2]);
        assert!(has_failed("test a ... FAILED\n") && !has_failed("test a ... ok"));
        assert!(!has_failed("test result: ok. 1"));
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
