//! What every setting is, what it should be, and what there is to do.
//!
//! Called by the keeper. Reads the host; changes nothing.

use std::collections::{BTreeMap, BTreeSet};
use std::io;
use std::time::Instant;

use pinion_machine::CpuSet;

use super::interrupts::Owned;
use super::keeper::Keeper;
use super::record::Setting;
use super::wish::Wanted;
use crate::ledger::LedgerDocument;

/// A setting to write.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Step {
    pub(super) setting: Setting,
    /// Its value without any wish.
    pub(super) base: String,
    pub(super) found: String,
    pub(super) value: String,
}

/// What there is to do.
#[derive(Debug)]
pub(super) struct Survey {
    /// Settings that are not what they should be.
    pub(super) steps: Vec<Step>,
    /// Settings whose record is over: as they were, gone, or a device's now.
    pub(super) over: Vec<Setting>,
}

impl Keeper {
    /// Looks at every setting that may have to change. What cannot be read is no step.
    pub(super) fn survey(&self, document: &LedgerDocument, wanted: &Wanted) -> Survey {
        let owned = Owned::of(&self.host, wanted).unwrap_or_default();
        let (mut steps, mut over) = (Vec::new(), Vec::new());
        for setting in self.candidates(document, wanted, &owned) {
            let record = document.changes.get(&setting);
            let recorded = record.map(|r| r.setting.clone());
            if matches!(setting, Setting::Interrupt { irq } if owned.vectors.contains(&irq)) {
                over.extend(recorded);
                continue;
            }
            let found = match self.host.read(&setting) {
                Ok(found) => found,
                Err(e) if e.kind() == io::ErrorKind::NotFound => {
                    over.extend(recorded);
                    continue;
                }
                Err(_) => continue,
            };
            // Whatever another process made of it meanwhile is what that process wants.
            let base = record.filter(|r| r.is_ours(&found)).map_or(&found, |r| &r.was).clone();
            let line = match setting {
                Setting::Interrupt { irq } => owned.lines.get(&irq).cloned(),
                _ => None,
            };
            let value = line.unwrap_or_else(|| self.value(&setting, &base, wanted));
            let given = matches!(setting, Setting::HugePages { .. })
                && record.is_some_and(|r| r.wrote == found)
                && self.asked.get(&setting) == Some(&value);
            if found != value && !given {
                steps.push(Step { setting, base, found, value });
            } else if base == value {
                over.extend(recorded);
            }
        }
        Survey { steps, over }
    }

    fn candidates(&self, document: &LedgerDocument, wanted: &Wanted, owned: &Owned) -> BTreeSet<Setting> {
        let mut all: BTreeSet<Setting> =
            document.changes.settings.iter().map(|c| c.setting.clone()).collect();
        if !wanted.quiet.is_empty() {
            all.insert(Setting::DefaultInterrupts);
            let numbers = self.host.irqs.numbers().unwrap_or_default();
            all.extend(numbers.into_iter().map(|irq| Setting::Interrupt { irq }));
            all.extend(self.host.queues());
            all.extend([Setting::Workqueues, Setting::Watchdog]);
            all.extend(self.knobs.iter().map(|knob| Setting::Knob { knob: *knob }));
            if self.partitions.are_possible() {
                all.insert(Setting::CpusetController);
            }
        }
        all.extend(owned.lines.keys().map(|irq| Setting::Interrupt { irq: *irq }));
        let pages = wanted.huge_pages.keys().chain(self.kept.keys());
        all.extend(pages.map(|(node, size_kib)| Setting::HugePages { node: *node, size_kib: *size_kib }));
        for cpu in wanted.quiet.iter() {
            all.extend([Setting::IdleLatency { cpu }, Setting::Governor { cpu }]);
        }
        let now = Instant::now();
        let is_left = |s: &Setting| self.contests.is_left_alone(s, now) && !wanted.quiet.is_empty();
        all.retain(|setting| !self.refused.contains(setting) && !is_left(setting));
        all
    }

    /// What a setting should be, when without any wish it were `base`.
    fn value(&self, setting: &Setting, base: &str, wanted: &Wanted) -> String {
        match setting {
            Setting::DefaultInterrupts
            | Setting::Interrupt { .. }
            | Setting::Workqueues
            | Setting::Watchdog
            | Setting::Queue { .. } => match base.parse::<CpuSet>() {
                Ok(cpus) if !cpus.is_disjoint(&wanted.quiet) => wanted.interrupt(&cpus).to_string(),
                _ => base.to_owned(),
            },
            Setting::IdleLatency { cpu } if wanted.quiet.contains(*cpu) => self.host.lightest_sleep(*cpu),
            Setting::Governor { cpu } if wanted.quiet.contains(*cpu) => "performance".to_owned(),
            Setting::IdleLatency { .. } | Setting::Governor { .. } => base.to_owned(),
            Setting::Knob { knob } if !wanted.quiet.is_empty() && self.knobs.contains(knob) => {
                knob.wanted(base, wanted.realtime)
            }
            Setting::CpusetController if !wanted.quiet.is_empty() => "on".to_owned(),
            // While a guest that has just ended still has a folder, the controller is in use.
            Setting::CpusetController if self.partitions.exist() => "on".to_owned(),
            Setting::Knob { .. } | Setting::CpusetController => base.to_owned(),
            Setting::HugePages { node, size_kib } => {
                let of = |pages: &BTreeMap<_, u64>| pages.get(&(*node, *size_kib)).copied().unwrap_or(0);
                let (more, kept) = (of(&wanted.huge_pages), of(&self.kept));
                let all = |base: u64| base.max(kept).saturating_add(more).to_string();
                base.parse::<u64>().map_or_else(|_| base.to_owned(), all)
            }
        }
    }
}
