//! How many guest cores each cell gets, once the cells' nodes are chosen.
//!
//! Fewest guest sockets that straddle cells, then the most even split, then more cores in
//! the earlier cells. Pure arithmetic; knows nothing of the machine.

use std::collections::BTreeMap;

use crate::demand::Demand;
use crate::memory::{self, Rounding, Sharer};

/// Above this many steps the exact search over uneven splits is left out and the most even
/// split is taken whatever it straddles: only guests of thousands of cores get there.
const STEPS: u64 = 100_000;

/// The room a cell's node has.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct CellRoom {
    /// The most guest cores, by CPUs and by memory.
    pub(crate) most: u32,
    /// The node of its memory, by index.
    pub(crate) home: usize,
    /// The most guest cores that node has memory for, all its cells together.
    pub(crate) home_most: u32,
    /// Free pages there.
    pub(crate) free: u64,
}

/// Guest cores per cell, and what the split costs.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct CoreSplit {
    pub(crate) cores: Vec<u32>,
    /// Guest sockets with cores in more than one cell.
    pub(crate) straddles: u32,
    /// Sum of squares of the cells' cores: least when even.
    pub(crate) unevenness: u64,
}

/// The best split of the demand's cores over the cells, or `None` where none fits.
pub(crate) fn split(demand: &Demand, rooms: &[CellRoom], rounding: Rounding) -> Option<CoreSplit> {
    let least = demand.least_cores();
    let enough = rooms.iter().all(|r| r.most >= least);
    let cells = u32::try_from(rooms.len()).ok()?;
    if !enough || cells == 0 || least.checked_mul(cells)? > demand.cores {
        return None;
    }
    let even = even(demand, rooms, least);
    let even = of(demand, even?);
    let settled = cells == 1
        || demand.per_socket == 1
        || demand.per_socket == demand.cores
        || even.straddles == 0
        || !within_steps(demand, rooms);
    let best = if settled { None } else { Exact::new(demand, rooms, Aim::Even).best() }.unwrap_or(even);
    if rounding == Rounding::Up || has_pages(demand, rooms, &best.cores) {
        return Some(best);
    }
    let roomy = within_steps(demand, rooms).then(|| Exact::new(demand, rooms, Aim::Room).best()).flatten();
    roomy.filter(|split| has_pages(demand, rooms, &split.cores))
}

/// Whether the cells' nodes have the pages for this split.
fn has_pages(demand: &Demand, rooms: &[CellRoom], cores: &[u32]) -> bool {
    let homes = rooms.iter().map(|r| r.home).max().map_or(0, |h| h + 1);
    let mut free = vec![0; homes];
    for room in rooms {
        free.iter_mut().skip(room.home).take(1).for_each(|f| *f = room.free);
    }
    let cells: Vec<Sharer> =
        rooms.iter().zip(cores).map(|(r, n)| Sharer { cores: *n, home: r.home }).collect();
    memory::split(demand, &free, &cells).is_some()
}

fn within_steps(demand: &Demand, rooms: &[CellRoom]) -> bool {
    let most = rooms.iter().map(|r| u64::from(r.most)).max().unwrap_or(0);
    (rooms.len() as u64).saturating_mul(u64::from(demand.cores)).saturating_mul(most) <= STEPS
}

fn of(demand: &Demand, cores: Vec<u32>) -> CoreSplit {
    let mut before = 0;
    let mut straddles = 0;
    let mut unevenness = 0;
    for n in &cores {
        straddles += u32::from(straddles_at(demand, before, before + n));
        unevenness += u64::from(*n) * u64::from(*n);
        before += n;
    }
    CoreSplit { cores, straddles, unevenness }
}

/// Whether the boundary after `end` cores cuts a socket that the cell's first boundary,
/// after `start` cores, did not already cut.
fn straddles_at(demand: &Demand, start: u32, end: u32) -> bool {
    let per = demand.per_socket;
    let cuts = end < demand.cores && !end.is_multiple_of(per);
    let again = start > 0 && !start.is_multiple_of(per) && start / per == end / per;
    cuts && !again
}

