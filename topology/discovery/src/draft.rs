//! A machine as a source tells it, before it is made consistent.
//!
//! Sources may contradict themselves (a CPU in two nodes, siblings that do not agree):
//! every CPU ends up in exactly one core and at most one node and L3 domain, the first
//! that claims it.

use std::collections::BTreeMap;

use pinion_machine::{
    Core, CoreId, Cpu, CpuId, CpuSet, DieId, Distances, HugePagePool, KernelFacts, L3Domain, L3Id, Machine,
    Node, NodeId, Package, PackageId, PciFunction, Power, Source,
};

/// What a source says.
#[derive(Debug, Default)]
pub(crate) struct Draft {
    pub(crate) online: CpuSet,
    pub(crate) offline: CpuSet,
    pub(crate) cores: Vec<CoreDraft>,
    /// CPUs that share an L3, and its size in bytes.
    pub(crate) l3: Vec<(CpuSet, u64)>,
    pub(crate) nodes: Vec<NodeDraft>,
    pub(crate) distances: Distances,
    pub(crate) pci: Vec<PciFunction>,
    pub(crate) kernel: KernelFacts,
    pub(crate) power: BTreeMap<CpuId, Power>,
    pub(crate) models: BTreeMap<PackageId, String>,
}

/// A core.
#[derive(Debug)]
pub(crate) struct CoreDraft {
    pub(crate) cpus: CpuSet,
    pub(crate) package: PackageId,
    pub(crate) die: Option<DieId>,
}

/// A node.
#[derive(Debug)]
pub(crate) struct NodeDraft {
    pub(crate) id: NodeId,
    pub(crate) cpus: CpuSet,
    pub(crate) memory_bytes: u64,
    pub(crate) available_bytes: u64,
    pub(crate) huge_pages: Vec<HugePagePool>,
}

impl Draft {
    /// The machine.
    pub(crate) fn into_machine(mut self, source: Source) -> Machine {
        let mut cores = self.take_cores();
        let mut nodes = self.take_nodes();
        let mut l3_domains = self.take_l3();
        let node_of = owners(nodes.iter().map(|n| (n.id, &n.cpus)));
        let l3_of = owners(l3_domains.iter().map(|d| (d.id, &d.cpus)));
        for core in &mut cores {
            core.node = core.cpus.first().and_then(|cpu| node_of.get(&cpu).copied());
            core.l3 = core.cpus.first().and_then(|cpu| l3_of.get(&cpu).copied());
        }
        let mut cpus: Vec<Cpu> = Vec::with_capacity(self.online.len());
        for core in &cores {
            for id in core.cpus.iter() {
                let (node, power) = (node_of.get(&id).copied(), self.power.remove(&id));
                cpus.push(Cpu { id, core: core.id, node, power });
            }
        }
        let package_of = owners(cores.iter().map(|c| (c.package, &c.cpus)));
        for node in &mut nodes {
            node.package = sole(node.cpus.iter().filter_map(|cpu| package_of.get(&cpu).copied()));
        }
        for function in &mut self.pci {
            function.node = function.node.filter(|id| nodes.iter().any(|n| n.id == *id));
        }
        let packages = self.take_packages(&cores);
        cpus.sort_by_key(|c| c.id);
        cores.sort_by_key(|c| c.id);
        l3_domains.sort_by_key(|d| d.id);
        self.pci.sort_by_key(|f| f.address);
        self.pci.dedup_by_key(|f| f.address);
        Machine {
            source,
            packages,
            nodes,
            distances: self.distances,
            l3_domains,
            cores,
            cpus,
            offline: self.offline.difference(&self.online),
            pci: self.pci,
            kernel: self.kernel,
        }
    }

    fn take_cores(&mut self) -> Vec<Core> {
        let mut left = self.online.clone();
        let mut cores = Vec::new();
        for draft in std::mem::take(&mut self.cores) {
            let cpus = claim(&mut left, &draft.cpus);
            if let Some(first) = cpus.first() {
                let (package, die) = (draft.package, draft.die);
                cores.push(Core { id: CoreId(first.0), package, die, node: None, l3: None, cpus });
            }
        }
        // CPUs whose core nobody names are cores of their own.
        for cpu in left.iter() {
            let cpus = CpuSet::from_iter([cpu]);
            cores.push(Core {
                id: CoreId(cpu.0),
                package: PackageId(0),
                die: None,
                node: None,
                l3: None,
                cpus,
            });
        }
        cores
    }

