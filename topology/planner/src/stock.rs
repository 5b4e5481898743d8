//! What is free: cores by node and L3 domain, pages by node.
//!
//! Built once per plan in one pass over the machine's CPUs; everything after works on
//! these counts and asks for single cores only once the nodes and domains are chosen.

use pinion_machine::{CoreId, CpuId, CpuSet, Machine, NodeId};

use crate::demand::Demand;
use crate::{Occupancy, memory};

/// Ids beyond this are beyond what a CPU set can name; such cores are left alone.
const MAX_ID: usize = 65_535;
const NONE: u32 = u32::MAX;

/// What is free on a machine, for one demand.
#[derive(Debug)]
pub(crate) struct Stock<'a> {
    pub(crate) machine: &'a Machine,
    /// Housekeeping CPUs that are online; empty only on a machine without CPUs.
    pub(crate) housekeeping: CpuSet,
    /// Per node, in the machine's order.
    pub(crate) nodes: Vec<NodeStock>,
    /// Cores of one node that share an L3, ordered by their lowest core.
    pub(crate) domains: Vec<Domain>,
    /// Distances between nodes, from row to column.
    pub(crate) distance: Vec<Vec<u32>>,
    /// The counts that decide whether something fits.
    pub(crate) room: Room,
    /// Per core, in the machine's order.
    cores: Vec<CoreStock>,
}

/// Counts per node.
#[derive(Clone, Debug)]
pub(crate) struct Room {
    pub(crate) nodes: Vec<NodeRoom>,
    /// Free pages of the demand's size.
    pub(crate) pages: Vec<u64>,
}

/// Free CPUs of a node.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) struct NodeRoom {
    /// Free cores with enough threads for a guest core.
    pub(crate) fit: u32,
    /// Guest cores that fit when free cores may hold several.
    pub(crate) slots: u32,
    /// Free cores.
    pub(crate) free: u32,
    /// CPUs on free cores.
    pub(crate) cpus: u32,
    /// Whether shared vCPUs have a CPU to float over that is not housekeeping.
    pub(crate) floats: bool,
}

/// A node.
#[derive(Clone, Debug)]
pub(crate) struct NodeStock {
    pub(crate) id: NodeId,
    /// Cores, free or not.
    pub(crate) cores: u32,
    /// Its L3 domains, by index.
    pub(crate) domains: Vec<usize>,
    /// The node its memory comes from, by index; its own where it has any.
    pub(crate) home: usize,
    /// CPUs that shared vCPUs of other guests float over.
    pub(crate) pool: CpuSet,
    /// How many shared vCPUs float over them.
    pub(crate) pool_vcpus: u32,
}

/// Cores of one node that share an L3.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Domain {
    /// Cores, free or not.
    pub(crate) cores: u32,
    /// Free cores.
    pub(crate) free: u32,
    /// Free cores with enough threads for a guest core.
    pub(crate) fit: u32,
}

impl Domain {
    pub(crate) fn is_whole(self) -> bool {
        self.free == self.cores
    }
}

#[derive(Clone, Copy, Debug)]
struct CoreStock {
    domain: u32,
    width: u32,
    free: bool,
}

/// A free core.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct FreeCore {
    /// Its index in the machine.
    pub(crate) index: usize,
    pub(crate) id: CoreId,
    pub(crate) domain: usize,
    /// Its CPUs.
    pub(crate) width: u32,
}

