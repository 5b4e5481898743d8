//! Switches of the kernel that reach every CPU: where they are, what dedicated CPUs need of them, and what that
//! removes. Pure data.

use std::fmt;

use serde::{Deserialize, Serialize};

/// A switch of the kernel.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub enum Knob {
    /// How often each CPU folds its memory statistics, s.
    StatInterval,
    /// Unmapping of pages to see which node uses them.
    NumaBalancing,
    /// Merging of equal pages.
    SamePageMerging,
    /// Compaction of memory that nobody asked for.
    Compaction,
    /// Compaction for huge pages in the background.
    HugePageScan,
    /// A non-maskable interrupt on each CPU that looks for lockups.
    NmiWatchdog,
    /// Stops real-time threads for a part of each second.
    RealtimeThrottling,
    /// Moves timers of idle CPUs to busy ones.
    TimerMigration,
}

/// What dedicated CPUs need of a switch.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Need {
    /// This.
    Exactly(i64),
    /// This or more.
    AtLeast(i64),
    /// This, where a vCPU is real-time.
    Realtime(i64),
}

impl Knob {
    /// All of them.
    pub const ALL: [Self; 8] = [
        Self::StatInterval,
        Self::NumaBalancing,
        Self::SamePageMerging,
        Self::Compaction,
        Self::HugePageScan,
        Self::NmiWatchdog,
        Self::RealtimeThrottling,
        Self::TimerMigration,
    ];

    /// Its name in profiles.
    #[must_use]
    pub fn id(self) -> String {
        serde_json::to_value(self).ok().and_then(|v| v.as_str().map(str::to_owned)).unwrap_or_default()
    }

    /// Its name in a narrow column.
    #[must_use]
    pub const fn short_name(self) -> &'static str {
        match self {
            Self::StatInterval => "stat interval",
            Self::NumaBalancing => "numa balancing",
            Self::SamePageMerging => "ksm",
            Self::Compaction => "compaction",
            Self::HugePageScan => "thp scan",
            Self::NmiWatchdog => "nmi watchdog",
            Self::RealtimeThrottling => "rt throttling",
            Self::TimerMigration => "timers",
        }
    }

    /// Its file, from the root.
    #[must_use]
    pub const fn file(self) -> &'static str {
        match self {
            Self::StatInterval => "proc/sys/vm/stat_interval",
            Self::NumaBalancing => "proc/sys/kernel/numa_balancing",
            Self::SamePageMerging => "sys/kernel/mm/ksm/run",
            Self::Compaction => "proc/sys/vm/compaction_proactiveness",
            Self::HugePageScan => "sys/kernel/mm/transparent_hugepage/khugepaged/defrag",
            Self::NmiWatchdog => "proc/sys/kernel/nmi_watchdog",
            Self::RealtimeThrottling => "proc/sys/kernel/sched_rt_runtime_us",
            Self::TimerMigration => "proc/sys/kernel/timer_migration",
        }
    }

    /// What dedicated CPUs are spared where it is as they need it.
    #[must_use]
    pub const fn removes(self) -> &'static str {
        match self {
            Self::StatInterval => "a worker thread each second that folds statistics (some µs)",
            Self::NumaBalancing => "page faults on memory that was unmapped to watch it (µs each)",
            Self::SamePageMerging => "write faults on merged pages, and the merging thread",
            Self::Compaction => "interruptions of every CPU while pages are moved",
            Self::HugePageScan => "interruptions of every CPU while huge pages are put together",
            Self::NmiWatchdog => "a non-maskable interrupt every few seconds",
            Self::RealtimeThrottling => "the stop of real-time vCPUs for 50 ms of each second",
            Self::TimerMigration => "timers of others on idle dedicated CPUs",
        }
    }

    const fn need(self) -> Need {
        match self {
            Self::StatInterval => Need::AtLeast(10),
            Self::NumaBalancing
            | Self::SamePageMerging
            | Self::Compaction
            | Self::HugePageScan
            | Self::NmiWatchdog => Need::Exactly(0),
            Self::RealtimeThrottling => Need::Realtime(-1),
            Self::TimerMigration => Need::Exactly(1),
        }
    }

    /// What it should be, when without any wish it were `base`; `base` where it does as it is, or cannot be understood.
    #[must_use]
    pub fn wanted(self, base: &str, realtime: bool) -> String {
        let Ok(now) = base.parse::<i64>() else { return base.to_owned() };
        let wanted = match self.need() {
            Need::Exactly(value) => value,
            Need::AtLeast(value) => value.max(now),
            Need::Realtime(value) if realtime => value,
            Need::Realtime(_) => now,
        };
        wanted.to_string()
    }
}

impl fmt::Display for Knob {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::StatInterval => "vm.stat_interval",
            Self::NumaBalancing => "kernel.numa_balancing",
            Self::SamePageMerging => "ksm",
            Self::Compaction => "vm.compaction_proactiveness",
            Self::HugePageScan => "khugepaged defrag",
            Self::NmiWatchdog => "kernel.nmi_watchdog",
            Self::RealtimeThrottling => "kernel.sched_rt_runtime_us",
            Self::TimerMigration => "kernel.timer_migration",
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_does_already_stays() {
        assert_eq!(Knob::StatInterval.wanted("1", false), "10");
        assert_eq!(Knob::StatInterval.wanted("120", false), "120");
        assert_eq!(Knob::NumaBalancing.wanted("0", false), "0");
        assert_eq!(Knob::RealtimeThrottling.wanted("950000", false), "950000");
        assert_eq!(Knob::RealtimeThrottling.wanted("950000", true), "-1");
        assert_eq!(Knob::NmiWatchdog.wanted("some", true), "some");
    }
}
