//! Which nodes, how many guest cores on each: the best choice, or none.
//!
//! Completeness rests on [`Search::covers`], which is exact in polynomial time; the
//! search for the best set of several nodes is [`crate::sets`].

use std::cell::{Cell, RefCell};
use std::collections::BTreeMap;

use crate::cells::{self, CellRoom, CoreSplit};
use crate::demand::Demand;
use crate::devices::DevicePool;
use crate::domains::{self, Offer, Take};
use crate::io_threads;
use crate::memory::{Rounding, most_cores};
use crate::score::{Level, Quality, Residue, Score};
use crate::sets;
use crate::stock::{NodeRoom, Room, Stock};

/// The nodes of a placement.
#[derive(Clone, Debug)]
pub(crate) struct Choice {
    pub(crate) level: Level,
    /// Nodes by index, ascending: one cell each.
    pub(crate) nodes: Vec<usize>,
    pub(crate) split: CoreSplit,
    pub(crate) score: Score,
}

/// A node that could carry a cell.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Candidate {
    pub(crate) node: usize,
    pub(crate) room: CellRoom,
}

/// One plan's search.
#[derive(Debug)]
pub(crate) struct Search<'a> {
    pub(crate) stock: &'a Stock<'a>,
    /// The counts to search by: the stock's, or those of a machine with more free.
    pub(crate) room: &'a Room,
    pub(crate) demand: &'a Demand,
    pub(crate) devices: &'a DevicePool,
    /// Sets of several nodes tried so far.
    pub(crate) steps: Cell<u32>,
    takes: RefCell<BTreeMap<(usize, u32), Take>>,
}

impl<'a> Search<'a> {
    pub(crate) fn new(
        stock: &'a Stock<'a>,
        room: &'a Room,
        demand: &'a Demand,
        devices: &'a DevicePool,
    ) -> Self {
        Self { stock, room, demand, devices, steps: Cell::new(0), takes: RefCell::default() }
    }

    /// The best placement.
    pub(crate) fn best(&self) -> Option<Choice> {
        self.first(|level, rounding, count, all| self.best_of(level, rounding, count, all))
    }

    /// Whether there is any placement, by CPUs and memory.
    pub(crate) fn fits(&self) -> bool {
        let holds = |_, rounding, count, all: &[Candidate]| {
            let mut set = sets::roomiest(all, count)?;
            set.sort_unstable();
            let rooms: Vec<CellRoom> = set.iter().filter_map(|i| all.get(*i)).map(|c| c.room).collect();
            cells::split(self.demand, &rooms, rounding)
        };
        self.first(holds).is_some()
    }

    fn levels(&self) -> impl Iterator<Item = Level> {
        let io = self.demand.io > 0;
        [Level::Apart, Level::IoTogether, Level::Together]
            .into_iter()
            .filter(move |level| io || *level != Level::IoTogether)
    }

    /// What `of` finds for the first level, number of nodes and rounding that have any.
    fn first<T>(&self, of: impl Fn(Level, Rounding, usize, &[Candidate]) -> Option<T>) -> Option<T> {
        self.levels().filter(|level| self.has_io(*level)).find_map(|level| {
            let up = self.candidates(level, Rounding::Up);
            let enough_up = self.covers(&up);
            let down = self.candidates(level, Rounding::Down);
            let fewest = enough_up.into_iter().chain(self.covers(&down)).min()?;
            let most = (self.demand.cores / self.demand.least_cores()) as usize;
            let last = enough_up.unwrap_or(down.len()).min(most);
            (fewest..=last).find_map(|count| {
                let by_up = enough_up.filter(|n| count >= *n);
                let by_up = by_up.and_then(|_| of(level, Rounding::Up, count, &up));
                by_up.or_else(|| of(level, Rounding::Down, count, &down))
            })
        })
    }

