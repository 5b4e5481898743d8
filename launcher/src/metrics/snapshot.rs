//! What the metrics are made of, at one moment. Pure data.

use std::collections::BTreeMap;
use std::time::Duration;

use crate::backend::GuestStats;
use crate::certificate::{Certificate, Check, RepairResult, ThreadFacts};

/// Whose metrics.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Identity {
    /// Name of the node: in a cluster, or its host name.
    pub node: String,
    /// Name of its pod, where it is in one.
    pub pod: Option<String>,
    /// Namespace of the VM.
    pub namespace: String,
    /// Name of the VM.
    pub name: String,
    /// Labels of the VM.
    pub labels: BTreeMap<String, String>,
    /// Memory of the guest, bytes.
    pub memory_bytes: u64,
    /// Whether it may be moved elsewhere when the node is drained.
    pub evictable: bool,
}

/// Phases of a guest, with KubeVirt's names.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord)]
pub enum GuestPhase {
    /// Placed; its process is being set up.
    #[default]
    Scheduled,
    /// Its first instruction has run.
    Running,
    /// It powered itself off.
    Succeeded,
    /// It ended in another way.
    Failed,
}

impl GuestPhase {
    /// As the metric label writes it.
    #[must_use]
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Scheduled => "Scheduled",
            Self::Running => "Running",
            Self::Succeeded => "Succeeded",
            Self::Failed => "Failed",
        }
    }
}

/// Times and memory of the process.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct ProcessUsage {
    /// CPU time in user mode.
    pub user: Duration,
    /// CPU time in the kernel.
    pub system: Duration,
    /// Resident memory, bytes, without huge pages.
    pub resident_bytes: u64,
    /// Of it, memory of the guest.
    pub resident_guest_bytes: u64,
}

/// Everything that the metrics say, at one moment.
#[derive(Clone, Debug, Default)]
pub struct Snapshot {
    /// Whose.
    pub identity: Identity,
    /// Where the guest is in its life.
    pub phase: GuestPhase,
    /// Time from the start of the command to each phase reached.
    pub phase_times: BTreeMap<GuestPhase, Duration>,
    /// How long each phase of the start took, by name.
    pub startup: Vec<(&'static str, Duration)>,
    /// Times and memory of the process.
    pub process: ProcessUsage,
    /// Threads as they are now.
    pub threads: Vec<ThreadFacts>,
    /// Time that vCPUs waited for block I/O, by index.
    pub block_wait: BTreeMap<u32, Duration>,
    /// The last certificate.
    pub certificate: Option<Certificate>,
    /// How often something drifted.
    pub drift_total: BTreeMap<Check, u64>,
    /// How often it was put back.
    pub repairs_total: BTreeMap<(Check, RepairResult), u64>,
    /// What the backend counts.
    pub guest: GuestStats,
}
