//! A machine as far as a planner looks at it, small enough to be published whenever it changes: 4 KiB for 128 CPUs.
//!
//! Written by the agent of a node, read by whoever chooses among nodes. What a plan does not depend on (names, power, other
//! PCI functions) is left out, and planning on what comes back gives the same answer.

use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};

use crate::{
    Bdf, Core, CoreId, Cpu, CpuListError, CpuSet, DieId, Distances, HugePagePool, KernelFacts, L3Domain,
    L3Id, Machine, Node, NodeId, Package, PackageId, PciFunction,
};

/// Most cores that an outline may have: a hostile one must not exhaust memory.
const MOST_CORES: usize = 16_384;

/// A machine as far as a planner looks at it.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Outline {
    /// NUMA nodes.
    pub nodes: Vec<OutlineNode>,
    /// Distances between nodes, row by row in their order; empty where the machine does not say.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub distances: Vec<Vec<u32>>,
    /// Cores that share a cache, a node and a package.
    pub domains: Vec<OutlineDomain>,
    /// CPUs out of the scheduler's balancing, as a list.
    #[serde(default, skip_serializing_if = "String::is_empty")]
    pub isolated: String,
    /// PCI functions that a guest may ask for.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub devices: Vec<OutlineDevice>,
}

/// A NUMA node.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct OutlineNode {
    /// Its id.
    pub id: NodeId,
    /// Memory, bytes.
    pub memory_bytes: u64,
    /// What of it can be had now, bytes.
    pub available_bytes: u64,
    /// Hugetlb pools.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub huge_pages: Vec<HugePagePool>,
}

/// Cores that share a cache, a node and a package.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct OutlineDomain {
    /// Their node.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub node: Option<NodeId>,
    /// Their package.
    pub package: PackageId,
    /// Their die.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub die: Option<DieId>,
    /// Their L3 cache, and its size in bytes.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub l3: Option<(L3Id, u64)>,
    /// CPUs of each core as a list: `0,64`. `7:8,72` where the core's id is not its lowest CPU.
    pub cores: Vec<String>,
}

/// A PCI function.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct OutlineDevice {
    /// Its address.
    pub address: Bdf,
    /// Its node.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub node: Option<NodeId>,
    /// Its IOMMU group.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub iommu_group: Option<u32>,
}

/// Why an outline is no machine.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum OutlineError {
    /// A list of CPUs cannot be read.
    #[error("{field}: {text:?}")]
    List {
        /// Where it is.
        field: String,
        /// What it says.
        text: String,
        /// Why not.
        source: CpuListError,
    },
    /// A core's id is no number.
    #[error("{field}: {text:?} does not begin with a core's id")]
    Core {
        /// Where it is.
        field: String,
        /// What it says.
        text: String,
    },
    /// Two nodes, cores or CPUs are the same.
    #[error("{0} is there twice")]
    Twice(String),
    /// Distances are not square.
    #[error("distances: {rows} rows for {nodes} nodes")]
    Distances {
        /// How many rows there are.
        rows: usize,
        /// How many nodes.
        nodes: usize,
    },
    /// It is larger than any machine.
    #[error("domains: more than {MOST_CORES} cores")]
    TooLarge,
}

impl Outline {
    /// The outline of a machine, with those of its PCI functions that a guest may ask for.
    #[must_use]
    pub fn of(machine: &Machine, offered: impl Fn(Bdf) -> bool) -> Self {
        let ids: Vec<NodeId> = machine.nodes.iter().map(|node| node.id).collect();
        let rows = machine.distances.table(&ids);
        let says = rows != Distances::default().table(&ids);
        let node = |node: &Node| OutlineNode {
            id: node.id,
            memory_bytes: node.memory_bytes,
            available_bytes: node.available_bytes,
            huge_pages: node.huge_pages.clone(),
        };
        let device =
            |f: &PciFunction| OutlineDevice { address: f.address, node: f.node, iommu_group: f.iommu_group };
        Self {
            nodes: machine.nodes.iter().map(node).collect(),
            distances: if says { rows } else { Vec::new() },
            domains: domains(machine),
            isolated: machine.kernel.isolated.to_string(),
            devices: machine.pci.iter().filter(|f| offered(f.address)).map(device).collect(),
        }
    }