    /// Whether free cores, or CPUs, are left for the I/O threads, wherever the vCPUs go.
    fn has_io(&self, level: Level) -> bool {
        let sum = |f: fn(&NodeRoom) -> u32| self.room.nodes.iter().map(|n| u64::from(f(n))).sum::<u64>();
        let cores = if self.demand.dedicated() { u64::from(self.demand.cores) } else { 0 };
        let io = u64::from(self.demand.io);
        match level {
            Level::Apart => sum(|n| n.free) >= cores + io,
            Level::IoTogether | Level::Together => {
                sum(|n| n.cpus) >= cores * u64::from(self.demand.threads) + io
            }
        }
    }

    /// Nodes that could carry a cell, and how much of the guest.
    fn candidates(&self, level: Level, rounding: Rounding) -> Vec<Candidate> {
        let demand = self.demand;
        let nodes = self.stock.nodes.iter().zip(&self.room.nodes).enumerate();
        let candidate = |(node, (stock, room)): (usize, (&crate::stock::NodeStock, &NodeRoom))| {
            let by_cpus = match (demand.dedicated(), level) {
                (true, Level::Together) => room.slots,
                (true, _) => room.fit,
                (false, Level::Together) if stock.cores > 0 => demand.cores,
                (false, _) => {
                    if room.floats {
                        demand.cores
                    } else {
                        0
                    }
                }
            };
            if by_cpus == 0 {
                return None;
            }
            let home = stock.home;
            let free = self.room.pages.get(home).copied().unwrap_or(0);
            let home_most = most_cores(demand, free, rounding);
            let most = by_cpus.min(home_most);
            let room = CellRoom { most, home, home_most, free };
            (most >= demand.least_cores()).then_some(Candidate { node, room })
        };
        nodes.filter_map(candidate).collect()
    }

    /// The fewest candidates that can carry the guest between them.
    fn covers(&self, candidates: &[Candidate]) -> Option<usize> {
        let order = sets::roomiest(candidates, candidates.len())?;
        let mut homes: BTreeMap<usize, u32> = BTreeMap::new();
        let mut left = self.demand.cores;
        for (count, index) in order.iter().enumerate() {
            let room = candidates.get(*index)?.room;
            let at_home = homes.entry(room.home).or_insert(room.home_most);
            let n = room.most.min(*at_home);
            *at_home -= n;
            left = left.saturating_sub(n);
            if left == 0 {
                return Some(count + 1);
            }
        }
        None
    }

    fn best_of(&self, level: Level, rounding: Rounding, count: usize, all: &[Candidate]) -> Option<Choice> {
        if count > 1 {
            return sets::best(self, level, rounding, count, all);
        }
        let mut best: Option<Choice> = None;
        for one in all.iter().filter(|c| c.room.most >= self.demand.cores) {
            let better = self.weigh(level, rounding, &[*one], best.as_ref());
            best = better.or(best);
        }
        best
    }

    /// The placement on these candidates, ascending, where it is better than `best`.
    pub(crate) fn weigh(
        &self,
        level: Level,
        rounding: Rounding,
        on: &[Candidate],
        best: Option<&Choice>,
    ) -> Option<Choice> {
        let rooms: Vec<CellRoom> = on.iter().map(|c| c.room).collect();
        let split = cells::split(self.demand, &rooms, rounding)?;
        let used: Vec<io_threads::Used> =
            on.iter().zip(&split.cores).map(|(c, n)| (c.node, *n, self.host_cores(c.node, *n))).collect();
        let quality = self.quality(level, &used, &split)?;
        if best.is_some_and(|b| quality > b.score.quality) {
            return None;
        }
        let residue = self.residue(&used)?;
        let score = Score { quality, residue };
        if best.is_some_and(|b| score >= b.score) {
            return None;
        }
        Some(Choice { level, nodes: on.iter().map(|c| c.node).collect(), split, score })
    }

