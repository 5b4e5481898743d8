//! The best set of several nodes: branch and bound.
//!
//! Sets are built in one order, so each is met once; of interchangeable neighbours only the
//! lowest are taken; a branch is left when its rooms cannot hold the guest or its distance
//! cannot be as small as the best known. The search is exact until it has taken
//! [`STEPS`], more than there are sets of 12 nodes; then the best set met so far stands.

use std::cmp::Reverse;
use std::collections::BTreeMap;

use crate::memory::Rounding;
use crate::score::Level;
use crate::search::{Candidate, Choice, Search};

/// Branches tried before the best set met so far is taken.
pub(crate) const STEPS: u32 = 5_000;

/// The best `count` of the candidates.
pub(crate) fn best(
    search: &Search<'_>,
    level: Level,
    rounding: Rounding,
    count: usize,
    all: &[Candidate],
) -> Option<Choice> {
    let mut sets = Sets::new(search, level, rounding, count, all);
    sets.start();
    sets.grow(0, 0, 0);
    sets.best
}

/// The `count` candidates that can carry the most between them, roomiest first: each adds
/// the most that its own room and the memory it shares with those before it allow. That is
/// exact, as memory is shared by all on one node or not at all.
pub(crate) fn roomiest(all: &[Candidate], count: usize) -> Option<Vec<usize>> {
    let mut order: Vec<usize> = (0..all.len()).collect();
    order.sort_by_key(|i| (Reverse(all.get(*i).map_or(0, |c| c.room.most)), *i));
    let mut homes: Vec<usize> = all.iter().map(|c| c.room.home).collect();
    homes.sort_unstable();
    homes.dedup();
    if homes.len() < all.len() {
        order = by_marginal_room(all, order);
    }
    order.truncate(count);
    (order.len() == count).then_some(order)
}

fn by_marginal_room(all: &[Candidate], mut left: Vec<usize>) -> Vec<usize> {
    let mut order = Vec::with_capacity(left.len());
    let mut used: BTreeMap<usize, u32> = BTreeMap::new();
    while !left.is_empty() {
        let adds = |i: &usize| {
            all.get(*i).map_or(0, |c| {
                let taken = used.get(&c.room.home).copied().unwrap_or(0);
                c.room.most.min(c.room.home_most.saturating_sub(taken))
            })
        };
        let at = (0..left.len()).rev().max_by_key(|p| left.get(*p).map_or(0, adds)).unwrap_or(0);
        let index = left.remove(at);
        let more = adds(&index);
        if let Some(c) = all.get(index) {
            *used.entry(c.room.home).or_insert(0) += more;
        }
        order.push(index);
    }
    order
}

struct Sets<'a> {
    search: &'a Search<'a>,
    level: Level,
    rounding: Rounding,
    count: usize,
    /// Candidates: those on nodes that are broken already first, fullest first.
    all: Vec<Candidate>,
    /// Per candidate, the interchangeable one before it.
    twin: Vec<Option<usize>>,
    /// Distances both ways between candidates.
    pair: Vec<Vec<u64>>,
    /// Per candidate, sums of its smallest distances to others: of none, of one, of two…
    nearest: Vec<Vec<u64>>,
    /// Per candidate, its own distance and those to the chosen.
    weight: Vec<u64>,
    chosen: Vec<usize>,
    best: Option<Choice>,
}

impl<'a> Sets<'a> {
    fn new(
        search: &'a Search<'a>,
        level: Level,
        rounding: Rounding,
        count: usize,
        all: &[Candidate],
    ) -> Self {
        let stock = search.stock;
        let rank = |c: &Candidate| {
            let free = search.room.nodes.get(c.node).map_or(0, |r| r.free);
            (stock.nodes.get(c.node).is_some_and(|n| n.cores == free), free, c.node)
        };
        let mut all = all.to_vec();
        all.sort_by_key(rank);
        let both = |a: &Candidate, b: &Candidate| {
            u64::from(stock.reach(a.node, b.node)) + u64::from(stock.reach(b.node, a.node))
        };
        let pair: Vec<Vec<u64>> = all.iter().map(|a| all.iter().map(|b| both(a, b)).collect()).collect();
        let nearest = pair.iter().enumerate().map(|(i, row)| {
            let mut others: Vec<u64> =
                row.iter().enumerate().filter(|(j, _)| *j != i).map(|(_, d)| *d).collect();
            others.sort_unstable();
            let mut sum = 0;
            std::iter::once(0)
                .chain(others.into_iter().map(|d| {
                    sum += d;
                    sum
                }))
                .collect()
        });
        let nearest = nearest.collect();
        let weight = all.iter().map(|c| u64::from(stock.reach(c.node, c.node))).collect();
        let twin = twins(search, &all);
        let chosen = Vec::with_capacity(count);
        Self { search, level, rounding, count, all, twin, pair, nearest, weight, chosen, best: None }
    }