    /// The machine that it outlines.
    ///
    /// # Errors
    /// [`OutlineError`], naming what cannot be.
    pub fn machine(&self) -> Result<Machine, OutlineError> {
        let isolated = list("isolated", &self.isolated)?;
        let mut machine =
            Machine { kernel: KernelFacts { isolated, ..KernelFacts::default() }, ..Machine::default() };
        for (index, domain) in self.domains.iter().enumerate() {
            add_domain(&mut machine, domain, &format!("domains[{index}]"))?;
        }
        machine.cores.sort_by_key(|core| core.id);
        machine.cpus.sort_by_key(|cpu| cpu.id);
        machine.l3_domains.sort_by_key(|domain| domain.id);
        machine.packages.sort_by_key(|package| package.id);
        self.add_nodes(&mut machine)?;
        machine.pci = self
            .devices
            .iter()
            .map(|d| PciFunction {
                address: d.address,
                node: d.node,
                iommu_group: d.iommu_group,
                ..PciFunction::default()
            })
            .collect();
        machine.pci.sort_by_key(|f| f.address);
        twice(machine.cores.windows(2).find(|w| is_pair(w, |core| core.id)), |c| format!("core {}", c.id))?;
        twice(machine.cpus.windows(2).find(|w| is_pair(w, |cpu| cpu.id)), |c| format!("CPU {}", c.id))?;
        Ok(machine)
    }

    fn add_nodes(&self, machine: &mut Machine) -> Result<(), OutlineError> {
        for node in &self.nodes {
            let on = |cpu: &&Cpu| cpu.node == Some(node.id);
            let cpus: CpuSet = machine.cpus.iter().filter(on).map(|cpu| cpu.id).collect();
            let mut packages: Vec<PackageId> = machine
                .cores
                .iter()
                .filter(|core| core.node == Some(node.id))
                .map(|core| core.package)
                .collect();
            packages.dedup();
            machine.nodes.push(Node {
                id: node.id,
                cpus,
                package: if let [only] = packages.as_slice() { Some(*only) } else { None },
                memory_bytes: node.memory_bytes,
                available_bytes: node.available_bytes,
                huge_pages: node.huge_pages.clone(),
            });
        }
        machine.nodes.sort_by_key(|node| node.id);
        twice(machine.nodes.windows(2).find(|w| is_pair(w, |node| node.id)), |n| format!("node {}", n.id))?;
        if !self.distances.is_empty() {
            let ids = self.nodes.iter().map(|node| node.id).collect();
            machine.distances = Distances::new(ids, self.distances.clone())
                .ok_or(OutlineError::Distances { rows: self.distances.len(), nodes: self.nodes.len() })?;
        }
        Ok(())
    }
}

/// What the cores of a domain share.
type Shared = (Option<NodeId>, PackageId, Option<DieId>, Option<L3Id>);

fn domains(machine: &Machine) -> Vec<OutlineDomain> {
    let size = |id: L3Id| machine.l3_domains.iter().find(|l3| l3.id == id).map_or(0, |l3| l3.size_bytes);
    let mut domains: BTreeMap<Shared, Vec<String>> = BTreeMap::new();
    for core in machine.cores.iter().filter(|core| !core.cpus.is_empty()) {
        let lowest = core.cpus.first().map(|cpu| cpu.0);
        let text = if lowest == Some(core.id.0) {
            core.cpus.to_string()
        } else {
            format!("{}:{}", core.id.0, core.cpus)
        };
        domains.entry((core.node, core.package, core.die, core.l3)).or_default().push(text);
    }
    let domain = |(place, cores): (Shared, _)| {
        let (node, package, die, l3) = place;
        OutlineDomain { node, package, die, l3: l3.map(|id| (id, size(id))), cores }
    };
    domains.into_iter().map(domain).collect()
}

fn add_domain(machine: &mut Machine, domain: &OutlineDomain, field: &str) -> Result<(), OutlineError> {
    if machine.cores.len().saturating_add(domain.cores.len()) > MOST_CORES {
        return Err(OutlineError::TooLarge);
    }
    let mut all = CpuSet::new();
    for (index, text) in domain.cores.iter().enumerate() {
        let field = format!("{field}.cores[{index}]");
        let (id, text) = match text.split_once(':') {
            Some((id, cpus)) => (Some(id), cpus),
            None => (None, text.as_str()),
        };
        let cpus = list(&field, text)?;
        let wrong = || OutlineError::Core { field: field.clone(), text: text.to_owned() };
        let id = match id {
            Some(id) => id.parse().map_err(|_| wrong())?,
            None => cpus.first().ok_or_else(wrong)?.0,
        };
        let id = CoreId(id);
        let own = cpus.iter().map(|cpu| Cpu { id: cpu, core: id, node: domain.node, power: None });
        machine.cpus.extend(own);
        all.extend(cpus.iter());
        machine.cores.push(Core {
            id,
            package: domain.package,
            die: domain.die,
            node: domain.node,
            l3: domain.l3.map(|(id, _)| id),
            cpus,
        });
    }
    if let Some((id, size_bytes)) = domain.l3 {
        match machine.l3_domains.iter_mut().find(|l3| l3.id == id) {
            Some(l3) => l3.cpus.extend(all.iter()),
            None => machine.l3_domains.push(L3Domain { id, cpus: all.clone(), size_bytes }),
        }
    }
    match machine.packages.iter_mut().find(|package| package.id == domain.package) {
        Some(package) => package.cpus.extend(all.iter()),
        None => machine.packages.push(Package { id: domain.package, cpus: all, model: None }),
    }
    Ok(())
}

