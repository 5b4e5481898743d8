//! A machine cut into what is drawn: sections, nodes, L3 domains.
//!
//! A large machine is shortened: nodes that are alike and of which nothing is taken are
//! drawn once, and counted.

use std::collections::BTreeMap;

use pinion_machine::{Bdf, Core, CpuSet, L3Domain, L3Id, Machine, Node, NodeId, PackageId, PciFunction};

use crate::View;
use crate::view::Role;
use crate::words;

/// Machines with more nodes or cores than this are shortened.
const MANY_NODES: usize = 8;
const MANY_CORES: usize = 128;
/// A node with more cores is drawn as lists of CPUs rather than core by core.
const MANY_CORES_IN_NODE: usize = 64;

/// A machine as it is drawn.
pub(crate) struct Outline<'a> {
    pub(crate) sections: Vec<Section<'a>>,
    /// Devices that are near no node, without bridges.
    pub(crate) loose: Vec<&'a PciFunction>,
}

/// What is drawn in one frame.
pub(crate) struct Section<'a> {
    pub(crate) title: String,
    pub(crate) nodes: Vec<Part<'a>>,
}

/// A node, or CPUs without one.
pub(crate) struct Part<'a> {
    pub(crate) title: String,
    pub(crate) node: Option<&'a Node>,
    pub(crate) domains: Vec<Domain<'a>>,
    /// Without bridges; those that guests hold first.
    pub(crate) devices: Vec<&'a PciFunction>,
    /// Nodes that are drawn by this one.
    pub(crate) more: Vec<NodeId>,
}

/// Cores that share an L3, or have none.
pub(crate) struct Domain<'a> {
    pub(crate) l3: Option<&'a L3Domain>,
    pub(crate) cores: Vec<&'a Core>,
}

impl Part<'_> {
    /// Its CPUs.
    pub(crate) fn cpus(&self) -> CpuSet {
        self.domains.iter().flat_map(|d| &d.cores).flat_map(|core| core.cpus.iter()).collect()
    }

    /// Whether it is drawn as lists of CPUs.
    pub(crate) fn is_large(&self) -> bool {
        self.domains.iter().map(|d| d.cores.len()).sum::<usize>() > MANY_CORES_IN_NODE
    }
}

/// Cuts a machine up.
pub(crate) fn outline<'a>(machine: &'a Machine, view: &View) -> Outline<'a> {
    let mut parts: Vec<(Option<PackageId>, Part<'a>)> = parts(machine, view);
    if machine.nodes.len() > MANY_NODES || machine.cores.len() > MANY_CORES {
        parts = shortened(parts, view);
    }
    let one_each = parts.iter().enumerate().all(|(at, (package, _))| {
        package.is_some() && parts.iter().skip(at + 1).all(|(other, _)| other != package)
    });
    let mut sections: Vec<Section<'a>> = Vec::new();
    for (package, mut part) in parts {
        let name = package.map(|id| format!("Package {id}"));
        let title = match (&name, part.node) {
            (Some(name), _) if one_each => {
                part.title = format!("{name} · {}", part.title.to_lowercase());
                String::new()
            }
            (Some(name), _) => name.clone(),
            (None, Some(node)) if node.cpus.is_empty() => "Memory without CPUs".to_owned(),
            (None, Some(_)) => "Nodes of several packages".to_owned(),
            (None, None) => "CPUs without a node".to_owned(),
        };
        match sections.iter_mut().find(|s| s.title == title) {
            Some(section) => section.nodes.push(part),
            None => sections.push(Section { title, nodes: vec![part] }),
        }
    }
    let mut loose: Vec<_> = machine.pci.iter().filter(|f| f.node.is_none() && !words::is_bridge(f)).collect();
    loose.sort_by_key(|f| (view.device(f.address).is_none(), f.address));
    Outline { sections, loose }
}

