//! An independent judge: reads the score of a placement off its CPUs, and finds the best
//! possible score by trying everything.

use std::collections::BTreeMap;

use pinion_machine::{CoreId, CpuId, L3Id, NodeId};
use pinion_planner::{HoldingState, IoThreadPlace, Occupancy, Placement};

use crate::worlds::{PAGE, World};

/// In the order that decides; the last part is the nodes themselves.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) struct Verdict {
    pub(crate) nodes: usize,
    pub(crate) distance: u64,
    pub(crate) device: u64,
    pub(crate) io: u64,
    pub(crate) straddles: usize,
    pub(crate) unevenness: u64,
    pub(crate) packed: usize,
    pub(crate) domains: usize,
    pub(crate) whole_nodes: usize,
    pub(crate) whole_domains: usize,
    pub(crate) node_room: u64,
    pub(crate) domain_room: u64,
    pub(crate) ids: Vec<NodeId>,
}

#[derive(Clone, Debug)]
pub(crate) struct HostCore {
    pub(crate) id: CoreId,
    pub(crate) node: NodeId,
    pub(crate) l3: Option<L3Id>,
    pub(crate) width: u32,
    pub(crate) free: bool,
}

/// The world in the judge's terms.
#[derive(Debug)]
pub(crate) struct Bench<'a> {
    pub(crate) world: &'a World,
    pub(crate) cores: Vec<HostCore>,
    pub(crate) pages: BTreeMap<NodeId, u64>,
    pub(crate) home: BTreeMap<NodeId, NodeId>,
}

/// A cell: its node, its guest cores, the host cores under them.
pub(crate) type CellPlan = (NodeId, u32, Vec<CoreId>);

impl<'a> Bench<'a> {
    pub(crate) fn new(world: &'a World) -> Self {
        let machine = &world.machine;
        let mut taken = world.occupancy.housekeeping.intersection(&machine.online());
        if taken.is_empty() {
            taken = Occupancy::default_housekeeping(machine);
        }
        for holding in &world.occupancy.holdings {
            taken = taken.union(&holding.cpus);
            // Whoever gave CPUs to a guest has taken off them whoever floated there.
            for floating in holding.floating.iter().filter(|_| world.request.within.is_none()) {
                taken = taken.union(&floating.cpus);
            }
        }
        let given = |cpu: &CpuId| world.request.within.as_ref().is_none_or(|w| w.cpus.contains(*cpu));
        let cores = machine.cores.iter().map(|c| {
            let cpus: Vec<CpuId> = c.cpus.iter().filter(given).collect();
            HostCore {
                id: c.id,
                node: c.node.unwrap(),
                l3: c.l3,
                width: u32::try_from(cpus.len()).unwrap(),
                free: !cpus.iter().any(|cpu| taken.contains(*cpu)),
            }
        });
        let cores = cores.filter(|c| c.width > 0);
        let has = |n: &pinion_machine::Node| {
            let given = world.request.within.as_ref().is_none_or(|w| w.memory.contains(&n.id));
            given && n.memory_bytes > 0
        };
        let distance = |a, b| machine.distances.between(a, b);
        let home = machine.nodes.iter().map(|n| {
            let near = machine.nodes.iter().filter(|o| has(o));
            let near = near.min_by_key(|o| (distance(n.id, o.id), o.cpus.is_empty(), o.id));
            (n.id, if has(n) { n.id } else { near.map_or(n.id, |o| o.id) })
        });
        let home = home.collect();
        let pages = machine
            .nodes
            .iter()
            .map(|n| (n.id, if has(n) { Self::free_pages(world, n) } else { 0 }))
            .collect();
        Self { world, cores: cores.collect(), pages, home }
    }

    fn free_pages(world: &World, node: &pinion_machine::Node) -> u64 {
        let Some(pool) = node.huge_pages.first() else { return 0 };
        let (mut total, mut free) = (pool.total, pool.free);
        for holding in &world.occupancy.holdings {
            for memory in holding.memory.iter().filter(|m| m.node == node.id) {
                let pages = memory.bytes / PAGE.bytes();
                total = total.saturating_sub(pages);
                if holding.state == HoldingState::Reserved {
                    free = free.saturating_sub(pages);
                }
            }
        }
        total.min(free)
    }

    pub(crate) fn core(&self, id: CoreId) -> &HostCore {
        self.cores.iter().find(|c| c.id == id).unwrap()
    }

    pub(crate) fn reach(&self, from: NodeId, to: NodeId) -> u64 {
        u64::from(self.world.machine.distances.between(from, self.home[&to]))
    }

    pub(crate) fn io(&self) -> usize {
        let own = |t: &&pinion_planner::IoThreadRequest| t.place == IoThreadPlace::Dedicated;
        self.world.request.io_threads.iter().filter(own).count()
    }