fn list(field: &str, text: &str) -> Result<CpuSet, OutlineError> {
    text.parse().map_err(|source| OutlineError::List {
        field: field.to_owned(),
        text: text.to_owned(),
        source,
    })
}

fn is_pair<T, K: PartialEq>(window: &[T], key: impl Fn(&T) -> K) -> bool {
    matches!(window, [a, b] if key(a) == key(b))
}

fn twice<T>(found: Option<&[T]>, name: impl Fn(&T) -> String) -> Result<(), OutlineError> {
    match found.and_then(<[T]>::first) {
        Some(thing) => Err(OutlineError::Twice(name(thing))),
        None => Ok(()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn outline() -> Outline {
        Outline {
            nodes: vec![
                OutlineNode { id: NodeId(0), memory_bytes: 8, available_bytes: 4, huge_pages: Vec::new() },
                OutlineNode { id: NodeId(2), memory_bytes: 8, available_bytes: 4, huge_pages: Vec::new() },
            ],
            distances: vec![vec![10, 32], vec![32, 10]],
            domains: vec![
                OutlineDomain {
                    node: Some(NodeId(0)),
                    package: PackageId(0),
                    die: None,
                    l3: Some((L3Id(0), 1 << 20)),
                    cores: vec!["0,4".into(), "1:5".into()],
                },
                OutlineDomain {
                    node: Some(NodeId(2)),
                    package: PackageId(1),
                    die: None,
                    l3: Some((L3Id(2), 1 << 20)),
                    cores: vec!["2,6".into(), "3,7".into()],
                },
            ],
            isolated: "2-3".into(),
            devices: vec![OutlineDevice {
                address: "0000:31:00.0".parse().unwrap(),
                node: Some(NodeId(2)),
                iommu_group: Some(7),
            }],
        }
    }

    #[test]
    fn what_comes_back_is_the_same_machine() {
        let machine = outline().machine().unwrap();
        assert_eq!(machine.online().to_string(), "0,2-7");
        assert_eq!(machine.core(CoreId(1)).unwrap().cpus.to_string(), "5");
        assert_eq!(machine.node(NodeId(2)).unwrap().cpus.to_string(), "2-3,6-7");
        assert_eq!(machine.distances.between(NodeId(0), NodeId(2)), 32);
        assert_eq!(Outline::of(&machine, |_| true), outline());
        assert_eq!(Outline::of(&machine, |_| false).devices, []);
        let json = serde_json::to_string(&outline()).unwrap();
        assert_eq!(serde_json::from_str::<Outline>(&json).unwrap(), outline());
    }

    #[test]
    fn what_cannot_be_a_machine_is_told_by_its_field() {
        let wrong = |change: fn(&mut Outline)| {
            let mut outline = outline();
            change(&mut outline);
            outline.machine().unwrap_err().to_string()
        };
        assert_eq!(wrong(|o| o.isolated = "x".into()), "isolated: \"x\"");
        assert_eq!(wrong(|o| o.domains[1].cores[0] = "3-".into()), "domains[1].cores[0]: \"3-\"");
        assert_eq!(
            wrong(|o| o.domains[1].cores[0] = String::new()),
            "domains[1].cores[0]: \"\" does not begin with a core's id"
        );
        assert_eq!(
            wrong(|o| o.domains[1].cores[0] = "x:3".into()),
            "domains[1].cores[0]: \"3\" does not begin with a core's id"
        );
        assert_eq!(wrong(|o| o.domains[1].cores[0] = "2:7".into()), "CPU 7 is there twice");
        assert_eq!(wrong(|o| o.domains[1].cores[0] = "3:2".into()), "core 3 is there twice");
        assert_eq!(wrong(|o| o.nodes[1].id = NodeId(0)), "node 0 is there twice");
        assert_eq!(wrong(|o| drop(o.distances.pop())), "distances: 1 rows for 2 nodes");
        assert_eq!(
            wrong(|o| o.domains[0].cores = vec!["0".into(); 20_000]),
            "domains: more than 16384 cores"
        );
    }
}