impl<'a> Stock<'a> {
    pub(crate) fn new(machine: &'a Machine, occupancy: &Occupancy, demand: &Demand) -> Self {
        let online = machine.online();
        let mut housekeeping = occupancy.housekeeping.intersection(&online);
        if housekeeping.is_empty() {
            housekeeping = Occupancy::default_housekeeping(machine);
        }
        let ids: Vec<NodeId> = machine.nodes.iter().map(|n| n.id).collect();
        let distance = machine.distances.table(&ids);
        let mut stock = Self {
            machine,
            housekeeping,
            nodes: Vec::with_capacity(ids.len()),
            domains: Vec::new(),
            room: Room {
                nodes: vec![NodeRoom::default(); ids.len()],
                pages: memory::free_pages(machine, occupancy, demand.page),
            },
            cores: Vec::new(),
            distance,
        };
        for (index, id) in ids.iter().enumerate() {
            stock.nodes.push(NodeStock {
                id: *id,
                cores: 0,
                domains: Vec::new(),
                home: memory::home(machine, &stock.distance, index),
                pool: CpuSet::new(),
                pool_vcpus: 0,
            });
        }
        stock.find_domains();
        stock.count_cores(occupancy, demand.width());
        stock.find_pools(occupancy);
        stock
    }

    /// Sorts cores into domains; a core without a node counts to the first node with CPUs.
    fn find_domains(&mut self) {
        let machine = self.machine;
        let mut node_of = Dense::default();
        for (index, node) in machine.nodes.iter().enumerate() {
            node_of.set(node.id.0, index);
        }
        let stray = machine.nodes.iter().position(|n| !n.cpus.is_empty()).unwrap_or(0);
        // Per L3 id the newest domain; an L3 that spans nodes has one domain on each.
        let mut newest = Dense::default();
        let mut key: Vec<(usize, Option<u32>, Option<usize>)> = Vec::new();
        let mut unknown = vec![None; machine.nodes.len()];
        self.cores.reserve(machine.cores.len());
        for core in &machine.cores {
            let node = core.node.and_then(|n| node_of.get(n.0)).unwrap_or(stray);
            let mut found = match core.l3 {
                Some(l3) => newest.get(l3.0),
                None => unknown.get(node).copied().flatten(),
            };
            let chain = found;
            while let Some((at, l3, older)) = found.and_then(|d| key.get(d)).copied() {
                if at == node && l3 == core.l3.map(|l| l.0) {
                    break;
                }
                found = older;
            }
            let domain = found.unwrap_or_else(|| {
                key.push((node, core.l3.map(|l| l.0), chain));
                self.domains.push(Domain { cores: 0, free: 0, fit: 0 });
                let new = self.domains.len() - 1;
                match core.l3 {
                    Some(l3) => newest.set(l3.0, new),
                    None => unknown.iter_mut().skip(node).take(1).for_each(|u| *u = Some(new)),
                }
                if let Some(stock) = self.nodes.get_mut(node) {
                    stock.domains.push(new);
                }
                new
            });
            let domain = if machine.nodes.is_empty() { NONE } else { u32::try_from(domain).unwrap_or(NONE) };
            self.cores.push(CoreStock { domain, width: 0, free: true });
        }
    }

    /// Counts free cores: none of their CPUs is housekeeping, held or floated over.
    fn count_cores(&mut self, occupancy: &Occupancy, threads: u32) {
        let mut taken = self.housekeeping.clone();
        for holding in &occupancy.holdings {
            taken = taken.union(&holding.cpus);
            for floating in &holding.floating {
                taken = taken.union(&floating.cpus);
            }
        }
        let mut core_at = Dense::default();
        for (index, core) in self.machine.cores.iter().enumerate() {
            core_at.set(core.id.0, index);
        }
        for cpu in &self.machine.cpus {
            let Some(core) = core_at.get(cpu.core.0).and_then(|i| self.cores.get_mut(i)) else { continue };
            core.width += 1;
            core.free &= !taken.contains(cpu.id);
        }
        for core in self.cores.iter_mut().filter(|c| c.width > 0) {
            let Some(domain) = self.domains.get_mut(core.domain as usize) else { continue };
            domain.cores += 1;
            domain.free += u32::from(core.free);
            domain.fit += u32::from(core.free && core.width >= threads);
        }
        let mut node_of = vec![0; self.domains.len()];
        for (index, (node, room)) in self.nodes.iter_mut().zip(&mut self.room.nodes).enumerate() {
            for &d in &node.domains {
                let Some(domain) = self.domains.get(d) else { continue };
                node.cores += domain.cores;
                room.free += domain.free;
                room.fit += domain.fit;
                node_of.iter_mut().skip(d).take(1).for_each(|n| *n = index);
            }
        }
        for core in self.cores.iter_mut() {
            core.free &= core.width > 0 && core.domain != NONE;
            if !core.free {
                continue;
            }
            let room = node_of.get(core.domain as usize).and_then(|n| self.room.nodes.get_mut(*n));
            if let Some(room) = room {
                room.slots += core.width / threads;
                room.cpus += core.width;
            }
        }
    }

