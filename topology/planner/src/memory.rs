//! Memory: which pages are free, which node serves a node without any, and how the
//! guest's pages are shared out between its cells.

use pinion_machine::{Machine, NodeId, PageSize};

use crate::demand::Demand;
use crate::{HoldingState, Occupancy};

/// Free pages per node, in the machine's order.
///
/// A pool has free what the kernel says is free, less what is promised and not yet taken;
/// and never more than its total less all that is held. Ordinary memory has free what is
/// available less what is promised.
pub(crate) fn free_pages(machine: &Machine, occupancy: &Occupancy, page: PageSize) -> Vec<u64> {
    let mut promised = vec![0u64; machine.nodes.len()];
    let mut held = promised.clone();
    for holding in &occupancy.holdings {
        for memory in holding.memory.iter().filter(|m| m.page_size == page) {
            let Ok(index) = machine.nodes.binary_search_by_key(&memory.node, |n| n.id) else { continue };
            if let (Some(held), Some(promised)) = (held.get_mut(index), promised.get_mut(index)) {
                *held = held.saturating_add(memory.bytes);
                if holding.state == HoldingState::Reserved {
                    *promised = promised.saturating_add(memory.bytes);
                }
            }
        }
    }
    let size = page.bytes();
    let free = |((node, held), promised): ((&pinion_machine::Node, &u64), &u64)| {
        if !page.is_huge() {
            return node.available_bytes.saturating_sub(*promised) / size;
        }
        let pool = node.huge_pages.iter().find(|p| p.page_size == page);
        pool.map_or(0, |pool| {
            let by_kernel = pool.free.saturating_sub(promised.div_ceil(size));
            by_kernel.min(pool.total.saturating_sub(held.div_ceil(size)))
        })
    };
    machine.nodes.iter().zip(&held).zip(&promised).map(free).collect()
}

/// The node that serves a node's CPUs with memory: itself where it has any, else the
/// nearest that has; of those equally near one with CPUs, then the lowest.
pub(crate) fn home(machine: &Machine, distance: &[Vec<u32>], node: usize) -> usize {
    if machine.nodes.get(node).is_some_and(|n| n.memory_bytes > 0) {
        return node;
    }
    let far = |to: usize| distance.get(node).and_then(|row| row.get(to)).copied().unwrap_or(u32::MAX);
    let with_memory = machine.nodes.iter().enumerate().filter(|(_, n)| n.memory_bytes > 0);
    with_memory.min_by_key(|(i, n)| (far(*i), n.cpus.is_empty(), *i)).map_or(node, |(i, _)| i)
}

/// How a cell's share is rounded when asking whether its node has room for it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Rounding {
    /// Every node could take its cells' share rounded up: the usual case.
    Up,
    /// Some node has room for the share rounded down only; others take the remainder.
    Down,
}

/// The most guest cores whose share of the memory fits `free` pages.
pub(crate) fn most_cores(demand: &Demand, free: u64, rounding: Rounding) -> u32 {
    let (free, cores) = (u128::from(free), u128::from(demand.cores));
    let pages = u128::from(demand.pages);
    let most = match rounding {
        Rounding::Up => free * cores / pages,
        Rounding::Down => ((free + 1) * cores - 1) / pages,
    };
    u32::try_from(most.min(cores)).unwrap_or(demand.cores)
}

/// The share of `cores` guest cores, in pages: rounded down, and rounded up.
pub(crate) fn share(demand: &Demand, cores: u32) -> (u64, u64) {
    let pages = u128::from(demand.pages) * u128::from(cores);
    let of = u128::from(demand.cores);
    let narrow = |v: u128| u64::try_from(v).unwrap_or(u64::MAX);
    (narrow(pages / of), narrow(pages.div_ceil(of)))
}

/// A cell that gets a share.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Sharer {
    /// Guest cores.
    pub(crate) cores: u32,
    /// The node of its memory, by index.
    pub(crate) home: usize,
}

/// Pages per cell: in proportion to the cells' guest cores, whole pages, the exact sum.
///
/// Each node of memory gets its share rounded down; the pages that remain go one each to
/// the first nodes whose share is not whole and which have room. A node that serves
/// several cells divides its pages between them the same way. `None` where it does not fit
/// or would leave a cell without memory.
pub(crate) fn split(demand: &Demand, free: &[u64], cells: &[Sharer]) -> Option<Vec<u64>> {
    let mut homes: Vec<(usize, u32, u64)> = Vec::new();
    for cell in cells {
        match homes.iter_mut().find(|h| h.0 == cell.home) {
            Some(home) => home.1 += cell.cores,
            None => homes.push((cell.home, cell.cores, 0)),
        }
    }
    let mut left = demand.pages;
    for (_, cores, pages) in &mut homes {
        *pages = share(demand, *cores).0;
        left = left.checked_sub(*pages)?;
    }
    for (home, cores, pages) in &mut homes {
        let room = free.get(*home).copied().unwrap_or(0);
        if left > 0 && share(demand, *cores).1 > *pages && room > *pages {
            *pages += 1;
            left -= 1;
        }
        if *pages > room {
            return None;
        }
    }
    if left > 0 {
        return None;
    }
    let mut split = vec![0; cells.len()];
    for (home, cores, pages) in homes {
        let here = || cells.iter().enumerate().filter(move |(_, c)| c.home == home);
        let mut left = pages;
        for (index, cell) in here() {
            let part = u128::from(pages) * u128::from(cell.cores) / u128::from(cores.max(1));
            let part = u64::try_from(part).unwrap_or(0);
            left -= part.min(left);
            split.iter_mut().skip(index).take(1).for_each(|s| *s = part);
        }
        // A cell whose part is less than a page comes first.
        let mut order: Vec<usize> = here().map(|(index, _)| index).collect();
        order.sort_by_key(|index| (split.get(*index).is_some_and(|pages| *pages > 0), *index));
        for index in order {
            let one = u64::from(left > 0);
            left -= one;
            split.iter_mut().skip(index).take(1).for_each(|s| *s += one);
        }
    }
    split.iter().all(|pages| *pages > 0).then_some(split)
}

/// Text of a resource for shortages: `memory` or `hugepages-2Mi`.
pub(crate) fn resource(page: PageSize) -> String {
    if page.is_huge() { format!("hugepages-{page}") } else { "memory".to_owned() }
}

/// Bytes of a node that holdings have, per owner.
pub(crate) fn held_on(
    occupancy: &Occupancy,
    node: NodeId,
    page: PageSize,
) -> impl Iterator<Item = (&str, u64)> {
    occupancy.holdings.iter().map(move |h| {
        let here = h.memory.iter().filter(|m| m.node == node && m.page_size == page);
        (h.owner.as_str(), here.map(|m| m.bytes).fold(0, u64::saturating_add))
    })
}