    /// Sets to beat: the roomiest nodes, then around each node its nearest.
    fn start(&mut self) {
        let Some(roomiest) = roomiest(&self.all, self.all.len()) else { return };
        self.weigh(roomiest.get(..self.count).unwrap_or(&[]));
        let around = |i| self.around(i, &roomiest);
        // Around the last of several alike the same sets are found as around the first.
        let first = |i: &usize| self.twin.get(*i).is_some_and(Option::is_none);
        let mut found: Vec<(u64, Vec<usize>)> =
            (0..self.all.len()).filter(first).filter_map(around).collect();
        found.sort_unstable();
        found.dedup();
        for (_, set) in found.into_iter().take(2) {
            self.weigh(&set);
        }
    }

    /// A candidate and those nearest to it that hold the guest together.
    fn around(&self, seed: usize, roomy: &[usize]) -> Option<(u64, Vec<usize>)> {
        let most = |i: usize| self.all.get(i).map_or(0, |c| u64::from(c.room.most));
        let mut weight = self.weight.clone();
        let mut set = vec![seed];
        let mut room = most(seed);
        let mut sum = *weight.get(seed)?;
        while set.len() < self.count {
            let last = *set.last()?;
            for (w, d) in weight.iter_mut().zip(self.pair.get(last)?) {
                *w += d;
            }
            let after = self.count - set.len() - 1;
            let fits = |i: usize| {
                let others = roomy.iter().filter(|r| **r != i && !set.contains(r)).take(after);
                room + most(i) + others.map(|r| most(*r)).sum::<u64>() >= u64::from(self.search.demand.cores)
            };
            // The nearest that fits; mostly the first that is tried does.
            let mut open: Vec<usize> = (0..self.all.len()).filter(|i| !set.contains(i)).collect();
            let next = loop {
                let near = |p: &usize| open.get(*p).map(|i| (weight.get(*i).copied(), *i));
                let place = (0..open.len()).min_by_key(near)?;
                let next = open.swap_remove(place);
                if fits(next) {
                    break next;
                }
            };
            sum += weight.get(next)?;
            room += most(next);
            set.push(next);
        }
        set.sort_unstable();
        Some((sum, set))
    }

    fn weigh(&mut self, set: &[usize]) {
        let mut on: Vec<Candidate> = set.iter().filter_map(|i| self.all.get(*i).copied()).collect();
        on.sort_unstable_by_key(|c| c.node);
        if let Some(better) = self.search.weigh(self.level, self.rounding, &on, self.best.as_ref()) {
            self.best = Some(better);
        }
    }

    /// Adds candidates from `start` on to the chosen, whose distances sum to `distance` and
    /// which have room for `room` guest cores.
    fn grow(&mut self, start: usize, distance: u64, room: u64) {
        let wanted = self.count - self.chosen.len();
        if wanted == 0 {
            let set = self.chosen.clone();
            self.weigh(&set);
            return;
        }
        for next in start..self.all.len() {
            let met = |t: usize| self.chosen.contains(&t);
            if self.twin.get(next).copied().flatten().is_some_and(|t| !met(t)) {
                continue;
            }
            if self.search.steps.get() >= STEPS || !self.may_hold(next, wanted, room) {
                return;
            }
            self.search.steps.set(self.search.steps.get() + 1);
            let Some((own, most)) =
                self.weight.get(next).copied().zip(self.all.get(next).map(|c| c.room.most))
            else {
                return;
            };
            self.choose(next);
            let (distance, room) = (distance + own, room + u64::from(most));
            if self.may_be_near(next + 1, distance) && self.may_hold(next + 1, wanted - 1, room) {
                self.grow(next + 1, distance, room);
            }
            self.unchoose(next);
        }
    }

    fn choose(&mut self, index: usize) {
        self.chosen.push(index);
        for (w, d) in self.weight.iter_mut().zip(self.pair.get(index).into_iter().flatten()) {
            *w += d;
        }
    }

