//! The certificate's document: its JSON, as others read it. Pure data.

use std::collections::BTreeMap;
use std::fmt;

use jiff::Timestamp;
use pinion_machine::{CpuId, CpuSet, NodeId, PageSize};
use serde::{Deserialize, Serialize};

/// The version of this document.
pub const API_VERSION: &str = "pinion.dev/v1alpha1";
/// The kind of this document.
pub const KIND: &str = "Certificate";

/// What was read back from the kernel about one guest, and whether it is what was planned.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Certificate {
    /// Always `pinion.dev/v1alpha1`.
    pub api_version: String,
    /// Always `Certificate`.
    pub kind: String,
    /// `namespace/name` of the VM.
    pub name: String,
    /// The process the guest lives in.
    pub pid: i32,
    /// Counts the checks of this guest, from 1.
    pub sequence: u64,
    /// When the threads were read.
    pub checked_at: Timestamp,
    /// When the memory was counted; earlier than `checked_at` where a check left it out.
    pub memory_checked_at: Timestamp,
    /// The worst verdict of all items.
    pub verdict: Verdict,
    /// One entry for each thing that was planned.
    pub items: Vec<Item>,
    /// The items that do not hold, as sentences.
    pub mismatches: Vec<String>,
    /// What the kernel says of each thread.
    pub threads: Vec<ThreadFacts>,
    /// What the kernel says of each cell's memory.
    pub cells: Vec<CellFacts>,
    /// Passed-through devices and where their interrupts go; empty without devices.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub devices: Vec<DeviceFacts>,
}

/// Whether something is as planned. Ordered from best to worst.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub enum Verdict {
    /// It is as planned.
    Holds,
    /// The kernel does not say; `reason` tells why.
    Unverifiable,
    /// It is not as planned.
    Drifted,
}

impl Verdict {
    /// All of them, from best to worst.
    pub const ALL: [Self; 3] = [Self::Holds, Self::Unverifiable, Self::Drifted];

    /// As the JSON and the metric label write it.
    #[must_use]
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Holds => "holds",
            Self::Unverifiable => "unverifiable",
            Self::Drifted => "drifted",
        }
    }
}

impl fmt::Display for Verdict {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.as_str())
    }
}

/// One thing that was planned, and what was read back.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Item {
    /// What it is about: `vcpu/0`, `ioThread/1`, `emulator/metrics:4711`, `cell/0`.
    pub subject: String,
    /// What of it was checked.
    pub check: Check,
    /// As planned.
    pub planned: String,
    /// As read back.
    pub observed: String,
    /// Whether the two agree.
    pub verdict: Verdict,
    /// Why it is `unverifiable`, or holds although the two differ.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub reason: Option<String>,
}

impl fmt::Display for Item {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { subject, check, planned, observed, verdict, reason } = self;
        write!(f, "{subject}: {check} planned {planned}, observed {observed} ({verdict})")?;
        reason.as_ref().map_or(Ok(()), |reason| write!(f, ": {reason}"))
    }
}

/// What is checked of a subject; also the cause by which drift is counted.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub enum Check {
    /// The thread exists.
    Alive,
    /// The CPUs it may run on.
    Cpus,
    /// The CPU it ran on last.
    LastCpu,
    /// Its scheduling class and priority.
    Scheduling,
    /// The size of the pages that back the cell.
    PageSize,
    /// The host node of every page of the cell.
    Pages,
    /// The cell's pages cannot be swapped out.
    Locked,
    /// Where a device's interrupts go.
    Interrupts,
}

impl Check {
    /// All of them.
    pub const ALL: [Self; 8] = [
        Self::Alive,
        Self::Cpus,
        Self::LastCpu,
        Self::Scheduling,
        Self::PageSize,
        Self::Pages,
        Self::Locked,
        Self::Interrupts,
    ];

    /// As the JSON and the metric label write it.
    #[must_use]
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Alive => "alive",
            Self::Cpus => "cpus",
            Self::LastCpu => "lastCpu",
            Self::Scheduling => "scheduling",
            Self::PageSize => "pageSize",
            Self::Pages => "pages",
            Self::Locked => "locked",
            Self::Interrupts => "interrupts",
        }
    }
}

impl fmt::Display for Check {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.as_str())
    }
}