    fn quality(&self, level: Level, used: &[io_threads::Used], split: &CoreSplit) -> Option<Quality> {
        let stock = self.stock;
        let pair = |a: &io_threads::Used, b: &io_threads::Used| u64::from(stock.reach(a.0, b.0));
        let distance = used.iter().flat_map(|a| used.iter().map(move |b| pair(a, b))).sum();
        let nodes: Vec<usize> = used.iter().map(|u| u.0).collect();
        let device = self.device_distance(&nodes);
        let io = io_threads::distance(stock, self.room, self.demand, level, used)?;
        let mut quality = Quality {
            distance,
            device,
            io,
            straddles: split.straddles,
            unevenness: split.unevenness,
            overcommit: 0,
            packed: 0,
            domains: 0,
        };
        for (node, cores, host) in used {
            if self.demand.dedicated() {
                quality.packed += cores - host;
            } else {
                quality.overcommit += self.overcommit(*node, *cores);
            }
            quality.domains += domains::fewest(&self.offers(*node), *host)?;
        }
        Some(quality)
    }

    fn residue(&self, used: &[io_threads::Used]) -> Option<Residue> {
        let mut residue =
            Residue { whole_nodes: 0, whole_domains: 0, node_room: 0, domain_room: 0, nodes: Vec::new() };
        for (index, _, host) in used {
            let node = self.stock.nodes.get(*index)?;
            let free = self.room.nodes.get(*index)?.free;
            let take = self.take(*index, *host)?;
            residue.whole_nodes += u32::from(free == node.cores && *host > 0);
            residue.whole_domains += take.whole;
            residue.node_room += domains::square(free) - domains::square(free - host);
            residue.domain_room += take.room;
            residue.nodes.push(node.id);
        }
        Some(residue)
    }

    /// Sum of the distances of the devices when the cells are on these nodes.
    pub(crate) fn device_distance(&self, nodes: &[usize]) -> u64 {
        if self.devices.is_empty() {
            return 0;
        }
        self.devices.assign(|node| device_distance(self.stock, node, nodes)).distance
    }

    /// Host cores that `cores` guest cores take on a node: one each as far as there are
    /// as many. Shared vCPUs take cores until they have a CPU each.
    pub(crate) fn host_cores(&self, node: usize, cores: u32) -> u32 {
        let Some(room) = self.room.nodes.get(node) else { return 0 };
        if self.demand.dedicated() {
            return cores.min(room.fit);
        }
        let width = room.cpus.checked_div(room.free).unwrap_or(1).max(1);
        self.lacking(node, cores).div_ceil(width).min(room.free)
    }

    /// CPUs that the shared vCPUs of a node lack in its pool.
    fn lacking(&self, node: usize, cores: u32) -> u32 {
        let Some(stock) = self.stock.nodes.get(node) else { return 0 };
        let vcpus = stock.pool_vcpus.saturating_add(cores.saturating_mul(self.demand.threads));
        vcpus.saturating_sub(u32::try_from(stock.pool.len()).unwrap_or(u32::MAX))
    }

    fn overcommit(&self, node: usize, cores: u32) -> u64 {
        let cpus = self.room.nodes.get(node).map_or(0, |r| r.cpus);
        u64::from(self.lacking(node, cores).saturating_sub(cpus))
    }

    fn offers(&self, node: usize) -> Vec<Offer> {
        let domains = self.stock.nodes.get(node).map_or(&[][..], |n| &n.domains);
        let domain = |d: &usize| self.stock.domains.get(*d);
        domains.iter().filter_map(domain).map(|d| Offer { free: d.fit, whole: d.is_whole() }).collect()
    }

    /// The best domains for host cores of a node.
    pub(crate) fn take(&self, node: usize, cores: u32) -> Option<Take> {
        if let Some(known) = self.takes.borrow().get(&(node, cores)) {
            return Some(known.clone());
        }
        let take = domains::take(&self.offers(node), cores)?;
        self.takes.borrow_mut().insert((node, cores), take.clone());
        Some(take)
    }
}

/// Distance from a device to the nearest cell's memory; 20, the kernel's default for
/// another node, where the device's node is not known.
pub(crate) fn device_distance(stock: &Stock<'_>, device: Option<usize>, cells: &[usize]) -> u32 {
    let far = |node: usize| cells.iter().map(|c| stock.reach(node, *c)).min();
    device.and_then(far).unwrap_or(20)
}