    fn unchoose(&mut self, index: usize) {
        self.chosen.pop();
        for (w, d) in self.weight.iter_mut().zip(self.pair.get(index).into_iter().flatten()) {
            *w -= d;
        }
    }

    /// Whether `wanted` candidates from `start` on could hold the rest of the guest.
    fn may_hold(&self, start: usize, wanted: usize, room: u64) -> bool {
        let cores = u64::from(self.search.demand.cores);
        let rest = self.all.get(start..).unwrap_or(&[]);
        if rest.len() < wanted {
            return false;
        }
        let most = smallest(rest.iter().map(|c| u64::MAX - u64::from(c.room.most)), wanted);
        room + most.iter().map(|m| u64::MAX - m).sum::<u64>() >= cores
    }

    /// Whether a set of the chosen and candidates from `start` on could be as near as the best.
    fn may_be_near(&self, start: usize, distance: u64) -> bool {
        let Some(best) = &self.best else { return true };
        let wanted = self.count - self.chosen.len();
        if wanted == 0 {
            return distance <= best.score.quality.distance;
        }
        // Twice the distance, as each pair among the candidates to come is met from both.
        let least = |i: usize| {
            let among = self.nearest.get(i).and_then(|n| n.get(wanted - 1)).copied().unwrap_or(0);
            self.weight.get(i).map_or(0, |w| 2 * w + among)
        };
        let sum: u64 = smallest((start..self.all.len()).map(least), wanted).iter().sum();
        distance + sum.div_ceil(2) <= best.score.quality.distance
    }
}

/// The `count` smallest values.
fn smallest(values: impl Iterator<Item = u64>, count: usize) -> Vec<u64> {
    let mut values: Vec<u64> = values.collect();
    if count > 0 && count < values.len() {
        values.select_nth_unstable(count - 1);
        values.truncate(count);
    } else if count == 0 {
        values.clear();
    }
    values
}

/// Per candidate, the one just below it that it can be exchanged with: equal room, equal
/// domains, equal distances to everything else, and no devices of its own. None may lie
/// between the two, as cells are in the order of nodes and the first get the remainders.
fn twins(search: &Search<'_>, all: &[Candidate]) -> Vec<Option<usize>> {
    let below = |candidate: &Candidate| {
        let lower = all.iter().enumerate().filter(|(_, other)| other.node < candidate.node);
        lower.max_by_key(|(_, other)| other.node)
    };
    let twin = |candidate: &Candidate| {
        let (index, other) = below(candidate)?;
        interchangeable(search, other, candidate).then_some(index)
    };
    all.iter().map(twin).collect()
}

fn interchangeable(search: &Search<'_>, a: &Candidate, b: &Candidate) -> bool {
    let stock = search.stock;
    let (Some(x), Some(y)) = (stock.nodes.get(a.node), stock.nodes.get(b.node)) else { return false };
    let own = |c: &Candidate| c.room.home == c.node;
    let homes = (own(a) && own(b)) || (a.room.home == b.room.home && !own(a) && !own(b));
    let domain = |d: &usize| stock.domains.get(*d);
    homes
        && (a.room.most, a.room.home_most, a.room.free) == (b.room.most, b.room.home_most, b.room.free)
        && search.room.nodes.get(a.node) == search.room.nodes.get(b.node)
        && (x.cores, x.pool.len(), x.pool_vcpus) == (y.cores, y.pool.len(), y.pool_vcpus)
        && x.domains.len() == y.domains.len()
        && x.domains.iter().map(domain).eq(y.domains.iter().map(domain))
        && !search.devices.is_on(a.node)
        && !search.devices.is_on(b.node)
        && alike(stock, a.node, b.node)
}

/// Whether two nodes are equally far from each other's and from all other nodes, and serve
/// none of those with memory: such a node is nearer to the one that serves it.
fn alike(stock: &crate::stock::Stock<'_>, a: usize, b: usize) -> bool {
    let d = |from, to| stock.distance(from, to);
    let served = |x: usize| stock.nodes.get(x).is_some_and(|n| n.home == a || n.home == b);
    let other = |x: usize| x == a || x == b || (d(a, x) == d(b, x) && d(x, a) == d(x, b) && !served(x));
    d(a, a) == d(b, b) && d(a, b) == d(b, a) && (0..stock.nodes.len()).all(other)
}