    /// The score of cells, given where devices and I/O threads add.
    pub(crate) fn verdict(&self, cells: &[CellPlan], device: u64, io: u64) -> Verdict {
        let per = self.world.request.cpu.topology.cores;
        let pairs = cells.iter().flat_map(|a| cells.iter().map(move |b| (a.0, b.0)));
        let mut sockets: BTreeMap<u32, Vec<usize>> = BTreeMap::new();
        let mut next = 0;
        for (index, cell) in cells.iter().enumerate() {
            for _ in 0..cell.1 {
                sockets.entry(next / per).or_default().push(index);
                next += 1;
            }
        }
        let mut verdict = Verdict {
            nodes: cells.len(),
            distance: pairs.map(|(a, b)| self.reach(a, b)).sum(),
            device,
            io,
            straddles: sockets.values().filter(|cells| cells.first() != cells.last()).count(),
            unevenness: cells.iter().map(|c| u64::from(c.1).pow(2)).sum(),
            packed: cells.iter().map(|c| c.1 as usize - c.2.len()).sum(),
            domains: 0,
            whole_nodes: 0,
            whole_domains: 0,
            node_room: 0,
            domain_room: 0,
            ids: cells.iter().map(|c| c.0).collect(),
        };
        for (node, _, taken) in cells {
            self.add_residue(&mut verdict, *node, taken);
        }
        verdict
    }

    fn add_residue(&self, verdict: &mut Verdict, node: NodeId, taken: &[CoreId]) {
        let threads = self.world.request.cpu.topology.threads;
        let here: Vec<&HostCore> = self.cores.iter().filter(|c| c.node == node).collect();
        let free = here.iter().filter(|c| c.free).count() as u64;
        verdict.whole_nodes += usize::from(free == here.len() as u64);
        verdict.node_room += free.pow(2) - (free - taken.len() as u64).pow(2);
        let mut l3s: Vec<Option<L3Id>> = here.iter().map(|c| c.l3).collect();
        l3s.sort_unstable();
        l3s.dedup();
        for l3 in l3s {
            let domain: Vec<_> = here.iter().filter(|c| c.l3 == l3).collect();
            let used = domain.iter().filter(|c| taken.contains(&c.id)).count() as u64;
            if used == 0 {
                continue;
            }
            let fit = domain.iter().filter(|c| c.free && c.width >= threads).count() as u64;
            verdict.domains += 1;
            verdict.whole_domains += usize::from(domain.iter().all(|c| c.free));
            verdict.domain_room += fit.pow(2) - (fit - used).pow(2);
        }
    }

    /// The score of what the planner answered.
    pub(crate) fn read(&self, placed: &Placement) -> Verdict {
        let machine = &self.world.machine;
        let core = |cpu: CpuId| machine.cpu(cpu).unwrap().core;
        let threads = self.world.request.cpu.topology.threads;
        let cells: Vec<CellPlan> = placed
            .cells
            .iter()
            .map(|cell| {
                let of_cell = placed.vcpus.iter().filter(|v| v.cell == cell.id);
                let mut cores: Vec<CoreId> = of_cell.map(|v| core(v.cpu.unwrap())).collect();
                cores.sort_unstable();
                cores.dedup();
                let node = self.core(cores[0]).node;
                (node, u32::try_from(cell.vcpus.len()).unwrap() / threads, cores)
            })
            .collect();
        let nodes: Vec<NodeId> = cells.iter().map(|c| c.0).collect();
        let own = placed.io_threads.iter().map(|t| self.core(core(t.cpus.first().unwrap())).node);
        let io = own.map(|n| self.near(n, &nodes)).sum();
        let device = placed.devices.iter().map(|d| self.device_far(d.host_node, &nodes)).sum();
        self.verdict(&cells, device, io)
    }

    pub(crate) fn near(&self, from: NodeId, cells: &[NodeId]) -> u64 {
        cells.iter().map(|c| self.reach(from, *c)).min().unwrap()
    }

    fn device_far(&self, device: Option<NodeId>, cells: &[NodeId]) -> u64 {
        device.map_or(20, |n| self.near(n, cells))
    }

    /// The smallest sum of device distances, by trying every assignment.
    pub(crate) fn devices(&self, cells: &[NodeId]) -> Option<u64> {
        let machine = &self.world.machine;
        let held: Vec<_> = self.world.occupancy.holdings.iter().flat_map(|h| h.devices.clone()).collect();
        let group = |a| machine.pci.iter().find(|f| f.address == a).map(|f| f.iommu_group);
        let busy: Vec<_> = held.iter().filter_map(|a| group(*a)).collect();
        let free =
            |f: &&pinion_machine::PciFunction| !held.contains(&f.address) && !busy.contains(&f.iommu_group);
        let free: Vec<_> = machine.pci.iter().filter(free).collect();
        let mut best: BTreeMap<Vec<pinion_machine::Bdf>, u64> = BTreeMap::from([(vec![], 0)]);
        for request in &self.world.request.devices {
            let mut longer = BTreeMap::new();
            for (given, sum) in &best {
                for f in free.iter().filter(|f| request.candidates.contains(&f.address)) {
                    if !given.contains(&f.address) {
                        let mut given = given.clone();
                        given.push(f.address);
                        longer.insert(given, sum + self.device_far(f.node, cells));
                    }
                }
            }
            best = longer;
        }
        best.into_values().min()
    }
}