/// The most even split: raise the cells together, each until its room ends; what does not
/// divide goes to the first cells with room.
fn even(demand: &Demand, rooms: &[CellRoom], least: u32) -> Option<Vec<u32>> {
    let mut cores = vec![least; rooms.len()];
    let mut homes: BTreeMap<usize, u32> = BTreeMap::new();
    for room in rooms {
        let left = homes.entry(room.home).or_insert(room.home_most);
        *left = left.checked_sub(least)?;
    }
    let mut left = demand.cores - least * u32::try_from(rooms.len()).ok()?;
    while left > 0 {
        let open = |(room, n): &(&CellRoom, &u32)| {
            **n < room.most && homes.get(&room.home).is_some_and(|left| *left > 0)
        };
        let lowest = rooms.iter().zip(&cores).filter(open).map(|(_, n)| *n).min()?;
        let at_lowest: Vec<usize> = (0..rooms.len())
            .filter(|i| rooms.get(*i).zip(cores.get(*i)).is_some_and(|p| open(&p) && *p.1 == lowest))
            .collect();
        // As many whole rounds at once as no room, home or next level cuts short.
        let next = rooms.iter().zip(&cores).filter(open).map(|(_, n)| *n).filter(|n| *n > lowest).min();
        let count = u32::try_from(at_lowest.len()).ok()?;
        let mut rounds = (left / count).min(next.map_or(u32::MAX, |n| n - lowest));
        for i in &at_lowest {
            let room = rooms.get(*i)?;
            let alike = at_lowest.iter().filter(|j| rooms.get(**j).is_some_and(|r| r.home == room.home));
            let alike = u32::try_from(alike.count()).ok()?;
            rounds = rounds.min(room.most - lowest).min(homes.get(&room.home)? / alike.max(1));
        }
        for i in at_lowest {
            let step = if rounds > 0 { rounds } else { 1 };
            let (room, n) = rooms.get(i).zip(cores.get_mut(i))?;
            let home = homes.get_mut(&room.home)?;
            if left < step || *home < step {
                continue;
            }
            *n += step;
            *home -= step;
            left -= step;
        }
    }
    Some(cores)
}

/// What a partial split costs; less is better.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
struct Cost {
    /// Pages the cells could take at most, negated; 0 unless room is the aim.
    room: i64,
    straddles: u32,
    unevenness: u64,
    /// The cells' cores, negated so that more in the earlier cells is less.
    order: Vec<i64>,
}

/// What an exact search looks for first.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Aim {
    /// Fewest straddled sockets, then the most even split.
    Even,
    /// The most room for pages, before all that: where the other split lacks a page.
    Room,
}

/// Exact search: cell by cell, remembering the best end of every beginning.
struct Exact<'a> {
    demand: &'a Demand,
    rooms: &'a [CellRoom],
    aim: Aim,
    /// Homes that serve several cells, whose use so far is part of a beginning.
    shared: Vec<usize>,
    known: BTreeMap<(usize, u32, Vec<u32>), Option<Cost>>,
}

impl<'a> Exact<'a> {
    fn new(demand: &'a Demand, rooms: &'a [CellRoom], aim: Aim) -> Self {
        let times = |home| rooms.iter().filter(|r| r.home == home).count();
        let mut shared: Vec<usize> = rooms.iter().map(|r| r.home).filter(|h| times(*h) > 1).collect();
        shared.sort_unstable();
        shared.dedup();
        Self { demand, rooms, aim, shared, known: BTreeMap::new() }
    }

    fn best(mut self) -> Option<CoreSplit> {
        let used = vec![0; self.shared.len()];
        let cost = self.rest(0, 0, &used)?;
        let cores = cost.order.iter().filter_map(|n| u32::try_from(-n).ok()).collect();
        Some(of(self.demand, cores))
    }

    /// The best split of what is left after `before` cores over the cells from `cell` on.
    fn rest(&mut self, cell: usize, before: u32, used: &[u32]) -> Option<Cost> {
        let left = self.demand.cores - before;
        let Some(room) = self.rooms.get(cell).copied() else {
            let end =
                Cost { room: -self.room_at_shared(used), straddles: 0, unevenness: 0, order: Vec::new() };
            return (left == 0).then_some(end);
        };
        let key = (cell, before, used.to_vec());
        if let Some(known) = self.known.get(&key) {
            return known.clone();
        }
        let slot = self.shared.iter().position(|h| *h == room.home);
        let at_home = slot.and_then(|s| used.get(s)).copied().unwrap_or(0);
        let most = room.most.min(left).min(room.home_most.saturating_sub(at_home));
        let mut best: Option<Cost> = None;
        for n in (self.demand.least_cores()..=most).rev() {
            let mut used = used.to_vec();
            used.iter_mut().skip(slot.unwrap_or(usize::MAX)).take(1).for_each(|u| *u += n);
            let Some(rest) = self.rest(cell + 1, before + n, &used) else { continue };
            let mut order = Vec::with_capacity(rest.order.len() + 1);
            order.push(-i64::from(n));
            order.extend(rest.order);
            let cost = Cost {
                room: rest.room.saturating_sub(self.room_for(&room, n)),
                straddles: rest.straddles + u32::from(straddles_at(self.demand, before, before + n)),
                unevenness: rest.unevenness + u64::from(n) * u64::from(n),
                order,
            };
            if best.as_ref().is_none_or(|b| cost < *b) {
                best = Some(cost);
            }
        }
        self.known.insert(key, best.clone());
        best
    }