    /// A node that covers the CPUs of others as well (memory beside the CPUs' own) gets
    /// those that are left: the narrowest node claims first, then the lowest.
    fn take_nodes(&mut self) -> Vec<Node> {
        let mut drafts = std::mem::take(&mut self.nodes);
        drafts.sort_by_key(|n| (n.cpus.len(), n.id));
        let mut left = self.online.clone();
        let mut nodes: Vec<Node> = drafts
            .into_iter()
            .map(|n| Node {
                id: n.id,
                cpus: claim(&mut left, &n.cpus),
                package: None,
                memory_bytes: n.memory_bytes,
                available_bytes: n.available_bytes.min(n.memory_bytes),
                huge_pages: pools(n.huge_pages),
            })
            .collect();
        nodes.sort_by_key(|n| n.id);
        nodes.dedup_by_key(|n| n.id);
        nodes
    }

    fn take_l3(&mut self) -> Vec<L3Domain> {
        let mut left = self.online.clone();
        let claimed = std::mem::take(&mut self.l3).into_iter().filter_map(|(cpus, size_bytes)| {
            let cpus = claim(&mut left, &cpus);
            let id = L3Id(cpus.first()?.0);
            Some(L3Domain { id, cpus, size_bytes })
        });
        claimed.collect()
    }

    fn take_packages(&mut self, cores: &[Core]) -> Vec<Package> {
        let mut packages: BTreeMap<PackageId, CpuSet> = BTreeMap::new();
        for core in cores {
            packages.entry(core.package).or_default().extend(core.cpus.iter());
        }
        let with_model =
            |(id, cpus)| Package { id, cpus, model: self.models.remove(&id).filter(|m| !m.is_empty()) };
        packages.into_iter().map(with_model).collect()
    }
}

/// Takes those of `wanted` that are left.
fn claim(left: &mut CpuSet, wanted: &CpuSet) -> CpuSet {
    let taken = left.intersection(wanted);
    *left = left.difference(&taken);
    taken
}

fn owners<'a, T: Copy>(sets: impl Iterator<Item = (T, &'a CpuSet)>) -> BTreeMap<CpuId, T> {
    sets.flat_map(|(owner, cpus)| cpus.iter().map(move |cpu| (cpu, owner))).collect()
}

/// The one value that all have.
fn sole<T: PartialEq>(mut values: impl Iterator<Item = T>) -> Option<T> {
    let first = values.next()?;
    values.all(|v| v == first).then_some(first)
}

fn pools(mut pools: Vec<HugePagePool>) -> Vec<HugePagePool> {
    pools.sort_by_key(|p| p.page_size);
    pools.dedup_by_key(|p| p.page_size);
    for pool in &mut pools {
        pool.free = pool.free.min(pool.total);
    }
    pools
}

#[cfg(test)]
mod tests {
    use super::*;

    fn set(list: &str) -> CpuSet {
        list.parse().unwrap()
    }

    fn node(id: u32, cpus: &str) -> NodeDraft {
        let (memory_bytes, available_bytes) = (100, 200);
        NodeDraft { id: NodeId(id), cpus: set(cpus), memory_bytes, available_bytes, huge_pages: vec![] }
    }

    fn core(cpus: &str, package: u32) -> CoreDraft {
        CoreDraft { cpus: set(cpus), package: PackageId(package), die: None }
    }

    #[test]
    fn contradictions_end_with_one_owner_per_cpu() {
        let draft = Draft {
            online: set("0-5"),
            offline: set("5-6"),
            cores: vec![core("0-1", 0), core("1-2", 0), core("3,9", 1)],
            l3: vec![(set("0-3"), 1), (set("3-5"), 2), (set("0"), 3)],
            nodes: vec![node(7, "0-2"), node(2, "2-9"), node(7, "5")],
            ..Draft::default()
        };
        let machine = draft.into_machine(Source::Host);
        let cores: Vec<String> = machine.cores.iter().map(|c| c.cpus.to_string()).collect();
        assert_eq!(cores, ["0-1", "2", "3", "4", "5"]);
        assert_eq!(machine.offline, set("6"));
        assert_eq!(machine.l3_domains.len(), 2);
        assert_eq!(machine.nodes.len(), 2);
        assert_eq!(machine.nodes[0].package, None, "CPUs 4 and 5 are of package 0, 3 of 1");
        assert_eq!(machine.nodes[0].available_bytes, 100);
        assert!(machine.cpus.iter().map(|c| c.id.0).eq(0..6));
    }

    #[test]
    fn memory_beside_the_cpus_own_claims_no_cpus() {
        let draft = Draft {
            online: set("0-3"),
            nodes: vec![node(0, "0-3"), node(1, "0-1"), node(2, "2-3")],
            ..Draft::default()
        };
        let machine = draft.into_machine(Source::Host);
        let cpus: Vec<String> = machine.nodes.iter().map(|n| n.cpus.to_string()).collect();
        assert_eq!(cpus, ["", "0-1", "2-3"]);
    }
}