fn parts<'a>(machine: &'a Machine, view: &View) -> Vec<(Option<PackageId>, Part<'a>)> {
    let mut cores: BTreeMap<Option<NodeId>, Vec<&Core>> = BTreeMap::new();
    for core in &machine.cores {
        cores.entry(core.node).or_default().push(core);
    }
    let mut devices: BTreeMap<NodeId, Vec<&PciFunction>> = BTreeMap::new();
    for function in machine.pci.iter().filter(|f| !words::is_bridge(f)) {
        if let Some(node) = function.node {
            devices.entry(node).or_default().push(function);
        }
    }
    let domains: BTreeMap<L3Id, &L3Domain> = machine.l3_domains.iter().map(|d| (d.id, d)).collect();
    let mut parts = Vec::new();
    for node in &machine.nodes {
        let mut near = devices.remove(&node.id).unwrap_or_default();
        near.sort_by_key(|f| (view.device(f.address).is_none(), f.address));
        let part = Part {
            title: format!("Node {}", node.id),
            node: Some(node),
            domains: cut(&cores.remove(&Some(node.id)).unwrap_or_default(), &domains),
            devices: near,
            more: Vec::new(),
        };
        parts.push((node.package, part));
    }
    let rest: Vec<&Core> = cores.into_values().flatten().collect();
    if !rest.is_empty() {
        let domains = cut(&rest, &domains);
        let title = "No node".to_owned();
        parts.push((None, Part { title, node: None, domains, devices: Vec::new(), more: Vec::new() }));
    }
    // Packages in their order, then what belongs to none.
    parts.sort_by_key(|(package, part)| (package.is_none(), *package, part.node.is_none()));
    parts
}

fn cut<'a>(cores: &[&'a Core], known: &BTreeMap<L3Id, &'a L3Domain>) -> Vec<Domain<'a>> {
    let mut domains: BTreeMap<Option<L3Id>, Vec<&Core>> = BTreeMap::new();
    for core in cores {
        domains.entry(core.l3).or_default().push(core);
    }
    let domain =
        |(id, cores): (Option<L3Id>, _)| Domain { l3: id.and_then(|id| known.get(&id).copied()), cores };
    domains.into_iter().map(domain).collect()
}

/// What makes two untouched nodes alike.
#[derive(PartialEq, Eq, PartialOrd, Ord)]
struct Likeness {
    has_package: bool,
    cores: Vec<(usize, usize)>,
    gib: u64,
    pools: Vec<(u64, u64)>,
    devices: usize,
    isolated: usize,
}

fn shortened<'a>(
    parts: Vec<(Option<PackageId>, Part<'a>)>,
    view: &View,
) -> Vec<(Option<PackageId>, Part<'a>)> {
    let mut first: BTreeMap<Likeness, usize> = BTreeMap::new();
    let mut kept: Vec<(Option<PackageId>, Part<'a>)> = Vec::new();
    for (package, part) in parts {
        let addresses: Vec<Bdf> = part.devices.iter().map(|f| f.address).collect();
        let node = part.node.filter(|n| view.is_untouched(n.id, &part.cpus(), &addresses));
        if let Some(node) = node {
            match first.entry(likeness(node, &part, view, package.is_some())) {
                std::collections::btree_map::Entry::Occupied(at) => {
                    if let Some((_, like)) = kept.get_mut(*at.get()) {
                        like.more.push(node.id);
                        continue;
                    }
                }
                std::collections::btree_map::Entry::Vacant(slot) => {
                    slot.insert(kept.len());
                }
            }
        }
        kept.push((package, part));
    }
    kept
}

fn likeness(node: &Node, part: &Part<'_>, view: &View, has_package: bool) -> Likeness {
    let threads = |d: &Domain<'_>| d.cores.iter().map(|core| core.cpus.len()).sum();
    Likeness {
        has_package,
        cores: part.domains.iter().map(|d| (d.cores.len(), threads(d))).collect(),
        // Firmware takes a little from some nodes.
        gib: node.memory_bytes.saturating_add(1 << 29) >> 30,
        pools: node.huge_pages.iter().map(|p| (p.page_size.bytes(), p.total)).collect(),
        devices: part.devices.len(),
        isolated: part.cpus().iter().filter(|cpu| view.role(*cpu) == Role::Isolated).count(),
    }
}