    /// Pages the cell could take, where no other cell draws on its memory.
    fn room_for(&self, room: &CellRoom, cores: u32) -> i64 {
        match self.aim {
            Aim::Room if !self.shared.contains(&room.home) => self.takes(cores, room.free),
            _ => 0,
        }
    }

    /// Pages that cells could take from memory that several draw on.
    fn room_at_shared(&self, used: &[u32]) -> i64 {
        if self.aim == Aim::Even {
            return 0;
        }
        let free = |home| self.rooms.iter().find(|r| r.home == home).map_or(0, |r| r.free);
        self.shared.iter().zip(used).map(|(home, cores)| self.takes(*cores, free(*home))).sum()
    }

    fn takes(&self, cores: u32, free: u64) -> i64 {
        i64::try_from(memory::share(self.demand, cores).1.min(free)).unwrap_or(i64::MAX / 64)
    }
}

#[cfg(test)]
mod tests {
    use pinion_machine::PageSize;

    use super::*;
    use crate::CpuPolicy;

    fn demand(cores: u32, per_socket: u32, pages: u64) -> Demand {
        Demand {
            cores,
            threads: 1,
            per_socket,
            pages,
            page: PageSize::MIB2,
            policy: CpuPolicy::Dedicated,
            io: 0,
        }
    }

    fn rooms(most: &[u32]) -> Vec<CellRoom> {
        let room = |(home, most): (usize, &u32)| CellRoom { most: *most, home, home_most: 1000, free: 1000 };
        most.iter().enumerate().map(room).collect()
    }

    fn cores(demand: &Demand, most: &[u32]) -> Option<Vec<u32>> {
        split(demand, &rooms(most), Rounding::Up).map(|s| s.cores)
    }

    #[test]
    fn the_most_even_split_gives_the_first_cells_more() {
        assert_eq!(cores(&demand(8, 8, 100), &[9, 9, 9]), Some(vec![3, 3, 2]));
        assert_eq!(cores(&demand(8, 8, 100), &[2, 9, 9]), Some(vec![2, 3, 3]));
        assert_eq!(cores(&demand(8, 8, 100), &[1, 2, 5]), Some(vec![1, 2, 5]));
        assert_eq!(cores(&demand(9, 9, 100), &[1, 2, 5]), None);
    }

    #[test]
    fn fewer_straddled_sockets_come_before_evenness() {
        assert_eq!(cores(&demand(12, 4, 100), &[9, 9]), Some(vec![8, 4]));
        assert_eq!(cores(&demand(12, 4, 100), &[7, 9]), Some(vec![4, 8]));
        assert_eq!(cores(&demand(12, 4, 100), &[7, 7]), Some(vec![6, 6]), "one straddles either way");
        assert_eq!(cores(&demand(6, 2, 100), &[3, 3, 3]), Some(vec![2, 2, 2]));
    }

    #[test]
    fn a_cell_has_the_memory_of_a_page_at_least() {
        assert_eq!(cores(&demand(8, 8, 2), &[8, 3]), None, "three eighths of two pages are no page");
        assert_eq!(cores(&demand(8, 8, 2), &[8, 4]), Some(vec![4, 4]));
        assert_eq!(cores(&demand(8, 8, 1), &[4, 4]), None);
    }

    #[test]
    fn cells_on_one_memory_share_its_room() {
        let mut shared = rooms(&[4, 4, 4]);
        for room in &mut shared[..2] {
            (room.home, room.home_most) = (7, 4);
        }
        let split = split(&demand(8, 8, 100), &shared, Rounding::Up);
        assert_eq!(split.map(|s| s.cores), Some(vec![2, 2, 4]));
    }

    #[test]
    fn thousands_of_cores_are_split_at_once() {
        let most = [500; 16];
        assert_eq!(cores(&demand(7000, 7000, 70_000), &most).map(|c| c.iter().sum::<u32>()), Some(7000));
        assert_eq!(cores(&demand(7000, 7, 70_000), &most).map(|c| c.len()), Some(16));
    }
}
