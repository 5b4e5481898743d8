//! What the pages are made of, gathered when somebody looks: the node from the desk, each guest from its launcher.
//!
//! Runs on the pages' thread. A launcher is not trusted: what it says is bounded, and about its own guest or left out.

use std::fs;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, Instant};

use pinion_discovery::{From, discover};
use pinion_endpoint::ask;
use pinion_endpoint::guest::{GuestRequest, GuestStatus};
use pinion_machine::Machine;
use pinion_planner::{HoldingState, Occupancy};

use super::published::Published;
use super::status::{GuestRow, NodeStatus};
use crate::ledger::Ledger;

/// How long one guest may take to answer.
const ONE: Duration = Duration::from_secs(2);
/// How long all of them may.
const ALL: Duration = Duration::from_secs(8);
/// How long the machine is taken for the same.
const MACHINE_FOR: Duration = Duration::from_secs(300);

/// The node, as its pages see it.
#[derive(Debug)]
pub(super) struct Node {
    pub(super) ledger: Ledger,
    pub(super) status: Arc<Mutex<NodeStatus>>,
    pub(super) published: Option<Arc<Published>>,
    machine: Mutex<Option<(Instant, Arc<Machine>)>>,
}

/// CPU time and memory of this process.
#[derive(Clone, Copy, Debug, Default)]
pub(super) struct Usage {
    pub(super) cpu: Duration,
    pub(super) resident_bytes: u64,
}

impl Node {
    pub(super) fn new(ledger: Ledger, published: Option<Arc<Published>>) -> Self {
        Self { ledger, status: Arc::default(), published, machine: Mutex::default() }
    }

    pub(super) fn status(&self) -> NodeStatus {
        self.status.lock().unwrap_or_else(PoisonError::into_inner).clone()
    }

    /// The machine, read anew now and then.
    pub(super) fn machine(&self) -> Option<Arc<Machine>> {
        let mut kept = self.machine.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some((_, machine)) = kept.as_ref().filter(|(read, _)| read.elapsed() < MACHINE_FOR) {
            return Some(Arc::clone(machine));
        }
        let machine = Arc::new(discover(&From::Host).ok()?);
        *kept = Some((Instant::now(), Arc::clone(&machine)));
        Some(machine)
    }

    /// What is taken, with housekeeping CPUs filled in.
    pub(super) fn occupancy(machine: &Machine, status: &NodeStatus) -> Occupancy {
        status.occupancy.clone().with_housekeeping(machine)
    }

    /// What each guest says of itself; `None` where it does not answer.
    pub(super) fn guests(&self, status: &NodeStatus) -> Vec<(GuestRow, Option<GuestStatus>)> {
        let ask = |row: &GuestRow| ask(&self.ledger.socket_of(row.pid), &GuestRequest::Status, ONE).ok();
        self.each(status, ask)
    }

    /// The metrics of each guest; `None` where it does not answer.
    pub(super) fn guest_metrics(&self, status: &NodeStatus) -> Vec<(GuestRow, Option<String>)> {
        let ask = |row: &GuestRow| ask(&self.ledger.socket_of(row.pid), &GuestRequest::Metrics, ONE).ok();
        self.each(status, ask)
    }

    fn each<T>(
        &self,
        status: &NodeStatus,
        ask: impl Fn(&GuestRow) -> Option<T>,
    ) -> Vec<(GuestRow, Option<T>)> {
        let began = Instant::now();
        let rows = status.guests.iter().filter(|row| row.state == HoldingState::Committed);
        rows.map(|row| (row.clone(), if began.elapsed() < ALL { ask(row) } else { None })).collect()
    }
}

impl Usage {
    pub(super) fn now() -> Self {
        let Ok(stat) = procfs::process::Process::myself().and_then(|p| p.stat()) else {
            return Self::default();
        };
        let ticks = (stat.utime + stat.stime).saturating_mul(1000) / procfs::ticks_per_second().max(1);
        Self {
            cpu: Duration::from_millis(ticks),
            resident_bytes: stat.rss.saturating_mul(procfs::page_size()),
        }
    }
}

/// The host's name.
pub(super) fn node_name() -> String {
    fs::read_to_string("/proc/sys/kernel/hostname").unwrap_or_default().trim().to_owned()
}
