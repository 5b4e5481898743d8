//! What is taken, by whom.

use pinion_machine::{Bdf, CpuSet, NodeId, PageSize};
use serde::{Deserialize, Serialize};

/// What is taken on a machine.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Occupancy {
    /// Counts every change; a reservation made against an older one is refused.
    pub generation: u64,
    /// CPUs of the host, of emulator threads and of movable interrupts. Never dedicated.
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
    /// Dedicated CPUs of vCPUs and I/O threads.
    pub cpus: CpuSet,
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
