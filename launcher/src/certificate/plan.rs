//! What a certificate is held against: the placement, thread by thread and cell by cell. Pure data.

use std::collections::BTreeMap;

use pinion_machine::{Bdf, CpuSet, NodeId, PageSize};
use pinion_planner::Placement;

use super::document::{Role, Scheduling, ThreadFacts};

/// What was planned for one guest.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Plan {
    /// `namespace/name` of the VM.
    pub name: String,
    /// vCPU and I/O threads.
    pub threads: BTreeMap<Role, PlannedThread>,
    /// Where every other thread belongs; empty where the placement does not say.
    pub emulator: CpuSet,
    /// Names of threads that I/O threads start for their own work: they may run where the one that started them does.
    pub helpers: &'static [&'static str],
    /// Whether somebody may take CPUs away from threads that share several with others.
    pub may_narrow: bool,
    /// Memory of the cells.
    pub cells: Vec<PlannedCell>,
    /// Whether no page may be swapped out.
    pub locked: bool,
    /// Passed-through devices.
    pub devices: Vec<PlannedDevice>,
}

/// A device's plan.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct PlannedDevice {
    /// Its name in the spec.
    pub name: String,
    /// Its address on the host.
    pub address: Bdf,
    /// Where its interrupts come to, vector after vector in turn; empty where nothing is promised.
    pub interrupt_cpus: CpuSet,
}

/// A thread's plan.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct PlannedThread {
    /// The CPUs it may run on, all of them.
    pub cpus: CpuSet,
    /// Its scheduling class.
    pub scheduling: Scheduling,
}

/// A cell's plan.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct PlannedCell {
    /// The cell.
    pub id: u32,
    /// Host node of all its pages.
    pub host_node: NodeId,
    /// Size of its pages.
    pub page_size: PageSize,
    /// Bytes.
    pub bytes: u64,
}

impl PlannedCell {
    /// How many pages it takes.
    #[must_use]
    pub const fn pages(&self) -> u64 {
        self.bytes.div_ceil(self.page_size.bytes())
    }
}

impl Plan {
    /// What a placement promises. Memory is locked where a vCPU is real-time.
    #[must_use]
    pub fn of(placement: &Placement) -> Self {
        let vcpus = placement.vcpus.iter().map(|vcpu| {
            let scheduling = if vcpu.realtime { Scheduling::FIFO_1 } else { Scheduling::OTHER };
            (Role::Vcpu(vcpu.id), PlannedThread { cpus: vcpu.allowed(), scheduling })
        });
        let io = placement.io_threads.iter().map(|thread| {
            let planned = PlannedThread { cpus: thread.cpus.clone(), scheduling: Scheduling::OTHER };
            (Role::IoThread(thread.id), planned)
        });
        let cells = placement.cells.iter().map(|cell| PlannedCell {
            id: cell.id,
            host_node: cell.host_node,
            page_size: cell.page_size_bytes,
            bytes: cell.memory_bytes,
        });
        Self {
            name: placement.name.clone(),
            threads: vcpus.chain(io).collect(),
            emulator: placement.emulator.cpus.clone(),
            helpers: &[],
            may_narrow: false,
            cells: cells.collect(),
            locked: placement.vcpus.iter().any(|v| v.realtime),
            devices: placement
                .devices
                .iter()
                .map(|d| PlannedDevice {
                    name: d.name.clone(),
                    address: d.address,
                    interrupt_cpus: d.interrupt_cpus.clone(),
                })
                .collect(),
        }
    }

    /// With threads of these names that I/O threads start.
    #[must_use]
    pub const fn with_helpers(mut self, helpers: &'static [&'static str]) -> Self {
        self.helpers = helpers;
        self
    }

    /// The plan of a thread that was found.
    #[must_use]
    pub fn thread_of(&self, facts: &ThreadFacts) -> Option<PlannedThread> {
        if facts.role == Role::Emulator && self.helpers.contains(&facts.name.as_str()) {
            let io = self.threads.iter().filter(|(role, _)| matches!(role, Role::IoThread(_)));
            let own = io.map(|(_, planned)| planned).find(|planned| planned.cpus == facts.allowed_cpus);
            if own.is_some() {
                return own.cloned();
            }
        }
        self.thread(facts.role)
    }

    /// The plan of a thread, by what it is for.
    #[must_use]
    pub fn thread(&self, role: Role) -> Option<PlannedThread> {
        match role {
            Role::Emulator if self.emulator.is_empty() => None,
            Role::Emulator => {
                Some(PlannedThread { cpus: self.emulator.clone(), scheduling: Scheduling::OTHER })
            }
            known => self.threads.get(&known).cloned(),
        }
    }
}
