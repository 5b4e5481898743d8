//! Why a request cannot be placed: the smallest set of shortages, who holds the rest, and
//! the nearest request that fits.
//!
//! Every shortage is found by asking the search again on a machine with that much more, so
//! that taking the shortages away always lets the request fit.

use pinion_machine::{Bdf, CpuSet, NodeId};

use crate::demand::Demand;
use crate::devices::DevicePool;
use crate::message;
use crate::search::Search;
use crate::stock::{Room, Stock};
use crate::{
    CpuPolicy, DeviceRequest, GuestTopology, Holder, MemoryRequest, Nearest, Occupancy, Refusal,
    RefusalReason, Request, Shortage, memory,
};

/// What is missing on one node.
#[derive(Clone, Copy, Debug, Default)]
struct Missing {
    node: usize,
    /// Guest cores.
    cores: u32,
    /// Pages on the node that serves it with memory.
    pages: u64,
}

struct Inquiry<'a> {
    stock: &'a Stock<'a>,
    occupancy: &'a Occupancy,
    demand: &'a Demand,
    devices: &'a DevicePool,
}

/// The refusal of a request that cannot be placed.
pub(crate) fn refusal(
    stock: &Stock<'_>,
    occupancy: &Occupancy,
    request: &Request,
    demand: &Demand,
    devices: &DevicePool,
) -> Refusal {
    let inquiry = Inquiry { stock, occupancy, demand, devices };
    let mut shortages = inquiry.cpus_and_memory();
    let reason = inquiry.reason(shortages.first());
    let lacking = devices.lacking();
    let nearest = if lacking.is_empty() { inquiry.nearest(request) } else { None };
    for (set, free) in lacking {
        let devices: Vec<&DeviceRequest> = set.iter().filter_map(|r| request.devices.get(*r)).collect();
        shortages.push(inquiry.devices_short(&devices, free));
    }
    let message = message::sentence(request, demand, &shortages, nearest.as_ref());
    Refusal { name: request.name.clone(), reason, message, shortages, nearest }
}

/// The refusal of a request for more vCPUs than any machine has CPUs.
pub(crate) fn too_many(request: &Request, demand: &Demand, most: u64) -> Refusal {
    let needed = u64::from(demand.cores) * u64::from(demand.threads);
    let shortages =
        vec![Shortage { resource: "cpus".into(), node: None, needed, free: most, held_by: Vec::new() }];
    let message = message::sentence(request, demand, &shortages, None);
    let reason = RefusalReason::InsufficientCpus;
    Refusal { name: request.name.clone(), reason, message, shortages, nearest: None }
}