/// What a thread is for.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(tag = "role", content = "id", rename_all = "camelCase")]
pub enum Role {
    /// Runs the guest's vCPU of this index.
    Vcpu(u32),
    /// The I/O thread of this number.
    IoThread(u32),
    /// Anything else.
    Emulator,
}

impl Role {
    /// As the metric label writes it.
    #[must_use]
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Vcpu(_) => "vcpu",
            Self::IoThread(_) => "ioThread",
            Self::Emulator => "emulator",
        }
    }
}

/// What the kernel says of a thread (`/proc/PID/task/TID/{status,stat,schedstat}`).
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct ThreadFacts {
    /// What it is for.
    #[serde(flatten)]
    pub role: Role,
    /// Its name in the kernel.
    pub name: String,
    /// Its thread id.
    pub tid: i32,
    /// The CPUs it may run on.
    pub allowed_cpus: CpuSet,
    /// The CPU it ran on last.
    pub last_cpu: CpuId,
    /// Its scheduling class.
    pub scheduling: Scheduling,
    /// Time it was ready to run and had to wait for a CPU, ns.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub run_delay_ns: Option<u64>,
    /// Time it ran, ns.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub run_time_ns: Option<u64>,
    /// How often the kernel took the CPU from it.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub involuntary_switches: Option<u64>,
    /// Whether it was running or ready when read, rather than asleep.
    #[serde(skip)]
    pub runnable: bool,
}

/// A scheduling class and its priority, as `SCHED_FIFO:1` or `SCHED_OTHER`.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Scheduling {
    /// The kernel's policy number (`sched(7)`): 0 other, 1 FIFO, …
    pub policy: u32,
    /// Real-time priority, 1 to 99; 0 outside the real-time classes.
    pub priority: u32,
}

impl Scheduling {
    /// The class of every thread that asks for none.
    pub const OTHER: Self = Self { policy: 0, priority: 0 };
    /// The class of real-time vCPUs.
    pub const FIFO_1: Self = Self { policy: 1, priority: 1 };
}

impl fmt::Display for Scheduling {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.policy {
            0 => f.write_str("SCHED_OTHER"),
            1 => write!(f, "SCHED_FIFO:{}", self.priority),
            2 => write!(f, "SCHED_RR:{}", self.priority),
            3 => f.write_str("SCHED_BATCH"),
            5 => f.write_str("SCHED_IDLE"),
            6 => f.write_str("SCHED_DEADLINE"),
            other => write!(f, "class {other}"),
        }
    }
}

/// What the kernel says of a cell's memory (`/proc/PID/numa_maps`).
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct CellFacts {
    /// The cell.
    pub id: u32,
    /// The node that was planned.
    pub host_node: NodeId,
    /// Size of the pages found, bytes; the planned one where none is there.
    pub page_size_bytes: PageSize,
    /// Bytes planned.
    pub memory_bytes: u64,
    /// Pages found, by the node they are on.
    pub pages_per_node: BTreeMap<NodeId, u64>,
    /// Pages on another node than planned.
    pub misplaced_pages: u64,
    /// Pages that are nowhere: never populated, or swapped out.
    pub missing_pages: u64,
    /// Where it lies in the process: pairs of address and length, bytes.
    pub ranges: Vec<(u64, u64)>,
}

/// What the kernel says of a passed-through device.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct DeviceFacts {
    /// Its name in the spec.
    pub name: String,
    /// Its address on the host.
    pub address: pinion_machine::Bdf,
    /// CPUs that its interrupts are planned for, vector after vector in turn; empty where nothing is promised.
    pub interrupt_cpus: CpuSet,
    /// The vectors that it has now.
    pub vectors: Vec<VectorFacts>,
}

/// What the kernel says of a vector of a passed-through device (`/proc/interrupts`, `/proc/irq`).
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct VectorFacts {
    /// What raises it: `msix`, `msi` or `intx`.
    pub kind: String,
    /// Its number on the device.
    pub index: u32,
    /// Its number on the host.
    pub irq: u32,
    /// The CPU that it is planned for.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub planned_cpu: Option<CpuId>,
    /// The CPUs that it comes to (`effective_affinity_list`).
    pub effective_cpus: CpuSet,
    /// How often it came.
    pub count: u64,
}
