//! Checks a guest again and again, and counts and repairs drift.
//!
//! Lives on the launcher's main thread, or in whoever audits a guest from outside.
//! A check never changes anything; only [`Auditor::repair`] does, and only threads.

use std::collections::BTreeMap;
use std::io;

use jiff::Timestamp;
use pinion_interrupts::IrqFiles;
use pinion_machine::CpuSet;

use super::devices::{DeviceObservation, observe_devices};
use super::document::{Certificate, Check, Item, Role, Scheduling, Verdict};
use super::judge::{Reading, judge};
use super::observe::{MemoryObservation, Observation, Subjects, observe_memory, observe_threads};
use super::plan::Plan;

/// How deep a check looks.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Depth {
    /// Threads; the memory's last count stands.
    Threads,
    /// Threads and every page.
    Everything,
}

/// Puts a thread back where it was planned.
pub trait Repair {
    /// Sets the CPUs a thread may run on.
    ///
    /// # Errors
    /// As the kernel says.
    fn set_cpus(&self, tid: i32, cpus: &CpuSet) -> io::Result<()>;

    /// Sets a thread's scheduling class.
    ///
    /// # Errors
    /// As the kernel says.
    fn set_scheduling(&self, tid: i32, scheduling: Scheduling) -> io::Result<()>;
}

/// A repair that was tried.
#[derive(Debug)]
pub struct Repaired {
    /// The thread.
    pub role: Role,
    /// What had drifted.
    pub check: Check,
    /// Whether it was put back.
    pub result: io::Result<()>,
}

/// Checks one guest.
#[derive(Debug)]
pub struct Auditor {
    plan: Plan,
    subjects: Subjects,
    sequence: u64,
    memory: Option<(Timestamp, MemoryObservation)>,
    devices: DeviceObservation,
    interrupts: IrqFiles,
    drifted: Vec<(String, Check)>,
    drift_total: BTreeMap<Check, u64>,
    repairs_total: BTreeMap<(Check, RepairResult), u64>,
}

/// How a repair went.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum RepairResult {
    /// Put back.
    Repaired,
    /// The kernel refused.
    Failed,
}

impl RepairResult {
    /// All of them.
    pub const ALL: [Self; 2] = [Self::Repaired, Self::Failed];

    /// As the metric label writes it.
    #[must_use]
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Repaired => "repaired",
            Self::Failed => "failed",
        }
    }
}

/// The answer of one check.
#[derive(Debug)]
pub struct Checked {
    /// The certificate.
    pub certificate: Certificate,
    /// Items that held at the check before and do not now.
    pub new_drift: Vec<Item>,
}

impl Auditor {
    /// An auditor of what lives in one process.
    #[must_use]
    pub fn new(plan: Plan, subjects: Subjects) -> Self {
        Self {
            plan,
            subjects,
            sequence: 0,
            memory: None,
            devices: DeviceObservation::default(),
            interrupts: IrqFiles::default(),
            drifted: Vec::new(),
            drift_total: BTreeMap::new(),
            repairs_total: BTreeMap::new(),
        }
    }

    /// Reads everything back once. The first check counts pages whatever `depth` says.
    pub fn check(&mut self, depth: Depth) -> Checked {
        if self.memory.is_none() || depth == Depth::Everything {
            self.memory = Some((Timestamp::now(), observe_memory(&self.subjects)));
        }
        let threads = observe_threads(&self.subjects);
        if !self.plan.devices.is_empty() {
            self.devices = observe_devices(&self.plan, &self.interrupts, &self.devices);
        }
        self.conclude(&threads)
    }

    fn conclude(&mut self, threads: &Observation) -> Checked {
        self.sequence = self.sequence.saturating_add(1);
        let now = Timestamp::now();
        let nothing = MemoryObservation { cells: BTreeMap::new(), locked_bytes: None };
        let (memory_at, memory) = self.memory.as_ref().map_or((now, &nothing), |(at, m)| (*at, m));
        let reading = Reading {
            sequence: self.sequence,
            threads_at: now,
            threads,
            memory_at,
            memory,
            devices: &self.devices,
        };
        let certificate = judge(&self.plan, &self.subjects, &reading);
        let drifted = certificate.items.iter().filter(|i| i.verdict == Verdict::Drifted);
        let (mut keys, mut new_drift) = (Vec::new(), Vec::new());
        for item in drifted {
            let key = (item.subject.clone(), item.check);
            if !self.drifted.contains(&key) {
                let count = self.drift_total.entry(item.check).or_default();
                *count = count.saturating_add(1);
                new_drift.push(item.clone());
            }
            keys.push(key);
        }
        self.drifted = keys;
        Checked { certificate, new_drift }
    }

    /// Puts emulator threads that are new since the last certificate where such threads belong, and
    /// tells their names. The kernel makes some for a guest while it runs (`kvm-nx-lpage-recovery`
    /// with its first instruction), and they are born on the CPUs of the vCPU that caused them.
    pub fn settle(&mut self, last: &Certificate, repair: &dyn Repair) -> Vec<(String, io::Result<()>)> {
        let mut settled = Vec::new();
        for (role, tid, facts) in observe_threads(&self.subjects).threads {
            let Some(facts) = facts.filter(|_| role == Role::Emulator) else { continue };
            let Some(planned) = self.plan.thread_of(&facts) else { continue };
            if facts.allowed_cpus != planned.cpus && !last.threads.iter().any(|t| t.tid == tid) {
                settled.push((facts.name, repair.set_cpus(tid, &planned.cpus)));
            }
        }
        settled
    }

    /// Puts back the threads that the last certificate found elsewhere. The next check
    /// says whether it worked.
    pub fn repair(&mut self, last: &Certificate, repair: &dyn Repair) -> Vec<Repaired> {
        let mut done = Vec::new();
        for facts in &last.threads {
            let Some(planned) = self.plan.thread_of(facts) else { continue };
            if facts.allowed_cpus != planned.cpus {
                let result = repair.set_cpus(facts.tid, &planned.cpus);
                done.push(Repaired { role: facts.role, check: Check::Cpus, result });
            }
            if facts.scheduling != planned.scheduling {
                let result = repair.set_scheduling(facts.tid, planned.scheduling);
                done.push(Repaired { role: facts.role, check: Check::Scheduling, result });
            }
        }
        for repaired in &done {
            let result = if repaired.result.is_ok() { RepairResult::Repaired } else { RepairResult::Failed };
            let count = self.repairs_total.entry((repaired.check, result)).or_default();
            *count = count.saturating_add(1);
        }
        done
    }

    /// How often something drifted since the guest started, by what it was.
    #[must_use]
    pub const fn drift_total(&self) -> &BTreeMap<Check, u64> {
        &self.drift_total
    }

    /// How often a repair was tried, by what had drifted and how it went.
    #[must_use]
    pub const fn repairs_total(&self) -> &BTreeMap<(Check, RepairResult), u64> {
        &self.repairs_total
    }
}
