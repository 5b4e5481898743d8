//! The keeper's part in control groups: made for guests, made again where others undo them, taken away after them.

use std::time::{Duration, Instant};

use pinion_planner::HoldingState;

use super::keeper::{Keeper, count};
use super::notice::Notice;
use crate::ledger::{LedgerDocument, LedgerEntry, LedgerError};
use crate::partition::{Isolation, PartitionError};
use crate::pod::PodPlace;

/// How long groups of a process that has ended are waited for.
const SWEPT_WITHIN: Duration = Duration::from_millis(500);

impl Keeper {
    /// Makes the CPUs of a guest that holds them, and whose threads are on them, its own.
    ///
    /// # Errors
    /// Why they are not; its threads are pinned to them still. The ledger's error is the outer one.
    pub fn isolate(&mut self, pid: i32) -> Result<Result<Isolation, PartitionError>, LedgerError> {
        let (partitions, containers) = (self.partitions.clone(), self.containers.clone());
        self.ledger.changing(|document, _| {
            let entry = document.holdings.iter().find(|e| e.process.pid == pid);
            let quiet =
                entry.filter(|e| e.host.quiet_cpus && !e.host.pinned_only && !e.holding.cpus.is_empty());
            Ok(match quiet {
                None => Ok(Isolation::Pinned),
                Some(LedgerEntry { pod: Some(pod), holding, .. }) => {
                    containers.divide(pid, pod, &holding.cpus).map(|()| Isolation::Pinned)
                }
                Some(e) => partitions.make(pid, &e.holding.cpus, &e.host.fallback),
            })
        })
    }

    /// Lets the container of a guest that has CPUs to itself use the housekeeping CPUs too.
    ///
    /// # Errors
    /// Why it may not.
    pub(crate) fn widen(&self, entry: &LedgerEntry) -> Result<(), PartitionError> {
        match &entry.pod {
            Some(pod) if !entry.holding.cpus.is_empty() => self.containers.widen(pod).map(drop),
            _ => Ok(()),
        }
    }

    /// A guest in a pod has ended: its container's groups are as the kubelet made them.
    pub(crate) fn gather(&self, pod: &PodPlace) {
        self.containers.gather(pod);
    }

    /// Puts back what the kubelet, or anybody, has made of guests' containers: a kubelet that is started anew gives them
    /// their own CPUs only. The process's own groups keep its threads where they belong as soon as the container may.
    pub(super) fn repair_containers(&mut self, document: &LedgerDocument) -> Vec<Notice> {
        let pods = document.holdings.iter().filter_map(|entry| entry.pod.as_ref());
        self.containers.tidy(&pods.map(|pod| pod.group.clone()).collect());
        let mut notices = Vec::new();
        for entry in document.holdings.iter().filter(|e| !e.holding.cpus.is_empty()) {
            let Some(pod) = &entry.pod else { continue };
            let widened = self.containers.widen(pod);
            let done = widened.and_then(|wide| Ok(self.containers.restore(pod)? || wide));
            let failure = match done {
                Ok(false) => {
                    self.lost.remove(&entry.process.pid);
                    continue;
                }
                Ok(true) => None,
                Err(e) => Some(pinion_endpoint::chain(&e)),
            };
            if failure.is_none() {
                count(&mut self.tally.repairs, "cgroup");
            } else if !self.lost.insert(entry.process.pid) {
                // Tried each time, since the kubelet may relent; told and counted once.
                continue;
            }
            count(&mut self.tally.drifts, "cgroup");
            let by =
                self.containers.files(pod).iter().find_map(|f| self.contests.culprit(f, &self.host.proc()));
            notices.push(Notice::Container { owner: entry.holding.owner.clone(), by, failure });
        }
        notices
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
