//! Why not: the smallest set of shortages that explains it.

use pinion_machine::NodeId;
use serde::{Deserialize, Serialize};

use crate::{GuestTopology, MemoryRequest};

/// Why a request cannot be placed. `message` is one sentence for people.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, thiserror::Error)]
#[serde(rename_all = "camelCase")]
#[error("{message}")]
pub struct Refusal {
    /// `namespace/name` of the VM.
    pub name: String,
    /// Stable reason code.
    pub reason: RefusalReason,
    /// One sentence: what is short, where, who holds it.
    pub message: String,
    /// The smallest set of shortages that explains it: take them away and it fits.
    pub shortages: Vec<Shortage>,
    /// The nearest request that would fit now, where there is one.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub nearest: Option<Nearest>,
}

/// Stable reason codes: also condition reasons and metric labels.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
pub enum RefusalReason {
    /// Not enough free CPUs, cores or SMT siblings.
    InsufficientCpus,
    /// Not enough ordinary memory.
    InsufficientMemory,
    /// Not enough free huge pages of the size.
    InsufficientHugePages,
    /// No pool of that page size.
    UnsupportedPageSize,
    /// Guest threads per core do not fit the host's SMT.
    UnsupportedThreads,
    /// No free device among the candidates.
    InsufficientDevices,
    /// No CPU may be dedicated: all are housekeeping.
    NoDedicatedCpus,
}

/// One thing that is short.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Shortage {
    /// `cpus`, `cores`, `memory`, `hugepages-2Mi`, a device name…
    pub resource: String,
    /// The node it is short on; absent where it is the whole machine.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub node: Option<NodeId>,
    /// How much is needed there; bytes for memory and huge pages, else a count.
    pub needed: u64,
    /// How much is free there.
    pub free: u64,
    /// Who holds the rest.
    pub held_by: Vec<Holder>,
}

/// Who holds how much of a resource that is short.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Holder {
    /// `namespace/name` of the VM, or `housekeeping`.
    pub owner: String,
    /// How much, in the shortage's unit.
    pub amount: u64,
}

/// The nearest request that fits now.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Nearest {
    /// vCPUs, with the threads per core that were asked for.
    pub topology: GuestTopology,
    /// Memory.
    pub memory: MemoryRequest,
}