    /// The CPUs of each node that shared vCPUs float over. A ledger that also dedicates one
    /// of them, or that names CPUs gone offline, does not make them part of a pool.
    fn find_pools(&mut self, occupancy: &Occupancy) {
        let machine = self.machine;
        let held = self.housekeeping.union(&occupancy.dedicated());
        for floating in occupancy.holdings.iter().flat_map(|h| &h.floating) {
            let first = floating.cpus.first().and_then(|c| machine.cpu(c)).and_then(|c| c.node);
            for (node, known) in self.nodes.iter_mut().zip(&machine.nodes) {
                let cpus = floating.cpus.intersection(&known.cpus).difference(&held);
                node.pool = node.pool.union(&cpus);
                if first == Some(node.id) {
                    node.pool_vcpus = node.pool_vcpus.saturating_add(floating.vcpus);
                }
            }
        }
        for (room, node) in self.room.nodes.iter_mut().zip(&self.nodes) {
            room.floats = room.free > 0 || !node.pool.is_empty();
        }
    }

    /// Free cores of the wanted domains, in the order of their ids.
    pub(crate) fn free_cores(&self, wanted: impl Fn(usize) -> bool) -> Vec<FreeCore> {
        let wanted = |(index, core): (usize, &CoreStock)| {
            let domain = core.domain as usize;
            let id = self.machine.cores.get(index)?.id;
            (core.free && wanted(domain)).then_some(FreeCore { index, id, domain, width: core.width })
        };
        self.cores.iter().enumerate().filter_map(wanted).collect()
    }

    /// The CPUs of some cores, given by their index in the machine, in the order given.
    pub(crate) fn cpus_of(&self, cores: &[usize]) -> Vec<Vec<CpuId>> {
        let mut at = Dense::default();
        for (place, index) in cores.iter().enumerate() {
            if let Some(core) = self.machine.cores.get(*index) {
                at.set(core.id.0, place);
            }
        }
        let mut cpus = vec![Vec::new(); cores.len()];
        for cpu in &self.machine.cpus {
            if let Some(cpus) = at.get(cpu.core.0).and_then(|place| cpus.get_mut(place)) {
                cpus.push(cpu.id);
            }
        }
        cpus
    }

    /// Distance between nodes by index; 20, the kernel's default, where unknown.
    pub(crate) fn distance(&self, from: usize, to: usize) -> u32 {
        self.distance.get(from).and_then(|row| row.get(to)).copied().unwrap_or(20)
    }

    /// Distance from the CPUs of one node to the memory that serves another.
    pub(crate) fn reach(&self, from: usize, to: usize) -> u32 {
        self.distance(from, self.home(to))
    }

    pub(crate) fn home(&self, node: usize) -> usize {
        self.nodes.get(node).map_or(node, |n| n.home)
    }
}

/// A map from small ids to indexes.
#[derive(Default)]
struct Dense(Vec<u32>);

impl Dense {
    fn set(&mut self, id: u32, index: usize) {
        let (id, Ok(index)) = (id as usize, u32::try_from(index)) else { return };
        if id > MAX_ID {
            return;
        }
        if self.0.len() <= id {
            self.0.resize((id + 1).next_power_of_two(), NONE);
        }
        if let Some(slot) = self.0.get_mut(id) {
            *slot = index;
        }
    }

    fn get(&self, id: u32) -> Option<usize> {
        self.0.get(id as usize).copied().filter(|i| *i != NONE).map(|i| i as usize)
    }
}