impl Inquiry<'_> {
    fn fits(&self, room: &Room, demand: &Demand) -> bool {
        Search::new(self.stock, room, demand, self.devices).fits()
    }

    fn with(&self, missing: Missing) -> Room {
        let mut room = self.stock.room.clone();
        let threads = self.demand.width();
        if let Some(node) = room.nodes.get_mut(missing.node) {
            for count in [&mut node.fit, &mut node.slots, &mut node.free] {
                *count = count.saturating_add(missing.cores);
            }
            node.cpus = node.cpus.saturating_add(missing.cores.saturating_mul(threads));
            node.floats |= missing.cores > 0;
        }
        if let Some(pages) = room.pages.get_mut(self.stock.home(missing.node)) {
            *pages = pages.saturating_add(missing.pages);
        }
        room
    }

    /// The least of a node's kind of missing thing that makes it fit, over all nodes, the
    /// lowest node where several need as little. A node is only looked into when less than
    /// the least so far would do there.
    fn least(&self, most: u64, missing: impl Fn(usize, u64) -> Missing) -> Option<Missing> {
        let enough = |node, amount| self.fits(&self.with(missing(node, amount)), self.demand);
        let mut best: Option<(usize, u64)> = None;
        for node in (0..self.stock.nodes.len()).filter(|n| self.has_cpus(*n)) {
            let mut high = match best {
                Some((_, 0)) => break,
                Some((_, amount)) => amount - 1,
                None => most,
            };
            if !enough(node, high) {
                continue;
            }
            let mut low = 0;
            while low < high {
                let middle = low + (high - low) / 2;
                if enough(node, middle) { high = middle } else { low = middle + 1 }
            }
            best = Some((node, high));
        }
        best.map(|(node, amount)| missing(node, amount))
    }

    /// The node and amounts to add so that CPUs and memory suffice: one kind if that is
    /// enough, the one of which a smaller part of what is asked is missing; else both on one
    /// node, as few cores as can be.
    fn missing(&self) -> Option<Missing> {
        let (cores, pages) = (self.demand.cores, self.demand.pages);
        let narrow = |n: u64| u32::try_from(n).unwrap_or(u32::MAX);
        let most = u64::from(cores.saturating_add(self.demand.io));
        let by_cores = self.least(most, |node, n| Missing { node, cores: narrow(n), pages: 0 });
        let by_pages = self.least(pages, |node, pages| Missing { node, cores: 0, pages });
        let part =
            |m: &Missing| u128::from(m.cores) * u128::from(pages) + u128::from(m.pages) * u128::from(cores);
        by_cores.into_iter().chain(by_pages).min_by_key(part).or_else(|| {
            let both = self.least(most, |node, n| Missing { node, cores: narrow(n), pages })?;
            self.least(pages, |node, pages| Missing {
                node,
                // Where that is not the node, no fewer pages than all can be missing there.
                cores: if node == both.node { both.cores } else { 0 },
                pages,
            })
        })
    }

    fn has_cpus(&self, node: usize) -> bool {
        self.stock.nodes.get(node).is_some_and(|n| n.cores > 0)
    }

    fn cpus_and_memory(&self) -> Vec<Shortage> {
        if self.fits(&self.stock.room, self.demand) {
            return Vec::new();
        }
        let Some(missing) = self.missing() else { return self.no_cpus_at_all() };
        let mut shortages = Vec::new();
        if missing.cores > 0 {
            shortages.push(self.cores_short(missing.node, missing.cores));
        }
        if missing.pages > 0 {
            shortages.push(self.pages_short(self.stock.home(missing.node), missing.pages));
        }
        shortages
    }

    /// On a machine without a single CPU there is no node to name.
    fn no_cpus_at_all(&self) -> Vec<Shortage> {
        let needed = u64::from(self.demand.cores).saturating_mul(u64::from(self.demand.threads));
        let cpus = Shortage { resource: "cpus".into(), node: None, needed, free: 0, held_by: Vec::new() };
        vec![cpus]
    }

    fn cores_short(&self, node: usize, missing: u32) -> Shortage {
        let free = self.stock.room.nodes.get(node).map_or(0, |n| u64::from(n.slots));
        let single = self.demand.threads == 1 || !self.demand.dedicated();
        Shortage {
            resource: if single { "cpus" } else { "cores" }.into(),
            node: self.stock.nodes.get(node).map(|n| n.id),
            needed: free + u64::from(missing),
            free,
            held_by: self.cores_held(node),
        }
    }

    /// Who has the cores of a node, in guest cores that they would hold.
    fn cores_held(&self, node: usize) -> Vec<Holder> {
        let machine = self.stock.machine;
        let Some(cpus) = machine.nodes.get(node).map(|n| &n.cpus) else { return Vec::new() };
        let threads = self.demand.width();
        let mut counted: Vec<_> = Vec::new();
        let mut count = |held: &CpuSet| {
            let mut amount = 0;
            for cpu in held.intersection(cpus).iter().filter_map(|c| machine.cpu(c)) {
                let core = machine.core(cpu.core).filter(|c| !counted.contains(&c.id));
                if let Some(core) = core {
                    counted.push(core.id);
                    amount += core.cpus.len() as u64 / u64::from(threads);
                }
            }
            amount
        };
        let mut holders = Vec::new();
        let housekeeping = ("housekeeping", count(&self.stock.housekeeping));
        let of_guests = self.occupancy.holdings.iter().map(|h| {
            let floating = h.floating.iter().fold(CpuSet::new(), |all, f| all.union(&f.cpus));
            (h.owner.as_str(), count(&h.cpus.union(&floating)))
        });
        for (owner, amount) in std::iter::once(housekeeping).chain(of_guests).filter(|h| h.1 > 0) {
            holders.push(Holder { owner: owner.into(), amount });
        }
        holders
    }

    fn pages_short(&self, node: usize, missing: u64) -> Shortage {
        let size = self.demand.page.bytes();
        let free = self.stock.room.pages.get(node).copied().unwrap_or(0);
        let id = self.stock.nodes.get(node).map(|n| n.id);
        Shortage {
            resource: memory::resource(self.demand.page),
            node: id,
            needed: free.saturating_add(missing).saturating_mul(size),
            free: free.saturating_mul(size),
            held_by: id.map(|id| self.memory_held(id)).unwrap_or_default(),
        }
    }

    fn memory_held(&self, node: NodeId) -> Vec<Holder> {
        let held = memory::held_on(self.occupancy, node, self.demand.page).filter(|h| h.1 > 0);
        held.map(|(owner, amount)| Holder { owner: owner.into(), amount }).collect()
    }

    fn devices_short(&self, devices: &[&DeviceRequest], free: usize) -> Shortage {
        let pci = &self.stock.machine.pci;
        let group = |a| pci.iter().find(|f| f.address == a).and_then(|f| f.iommu_group);
        let candidates = || devices.iter().flat_map(|d| &d.candidates);
        let groups: Vec<u32> = candidates().filter_map(|a| group(*a)).collect();
        let blocks =
            |a: &&Bdf| candidates().any(|c| c == *a) || group(**a).is_some_and(|g| groups.contains(&g));
        let holders = self.occupancy.holdings.iter().map(|h| Holder {
            owner: h.owner.clone(),
            amount: h.devices.iter().filter(blocks).count() as u64,
        });
        let names: Vec<&str> = devices.iter().map(|d| d.name.as_str()).collect();
        Shortage {
            resource: names.join(", "),
            node: None,
            needed: devices.len() as u64,
            free: free as u64,
            held_by: holders.filter(|h| h.amount > 0).collect(),
        }
    }

    fn reason(&self, shortage: Option<&Shortage>) -> RefusalReason {
        let Some(shortage) = shortage else { return RefusalReason::InsufficientDevices };
        let machine = self.stock.machine;
        if matches!(shortage.resource.as_str(), "cpus" | "cores") {
            let widest = machine.cores.iter().map(|c| c.cpus.len()).max().unwrap_or(0);
            let none = |c: &pinion_machine::Core| !c.cpus.is_disjoint(&self.stock.housekeeping);
            return match self.demand.policy {
                CpuPolicy::Dedicated if (widest as u64) < u64::from(self.demand.threads) => {
                    RefusalReason::UnsupportedThreads
                }
                CpuPolicy::Dedicated if machine.cores.iter().all(none) => RefusalReason::NoDedicatedCpus,
                _ => RefusalReason::InsufficientCpus,
            };
        }
        let page = self.demand.page;
        let pool = |n: &pinion_machine::Node| n.huge_pages.iter().any(|p| p.page_size == page);
        match page.is_huge() {
            true if !machine.nodes.iter().any(pool) => RefusalReason::UnsupportedPageSize,
            true => RefusalReason::InsufficientHugePages,
            false => RefusalReason::InsufficientMemory,
        }
    }

    /// The request nearest to the one asked for that fits: the most guest cores, then the
    /// most memory.
    fn nearest(&self, request: &Request) -> Option<Nearest> {
        let asked = self.demand;
        let of = |cores: u32, pages: u64| Demand { cores, pages, ..asked.clone() };
        let fits = |cores, pages| self.fits(&self.stock.room, &of(cores, pages));
        // With a page for every core no split leaves a cell without memory.
        let fewest_pages = |cores: u32| asked.pages.min(u64::from(cores));
        let cores = greatest(1, u64::from(asked.cores), |n| {
            u32::try_from(n).is_ok_and(|n| fits(n, fewest_pages(n)))
        })?;
        let cores = u32::try_from(cores).ok()?;
        let pages = greatest(fewest_pages(cores), asked.pages, |pages| fits(cores, pages))?;
        let GuestTopology { sockets, threads, .. } = request.cpu.topology;
        let sockets = if sockets > 0 && cores.is_multiple_of(sockets) { sockets } else { 1 };
        Some(Nearest {
            topology: GuestTopology { sockets, cores: cores / sockets, threads },
            memory: MemoryRequest { bytes: pages.saturating_mul(asked.page.bytes()), page_size: asked.page },
        })
    }
}

/// The greatest value that fits, by halving; `None` where the least does not.
fn greatest(least: u64, most: u64, fits: impl Fn(u64) -> bool) -> Option<u64> {
    if !fits(least) {
        return None;
    }
    let (mut low, mut high) = (least, most);
    while low < high {
        let middle = high - (high - low) / 2;
        if fits(middle) { low = middle } else { high = middle - 1 }
    }
    Some(low)
}
