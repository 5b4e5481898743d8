//! The machine: plain data, in the order of operating-system ids.

use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};

use crate::{CoreId, CpuId, CpuSet, DieId, L3Id, NodeId, PackageId, PageSize, PciFunction};

/// A whole machine. All lists are sorted by id.
///
/// Nodes without CPUs or without memory exist and are not errors; node ids are
/// sparse; there can be more than 64.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Machine {
    /// Where this was read from.
    pub source: Source,
    /// Packages (sockets).
    pub packages: Vec<Package>,
    /// NUMA nodes.
    pub nodes: Vec<Node>,
    /// Distances between nodes.
    pub distances: Distances,
    /// L3 domains; empty where the machine does not say.
    pub l3_domains: Vec<L3Domain>,
    /// Physical cores.
    pub cores: Vec<Core>,
    /// Online CPUs.
    pub cpus: Vec<Cpu>,
    /// CPUs that exist and are offline.
    pub offline: CpuSet,
    /// PCI functions.
    pub pci: Vec<PciFunction>,
    /// What the kernel was booted and built with.
    pub kernel: KernelFacts,
}

/// Where a machine was read from.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", tag = "kind", content = "value")]
pub enum Source {
    /// This host.
    #[default]
    Host,
    /// An hwloc XML file, by path.
    Xml(String),
    /// An hwloc synthetic description.
    Synthetic(String),
    /// A gathered sysfs tree, by path of its root.
    Sysfs(String),
}

/// A package (socket).
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Package {
    /// Its id.
    pub id: PackageId,
    /// Its online CPUs.
    pub cpus: CpuSet,
    /// The processor's name, where known.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub model: Option<String>,
}

/// A NUMA node.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Node {
    /// Its id.
    pub id: NodeId,
    /// Its online CPUs; empty for memory-only nodes (HBM, CXL, GPU memory).
    pub cpus: CpuSet,
    /// The package of its CPUs, where all are of one.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub package: Option<PackageId>,
    /// Memory, bytes, hugetlb pools included; 0 for a node without memory.
    pub memory_bytes: u64,
    /// Ordinary memory that can be had now without swapping: free plus reclaimable
    /// page cache, bytes (free hugetlb pages are not in it).
    pub available_bytes: u64,
    /// Hugetlb pools, by ascending page size.
    pub huge_pages: Vec<HugePagePool>,
}

/// The hugetlb pool of one page size on one node.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct HugePagePool {
    /// Page size.
    pub page_size: PageSize,
    /// Pages in the pool (`nr_hugepages`).
    pub total: u64,
    /// Pages not in use (`free_hugepages`).
    pub free: u64,
}

/// Distances between NUMA nodes as in the ACPI SLIT: 10 is local.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Distances {
    /// Row and column order.
    nodes: Vec<NodeId>,
    /// Row-major: from node of the row to node of the column.
    rows: Vec<Vec<u32>>,
}

impl Distances {
    /// A matrix over `nodes`; `None` unless square and of that size, with nodes unique.
    #[must_use]
    pub fn new(nodes: Vec<NodeId>, rows: Vec<Vec<u32>>) -> Option<Self> {
        let square = rows.len() == nodes.len() && rows.iter().all(|r| r.len() == nodes.len());
        let mut sorted = nodes.clone();
        sorted.sort_unstable();
        sorted.dedup();
        (square && sorted.len() == nodes.len()).then_some(Self { nodes, rows })
    }

    /// The matrix in the order of `nodes`, row by row, with the same defaults as
    /// [`Distances::between`]: for readers that ask for many pairs.
    #[must_use]
    pub fn table(&self, nodes: &[NodeId]) -> Vec<Vec<u32>> {
        let known: BTreeMap<NodeId, usize> = self.nodes.iter().copied().zip(0..).collect();
        let index: Vec<Option<usize>> = nodes.iter().map(|n| known.get(n).copied()).collect();
        let pairs = || nodes.iter().zip(&index);
        pairs()
            .map(|(from, row)| {
                let row = row.and_then(|r| self.rows.get(r));
                pairs()
                    .map(|(to, column)| {
                        row.zip(*column).and_then(|(row, c)| row.get(c).copied()).unwrap_or(if from == to {
                            10
                        } else {
                            20
                        })
                    })
                    .collect()
            })
            .collect()
    }

    /// Distance from one node to another: 10 to itself and 20 to others where the
    /// machine does not say (the kernel's own defaults).
    #[must_use]
    pub fn between(&self, from: NodeId, to: NodeId) -> u32 {
        let index = |id| self.nodes.iter().position(|n| *n == id);
        index(from)
            .zip(index(to))
            .and_then(|(r, c)| self.rows.get(r)?.get(c).copied())
            .unwrap_or(if from == to { 10 } else { 20 })
    }
}

/// An L3 cache and who shares it.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct L3Domain {
    /// Its id: the lowest CPU that shares it.
    pub id: L3Id,
    /// Online CPUs that share it.
    pub cpus: CpuSet,
    /// Size, bytes.
    pub size_bytes: u64,
}

/// A physical core.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Core {
    /// Its id: the lowest CPU on it, online or not.
    pub id: CoreId,
    /// Its package.
    pub package: PackageId,
    /// Its die, where the machine says.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub die: Option<DieId>,
    /// Its NUMA node, where it has one.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub node: Option<NodeId>,
    /// Its L3 domain, where known.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub l3: Option<L3Id>,
    /// Its online CPUs: SMT siblings.
    pub cpus: CpuSet,
}

/// An online CPU (hardware thread).
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Cpu {
    /// Its id.
    pub id: CpuId,
    /// Its core.
    pub core: CoreId,
    /// Its NUMA node, where it has one.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub node: Option<NodeId>,
    /// Power facts, where the source has them.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub power: Option<Power>,
}

/// How a CPU saves power: what can delay its next instruction.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Power {
    /// cpufreq governor.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub governor: Option<String>,
    /// Enabled idle states by name, with their exit latency in microseconds.
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    pub idle_states: BTreeMap<String, u32>,
}

/// What the kernel was booted with, as far as determinism is concerned.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct KernelFacts {
    /// Release (`uname -r`), where known.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub release: Option<String>,
    /// CPUs out of the scheduler's load balancing (`isolcpus`, isolated partitions).
    pub isolated: CpuSet,
    /// CPUs with the tick stopped (`nohz_full`).
    pub nohz_full: CpuSet,
    /// CPUs without RCU callbacks (`rcu_nocbs`).
    pub rcu_nocbs: CpuSet,
    /// Whether an IOMMU translates for devices; `None` where the source does not say.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub iommu: Option<bool>,
    /// Whether it remaps interrupts; `None` where the source does not say.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub interrupt_remapping: Option<bool>,
}

impl Machine {
    /// The node of that id.
    #[must_use]
    pub fn node(&self, id: NodeId) -> Option<&Node> {
        self.nodes.binary_search_by_key(&id, |n| n.id).ok().and_then(|i| self.nodes.get(i))
    }

    /// The online CPU of that id.
    #[must_use]
    pub fn cpu(&self, id: CpuId) -> Option<&Cpu> {
        self.cpus.binary_search_by_key(&id, |c| c.id).ok().and_then(|i| self.cpus.get(i))
    }

    /// The core of that id.
    #[must_use]
    pub fn core(&self, id: CoreId) -> Option<&Core> {
        self.cores.binary_search_by_key(&id, |c| c.id).ok().and_then(|i| self.cores.get(i))
    }

    /// All online CPUs.
    #[must_use]
    pub fn online(&self) -> CpuSet {
        self.cpus.iter().map(|c| c.id).collect()
    }
}
