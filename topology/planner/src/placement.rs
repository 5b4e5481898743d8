//! The full answer: where everything goes.
//!
//! Its JSON is read by others: `apiVersion: pinion.dev/v1alpha1`, `kind: Placement`
//! are added by whoever writes the document. Golden tests hold the keys.

use pinion_machine::{Bdf, CpuId, CpuSet, NodeId, PageSize};
use serde::{Deserialize, Serialize};

use crate::{HeldFloating, HeldMemory, Holding, HoldingState};

/// Where everything of one VM goes.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Placement {
    /// `namespace/name` of the VM.
    pub name: String,
    /// The ledger generation it was planned against.
    pub generation: u64,
    /// vCPUs in guest order: sockets, then cores, then threads.
    pub vcpus: Vec<Vcpu>,
    /// Threads that are neither vCPUs nor I/O threads.
    pub emulator: Emulator,
    /// I/O threads.
    pub io_threads: Vec<IoThread>,
    /// Guest NUMA cells; at least one.
    pub cells: Vec<Cell>,
    /// Passed-through devices.
    pub devices: Vec<Device>,
}

/// A vCPU and its place.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Vcpu {
    /// Index, from 0.
    pub id: u32,
    /// Guest socket.
    pub socket: u32,
    /// Guest core inside the socket.
    pub core: u32,
    /// Guest thread inside the core.
    pub thread: u32,
    /// Guest cell.
    pub cell: u32,
    /// The CPU it has to itself; absent with shared CPUs.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub cpu: Option<CpuId>,
    /// The CPUs it floats over; absent with a dedicated CPU.
    #[serde(default, skip_serializing_if = "CpuSet::is_empty")]
    pub cpus: CpuSet,
    /// Whether it runs in a real-time class (`SCHED_FIFO`, priority 1).
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub realtime: bool,
}

impl Placement {
    /// The CPUs that the guest has to itself: of dedicated vCPUs and I/O threads. An I/O
    /// thread with none of its own runs on housekeeping CPUs.
    #[must_use]
    pub fn dedicated_cpus(&self) -> CpuSet {
        let own = |t: &&IoThread| t.cpus.is_disjoint(&self.emulator.cpus);
        let threads = self.io_threads.iter().filter(own).flat_map(|t| t.cpus.iter());
        self.vcpus.iter().filter_map(|v| v.cpu).chain(threads).collect()
    }

    /// What the guest takes, as the ledger records it.
    #[must_use]
    pub fn holding(&self, state: HoldingState) -> Holding {
        let mut holding = Holding {
            owner: self.name.clone(),
            state,
            cpus: self.dedicated_cpus(),
            floating: Vec::new(),
            memory: Vec::new(),
            devices: self.devices.iter().map(|d| d.address).collect(),
        };
        for cell in &self.cells {
            let floats = |v: &&Vcpu| v.cell == cell.id && v.cpu.is_none();
            if let Some(first) = self.vcpus.iter().find(floats) {
                let vcpus = self.vcpus.iter().filter(floats).map(|_| 1).sum();
                holding.floating.push(HeldFloating { cpus: first.cpus.clone(), vcpus });
            }
            let (node, page_size) = (cell.host_node, cell.page_size_bytes);
            match holding.memory.iter_mut().find(|m| m.node == node) {
                Some(held) => held.bytes = held.bytes.saturating_add(cell.memory_bytes),
                None => holding.memory.push(HeldMemory { node, page_size, bytes: cell.memory_bytes }),
            }
        }
        holding
    }
}

impl Vcpu {
    /// The CPUs it may run on: its own, or those it floats over.
    #[must_use]
    pub fn allowed(&self) -> CpuSet {
        self.cpu.map_or_else(|| self.cpus.clone(), |cpu| CpuSet::from_iter([cpu]))
    }
}

/// Where the emulator threads go.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Emulator {
    /// Housekeeping CPUs.
    pub cpus: CpuSet,
}

/// An I/O thread and its place.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct IoThread {
    /// Its number, from 1.
    pub id: u32,
    /// CPUs it may run on; one where dedicated.
    pub cpus: CpuSet,
    /// Disks it serves.
    pub disks: Vec<String>,
}

/// A guest NUMA cell and the host node its memory is on.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Cell {
    /// Its number, from 0.
    pub id: u32,
    /// Host node of its memory.
    pub host_node: NodeId,
    /// Memory, bytes.
    pub memory_bytes: u64,
    /// Pages that back it.
    pub page_size_bytes: PageSize,
    /// Its vCPUs, by index.
    pub vcpus: Vec<u32>,
    /// Distances to cells 0, 1, …, as the guest's SLIT will say.
    pub distances: Vec<u32>,
}

/// A passed-through device and its place.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Device {
    /// Name in the spec.
    pub name: String,
    /// The function chosen.
    pub address: Bdf,
    /// Its IOMMU group.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub iommu_group: Option<u32>,
    /// Its host node, where known.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub host_node: Option<NodeId>,
    /// The guest cell that uses it.
    pub cell: u32,
    /// The CPUs that its interrupts come to, vector after vector in turn.
    #[serde(default, skip_serializing_if = "CpuSet::is_empty")]
    pub interrupt_cpus: CpuSet,
}

/// The CPU that a device's vector comes to, of those that its interrupts come to: each vector to the next of them.
#[must_use]
pub fn vector_cpu(cpus: &CpuSet, vector: u32) -> Option<CpuId> {
    let turn = (vector as usize).checked_rem(cpus.len())?;
    cpus.iter().nth(turn)
}
