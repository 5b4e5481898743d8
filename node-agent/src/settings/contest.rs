//! Other programs that want a setting otherwise: how often, which, and when to give in for a while.
//!
//! Owned by the keeper. Two programs that put a setting back against each other would disturb the host more than the
//! setting does.

use std::collections::BTreeMap;
use std::fs;
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use super::record::Setting;

/// So many changes by others ...
const PATIENCE: usize = 5;
/// ... within this time, and the setting is left alone ...
const WITHIN: Duration = Duration::from_secs(60);
/// ... for this long.
pub(super) const LEFT_ALONE: Duration = Duration::from_secs(60);
/// Programs that are known to move interrupts and change switches.
const KNOWN: [&str; 4] = ["irqbalance", "tuned", "numad", "power-profiles-"];

/// What was seen of others.
#[derive(Debug, Default)]
pub(super) struct Contests {
    seen: BTreeMap<Setting, Contest>,
    /// Who wrote to a file last, where somebody watches the files.
    writers: BTreeMap<PathBuf, String>,
}

#[derive(Debug, Default)]
struct Contest {
    times: Vec<Instant>,
    left_alone: Option<Instant>,
}

impl Contests {
    /// Another process changed a setting. Whether it is left alone from now on.
    pub(super) fn note(&mut self, setting: &Setting, now: Instant) -> bool {
        let contest = self.seen.entry(setting.clone()).or_default();
        contest.times.retain(|t| now.duration_since(*t) < WITHIN);
        contest.times.push(now);
        let over = contest.times.len() > PATIENCE;
        if over {
            contest.left_alone = Some(now);
            contest.times.clear();
        }
        over
    }

    /// Whether a setting is left alone now.
    pub(super) fn is_left_alone(&self, setting: &Setting, now: Instant) -> bool {
        let since = self.seen.get(setting).and_then(|c| c.left_alone);
        since.is_some_and(|since| now.duration_since(since) < LEFT_ALONE)
    }

    /// How many settings are left alone now.
    pub(super) fn left_alone(&self, now: Instant) -> usize {
        self.seen.keys().filter(|setting| self.is_left_alone(setting, now)).count()
    }

    /// A process was seen writing to a file.
    pub(super) fn accuse(&mut self, file: &Path, writer: String) {
        self.writers.insert(file.to_owned(), writer);
    }

    /// Who changed a setting: who was seen, else a program that is known for it and runs.
    pub(super) fn culprit(&self, file: &Path, proc: &Path) -> Option<String> {
        self.writers.get(file).cloned().or_else(|| {
            let entries = fs::read_dir(proc).ok()?.flatten();
            let name = |e: fs::DirEntry| fs::read_to_string(e.path().join("comm")).ok();
            let mut names = entries.filter_map(name).map(|n| n.trim().to_owned());
            names.find(|name| KNOWN.contains(&name.as_str()))
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_setting_that_is_changed_too_often_is_left_alone_for_a_while() {
        let mut contests = Contests::default();
        let (setting, now) = (Setting::Workqueues, Instant::now());
        for _ in 0..PATIENCE {
            assert!(!contests.note(&setting, now));
        }
        assert!(contests.note(&setting, now));
        assert!(contests.is_left_alone(&setting, now) && contests.left_alone(now) == 1);
        let later = now + LEFT_ALONE;
        assert!(!contests.is_left_alone(&setting, later));
        assert!(!contests.note(&setting, later), "it starts anew");
    }

    #[test]
    fn changes_that_are_far_apart_are_put_back_for_ever() {
        let mut contests = Contests::default();
        let now = Instant::now();
        for i in 0..100 {
            assert!(!contests.note(&Setting::Watchdog, now + WITHIN * i));
        }
    }

    #[test]
    fn who_was_seen_is_named_before_who_is_known() {
        let proc = tempfile::tempdir().unwrap();
        fs::create_dir(proc.path().join("7")).unwrap();
        fs::write(proc.path().join("7/comm"), "irqbalance\n").unwrap();
        let mut contests = Contests::default();
        let file = Path::new("/proc/irq/7/smp_affinity_list");
        assert_eq!(contests.culprit(file, proc.path()).as_deref(), Some("irqbalance"));
        contests.accuse(file, "sh (12)".into());
        assert_eq!(contests.culprit(file, proc.path()).as_deref(), Some("sh (12)"));
    }
}
