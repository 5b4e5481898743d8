//! The keeper's part in partitions: made for guests, made again where others undo them, taken away after them.

use std::time::{Duration, Instant};

use pinion_planner::HoldingState;

use super::keeper::{Keeper, count};
use super::notice::Notice;
use crate::ledger::{LedgerDocument, LedgerError};
use crate::partition::{Isolation, PartitionError};

/// How long groups of a process that has ended are waited for.
const SWEPT_WITHIN: Duration = Duration::from_millis(500);

impl Keeper {
    /// Makes the CPUs of a guest that holds them, and whose threads are on them, its own.
    ///
    /// # Errors
    /// Why they are not; its threads are pinned to them still. The ledger's error is the outer one.
    pub fn isolate(&mut self, pid: i32) -> Result<Result<Isolation, PartitionError>, LedgerError> {
        let partitions = self.partitions.clone();
        self.ledger.changing(|document, _| {
            let entry = document.holdings.iter().find(|e| e.process.pid == pid);
            let quiet =
                entry.filter(|e| e.host.quiet_cpus && !e.host.pinned_only && !e.holding.cpus.is_empty());
            Ok(quiet
                .map_or(Ok(Isolation::Pinned), |e| partitions.make(pid, &e.holding.cpus, &e.host.fallback)))
        })
    }

    /// Whether guests' CPUs can be their own here.
    #[must_use]
    pub fn can_isolate(&self) -> bool {
        self.partitions.are_possible()
    }

    /// How far the CPUs of a guest's process are its own now.
    #[must_use]
    pub fn isolation(&self, pid: i32) -> Isolation {
        self.partitions.isolation(pid)
    }

    /// Makes partitions again that others undid.
    pub(super) fn repair_partitions(&mut self, document: &LedgerDocument) -> Vec<Notice> {
        let mut notices = Vec::new();
        for entry in document.holdings.iter().filter(|e| e.holding.state == HoldingState::Committed) {
            let pid = entry.process.pid;
            let undone = self.partitions.has(pid) && self.partitions.isolation(pid) == Isolation::Pinned;
            if !undone || self.lost.contains(&pid) {
                continue;
            }
            let by =
                self.partitions.files(pid).iter().find_map(|f| self.contests.culprit(f, &self.host.proc()));
            let made = self.partitions.make(pid, &entry.holding.cpus, &entry.host.fallback);
            if matches!(made, Err(PartitionError::Moved { .. })) {
                // Its launcher pins its threads again, and then there is something to make a partition of.
                continue;
            }
            let failure = made.err().map(|e| e.to_string());
            count(&mut self.tally.drifts, "cgroup");
            if failure.is_some() {
                // It would fail again: nobody is helped by trying every few seconds.
                self.lost.insert(pid);
            } else {
                count(&mut self.tally.repairs, "cgroup");
            }
            notices.push(Notice::Partition { owner: entry.holding.owner.clone(), by, failure });
        }
        notices
    }

    /// Threads of a process that has ended may take a moment to leave their groups.
    pub(super) fn sweep(&self, document: &LedgerDocument) {
        let alive: Vec<i32> = document.holdings.iter().map(|e| e.process.pid).collect();
        let end = Instant::now() + SWEPT_WITHIN;
        while !self.partitions.sweep(&alive) && Instant::now() < end {
            std::thread::sleep(Duration::from_millis(10));
        }
    }
}
