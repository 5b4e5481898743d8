//! What is taken, by whom.

use pinion_machine::{Bdf, CpuId, CpuSet, Machine, NodeId, PageSize};
use serde::{Deserialize, Serialize};

use crate::Placement;

/// What is taken on a machine.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Occupancy {
    /// Counts every change; a reservation made against an older one is refused.
    pub generation: u64,
    /// CPUs of the host, of emulator threads and of movable interrupts. Never dedicated.
    /// Where none of them is online, [`Occupancy::default_housekeeping`] stands in.
    pub housekeeping: CpuSet,
    /// Who holds what, in the order it was taken.
    pub holdings: Vec<Holding>,
}

/// What one guest holds.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Holding {
    /// `namespace/name` of the VM.
    pub owner: String,
    /// How far it is.
    pub state: HoldingState,
    /// Dedicated CPUs of vCPUs and I/O threads. The whole core of each is held: no
    /// other guest gets its siblings.
    pub cpus: CpuSet,
    /// CPUs that its shared vCPUs float over, by node; other shared guests may too.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub floating: Vec<HeldFloating>,
    /// Memory, by node and page size.
    pub memory: Vec<HeldMemory>,
    /// Passed-through functions.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub devices: Vec<Bdf>,
}

/// How far a holding is.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub enum HoldingState {
    /// Promised; its pages are not taken from the kernel yet, which still counts them as free.
    Reserved,
    /// Its pages are populated: the kernel's free counts already lack them.
    Committed,
}

/// Memory held on one node.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct HeldMemory {
    /// The node.
    pub node: NodeId,
    /// Page size.
    pub page_size: PageSize,
    /// Bytes.
    pub bytes: u64,
}

/// Shared vCPUs on one node.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct HeldFloating {
    /// The CPUs they float over.
    pub cpus: CpuSet,
    /// How many vCPUs.
    pub vcpus: u32,
}

impl Occupancy {
    /// CPUs that are dedicated to a guest.
    #[must_use]
    pub fn dedicated(&self) -> CpuSet {
        self.holdings.iter().fold(CpuSet::new(), |all, holding| all.union(&holding.cpus))
    }

    /// CPUs of a machine that are neither dedicated nor housekeeping.
    #[must_use]
    pub fn free(&self, machine: &Machine) -> CpuSet {
        machine.online().difference(&self.dedicated()).difference(&self.housekeeping)
    }

    /// The same, with the default housekeeping CPUs where none are said.
    #[must_use]
    pub fn with_housekeeping(mut self, machine: &Machine) -> Self {
        if self.housekeeping.is_empty() {
            self.housekeeping = Self::default_housekeeping(machine);
        }
        self
    }

    /// The housekeeping CPUs of a machine whose ledger does not name any: with isolated
    /// CPUs, all others that are online; else the first core, siblings included, of the
    /// lowest node with CPUs.
    #[must_use]
    pub fn default_housekeeping(machine: &Machine) -> CpuSet {
        let online = machine.online();
        let rest = online.difference(&machine.kernel.isolated);
        if rest.len() < online.len() && !rest.is_empty() {
            return rest;
        }
        let on_lowest_node = machine.nodes.iter().find_map(|n| n.cpus.first());
        let first = on_lowest_node.or_else(|| machine.cpus.first().map(|c| c.id));
        first.map(|cpu| siblings(machine, cpu)).unwrap_or_default()
    }

    /// What a placed guest takes, as the ledger records it.
    #[must_use]
    pub fn holding_of(placement: &Placement, state: HoldingState) -> Holding {
        placement.holding(state)
    }
}

/// The online CPUs of the core of `cpu`, itself included.
fn siblings(machine: &Machine, cpu: CpuId) -> CpuSet {
    let core = machine.cpu(cpu).and_then(|c| machine.core(c.core));
    let mut cpus = core.map(|c| c.cpus.clone()).unwrap_or_default();
    cpus.insert(cpu);
    cpus
}
