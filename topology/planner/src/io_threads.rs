//! CPUs of I/O threads that have one to themselves: near the guest, on their own core.

use pinion_machine::{CoreId, CpuId, CpuSet};

use crate::demand::Demand;
use crate::score::Level;
use crate::stock::{Room, Stock};

/// Cores (or CPUs, where threads may share cores) that vCPUs leave on a node.
pub(crate) fn left(room: &Room, demand: &Demand, level: Level, node: usize, cores: u32, used: u32) -> u32 {
    let Some(node) = room.nodes.get(node) else { return 0 };
    match level {
        Level::Apart => node.free.saturating_sub(used),
        Level::IoTogether | Level::Together if demand.dedicated() => {
            node.cpus.saturating_sub(cores.saturating_mul(demand.threads))
        }
        Level::IoTogether | Level::Together => node.cpus,
    }
}

/// A cell's node and what vCPUs take of it: guest cores and host cores.
pub(crate) type Used = (usize, u32, u32);

/// The smallest sum of distances from the I/O threads to the nearest cell's memory.
pub(crate) fn distance(
    stock: &Stock<'_>,
    room: &Room,
    demand: &Demand,
    level: Level,
    cells: &[Used],
) -> Option<u64> {
    let mut wanted = demand.io;
    if wanted == 0 {
        return Some(0);
    }
    let taken = |node: usize| cells.iter().find(|c| c.0 == node).map_or((0, 0), |c| (c.1, c.2));
    let offer = |node: usize| {
        let (cores, used) = taken(node);
        (near(stock, node, cells), left(room, demand, level, node, cores, used))
    };
    let mut offers: Vec<(u32, u32)> = (0..room.nodes.len()).map(offer).filter(|o| o.1 > 0).collect();
    offers.sort_unstable();
    let mut total = 0;
    for (far, count) in offers {
        let n = count.min(wanted);
        total += u64::from(far) * u64::from(n);
        wanted -= n;
    }
    (wanted == 0).then_some(total)
}

/// Distance from a node's CPUs to the nearest cell's memory.
fn near(stock: &Stock<'_>, node: usize, cells: &[Used]) -> u32 {
    cells.iter().map(|c| stock.reach(node, c.0)).min().unwrap_or(u32::MAX)
}

/// A CPU for each I/O thread, in their order.
///
/// Nearest first; then on a core that nothing else of the guest uses; then in an L3 domain
/// that the guest already uses; then in one that is not wholly free; then the lowest.
pub(crate) fn place(
    stock: &Stock<'_>,
    demand: &Demand,
    level: Level,
    cells: &[Used],
    vcpus: &CpuSet,
) -> Vec<CpuId> {
    if demand.io == 0 {
        return Vec::new();
    }
    let mut used = vcpus.clone();
    let mut chosen = Vec::new();
    let node_of: Vec<usize> = {
        let mut of = vec![0; stock.domains.len()];
        for (index, node) in stock.nodes.iter().enumerate() {
            for d in &node.domains {
                of.iter_mut().skip(*d).take(1).for_each(|n| *n = index);
            }
        }
        of
    };
    let cores = stock.free_cores(|_| true);
    let cpus = |index: usize| stock.machine.cores.get(index).map(|c| c.cpus.clone()).unwrap_or_default();
    let mut with_guest: Vec<bool> = vec![false; stock.domains.len()];
    for core in &cores {
        if !cpus(core.index).is_disjoint(vcpus) {
            with_guest.iter_mut().skip(core.domain).take(1).for_each(|w| *w = true);
        }
    }
    type Rank = (u32, bool, bool, bool, CoreId);
    let mut ranked: Vec<(Rank, usize)> = Vec::new();
    for core in &cores {
        let node = node_of.get(core.domain).copied().unwrap_or(0);
        let guest = with_guest.get(core.domain).copied().unwrap_or(false);
        let whole = stock.domains.get(core.domain).is_some_and(|d| d.is_whole());
        let shares = !cpus(core.index).is_disjoint(vcpus);
        ranked.push(((near(stock, node, cells), shares, !guest, whole, core.id), core.index));
    }
    ranked.sort_unstable();
    while chosen.len() < demand.io as usize {
        let free = |core: &(Rank, usize)| {
            let all = cpus(core.1);
            let left = all.difference(&used);
            let crowded = left.len() < all.len();
            let cpu = left.first()?;
            (level != Level::Apart || !crowded).then_some(((core.0.0, crowded, core.0), cpu))
        };
        let Some((_, cpu)) = ranked.iter().filter_map(free).min() else { break };
        used.insert(cpu);
        chosen.push(cpu);
    }
    chosen
}
