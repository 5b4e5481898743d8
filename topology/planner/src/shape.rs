//! Regular machines from a few numbers: for benchmarks, property tests and examples.
//!
//! Owns nothing of the planner; it only fills in a [`Machine`]. Real machines come from
//! discovery, never from here.

use pinion_machine::{
    Bdf, Core, CoreId, Cpu, CpuId, CpuSet, Distances, HugePagePool, L3Domain, L3Id, Machine, Node, NodeId,
    Package, PackageId, PageSize, PciFunction,
};

/// A machine of equal nodes, numbered as Linux numbers x86: first threads of all cores,
/// then second threads.
#[derive(Clone, Debug)]
pub struct Shape {
    nodes: u32,
    cores: u32,
    threads: u32,
    l3_cores: u32,
    memory: u64,
    pools: Vec<(PageSize, u64)>,
    without_cpus: Vec<u32>,
    without_memory: Vec<u32>,
    distances: Option<Vec<Vec<u32>>>,
    pci: Vec<PciFunction>,
}

impl Shape {
    /// `nodes` nodes of `cores` cores each: one thread per core, one L3 domain and
    /// 64 GiB per node, all nodes 20 apart.
    #[must_use]
    pub fn new(nodes: u32, cores: u32) -> Self {
        Self {
            nodes,
            cores,
            threads: 1,
            l3_cores: cores.max(1),
            memory: 64 << 30,
            pools: Vec::new(),
            without_cpus: Vec::new(),
            without_memory: Vec::new(),
            distances: None,
            pci: Vec::new(),
        }
    }

    /// Threads per core.
    #[must_use]
    pub fn threads(mut self, threads: u32) -> Self {
        self.threads = threads.max(1);
        self
    }

    /// Cores per L3 domain; the last domain of a node takes what is left.
    #[must_use]
    pub fn l3_cores(mut self, cores: u32) -> Self {
        self.l3_cores = cores.max(1);
        self
    }

    /// Ordinary memory per node, bytes, all of it available.
    #[must_use]
    pub fn memory(mut self, bytes: u64) -> Self {
        self.memory = bytes;
        self
    }

    /// A pool of free huge pages on every node with memory.
    #[must_use]
    pub fn huge_pages(mut self, size: PageSize, pages: u64) -> Self {
        self.pools.push((size, pages));
        self.pools.sort_unstable_by_key(|p| p.0);
        self
    }

    /// Makes nodes memory-only.
    #[must_use]
    pub fn without_cpus(mut self, nodes: &[u32]) -> Self {
        self.without_cpus.extend(nodes);
        self
    }

    /// Takes the memory out of nodes.
    #[must_use]
    pub fn without_memory(mut self, nodes: &[u32]) -> Self {
        self.without_memory.extend(nodes);
        self
    }

    /// Distances, row by row; a table of the wrong size is ignored.
    #[must_use]
    pub fn distances(mut self, rows: Vec<Vec<u32>>) -> Self {
        self.distances = Some(rows);
        self
    }

    /// Nodes in blocks: `near` apart inside a block, `far` apart between blocks.
    #[must_use]
    pub fn blocks(self, size: u32, near: u32, far: u32) -> Self {
        let size = size.max(1);
        let apart = |a: u32, b: u32| match (a == b, a / size == b / size) {
            (true, _) => 10,
            (false, true) => near,
            (false, false) => far,
        };
        let rows = (0..self.nodes).map(|a| (0..self.nodes).map(|b| apart(a, b)).collect()).collect();
        self.distances(rows)
    }

    /// A PCI function on a node, in an IOMMU group.
    #[must_use]
    pub fn device(mut self, address: Bdf, node: u32, group: u32) -> Self {
        self.pci.push(PciFunction {
            address,
            vendor: 0x10de,
            device: 0x2335,
            class: 0x03_02_00,
            node: Some(NodeId(node)),
            iommu_group: Some(group),
            ..PciFunction::default()
        });
        self.pci.sort_unstable_by_key(|f| f.address);
        self
    }

    /// The machine.
    #[must_use]
    pub fn build(&self) -> Machine {
        let ids: Vec<NodeId> = (0..self.nodes).map(NodeId).collect();
        let flat =
            || ids.iter().map(|a| ids.iter().map(|b| if a == b { 10 } else { 20 }).collect()).collect();
        let rows = self.distances.clone().unwrap_or_else(flat);
        let mut machine = Machine {
            distances: Distances::new(ids, rows).unwrap_or_default(),
            pci: self.pci.clone(),
            ..Machine::default()
        };
        let mut next = 0;
        for node in 0..self.nodes {
            let cores = if self.without_cpus.contains(&node) { 0 } else { self.cores };
            self.add_node(&mut machine, node, next..next + cores);
            next += cores;
        }
        self.add_cpus(&mut machine, next);
        machine
    }

    fn cpus_of(&self, core: u32, total: u32) -> CpuSet {
        (0..self.threads).map(|t| CpuId(core + t * total)).collect()
    }

    fn total_cores(&self) -> u32 {
        let with_cpus = (0..self.nodes).filter(|n| !self.without_cpus.contains(n)).map(|_| 1).sum::<u32>();
        with_cpus * self.cores
    }

    fn add_node(&self, machine: &mut Machine, node: u32, cores: std::ops::Range<u32>) {
        let total = self.total_cores();
        let id = NodeId(node);
        let mut cpus = CpuSet::new();
        let mut first = cores.start;
        while first < cores.end {
            let last = cores.end.min(first + self.l3_cores);
            let mut shared = CpuSet::new();
            for core in first..last {
                let own = self.cpus_of(core, total);
                shared.extend(own.iter());
                machine.cores.push(Core {
                    id: CoreId(core),
                    package: PackageId(node),
                    die: None,
                    node: Some(id),
                    l3: Some(L3Id(first)),
                    cpus: own,
                });
            }
            cpus.extend(shared.iter());
            machine.l3_domains.push(L3Domain { id: L3Id(first), cpus: shared, size_bytes: 32 << 20 });
            first = last;
        }
        let package = (!cpus.is_empty()).then_some(PackageId(node));
        if let Some(id) = package {
            machine.packages.push(Package { id, cpus: cpus.clone(), model: None });
        }
        let memory = if self.without_memory.contains(&node) { 0 } else { self.memory };
        let pool = |(page_size, pages): &(PageSize, u64)| HugePagePool {
            page_size: *page_size,
            total: *pages,
            free: *pages,
        };
        let huge_pages: Vec<_> = if memory == 0 { Vec::new() } else { self.pools.iter().map(pool).collect() };
        let huge: u64 = huge_pages.iter().map(|p| p.total * p.page_size.bytes()).sum();
        machine.nodes.push(Node {
            id,
            cpus,
            package,
            memory_bytes: memory + huge,
            available_bytes: memory,
            huge_pages,
        });
    }

    fn add_cpus(&self, machine: &mut Machine, total: u32) {
        for thread in 0..self.threads {
            for core in &machine.cores {
                let id = CpuId(core.id.0 + thread * total);
                machine.cpus.push(Cpu { id, core: core.id, node: core.node, power: None });
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn siblings_are_numbered_as_linux_numbers_them() {
        let machine = Shape::new(2, 2).threads(2).without_memory(&[1]).build();
        let lists: Vec<String> = machine.cores.iter().map(|c| c.cpus.to_string()).collect();
        assert_eq!(lists, ["0,4", "1,5", "2,6", "3,7"]);
        assert_eq!(machine.nodes[1].cpus.to_string(), "2-3,6-7");
        assert_eq!(machine.nodes[1].memory_bytes, 0);
        assert_eq!(machine.online().len(), 8);
        assert_eq!(machine.distances.between(NodeId(0), NodeId(1)), 20);
    }

    #[test]
    fn cpus_and_cores_are_sorted_by_id() {
        let machine = Shape::new(3, 3).threads(2).l3_cores(2).without_cpus(&[1]).build();
        assert!(machine.cpus.is_sorted_by_key(|c| c.id));
        assert!(machine.cores.is_sorted_by_key(|c| c.id));
        assert_eq!(machine.l3_domains.len(), 4);
        assert!(machine.nodes[1].cpus.is_empty());
    }
}
