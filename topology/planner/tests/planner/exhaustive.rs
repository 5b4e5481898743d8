//! Every placement of small worlds: nothing better than the planner's answer, and nothing
//! at all where it refuses.

use std::cmp::Reverse;

use pinion_machine::{CoreId, NodeId};
use pinion_planner::{Placement, Refusal, plan};
use proptest::prelude::*;

use crate::judge::{Bench, CellPlan, Verdict};
use crate::worlds::{World, dedicated_world, given_world};

/// May I/O threads share cores with others of the guest; may guest cores share cores.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Sharing {
    None,
    Io,
    All,
}

struct Search<'a> {
    bench: Bench<'a>,
    cores: u32,
    threads: u32,
    pages: u64,
}

impl Search<'_> {
    fn best(&self) -> Option<Verdict> {
        let nodes: Vec<NodeId> = self.bench.world.machine.nodes.iter().map(|n| n.id).collect();
        for sharing in [Sharing::None, Sharing::Io, Sharing::All] {
            for count in 1..=nodes.len() {
                for up in [true, false] {
                    let sets = subsets(&nodes).into_iter().filter(|s| s.len() == count);
                    if let Some(best) = sets.filter_map(|s| self.best_on(sharing, up, &s)).min() {
                        return Some(best);
                    }
                }
            }
        }
        None
    }

    fn best_on(&self, sharing: Sharing, up: bool, set: &[NodeId]) -> Option<Verdict> {
        let split = self.split(sharing, up, set)?;
        let device = self.bench.devices(set)?;
        let mut plans: Vec<Vec<CellPlan>> = vec![vec![]];
        for (node, n) in set.iter().zip(&split) {
            let choices = self.host_cores(sharing, *node, *n);
            plans = plans
                .iter()
                .flat_map(|plan| {
                    choices.iter().map(|c| {
                        let mut plan = plan.clone();
                        plan.push((*node, *n, c.clone()));
                        plan
                    })
                })
                .collect();
        }
        let judged = plans.iter().filter_map(|plan| {
            let io = self.io(sharing, plan, set)?;
            Some(self.bench.verdict(plan, device, io))
        });
        judged.min()
    }

    /// Every way to choose host cores of a node for `n` guest cores.
    fn host_cores(&self, sharing: Sharing, node: NodeId, n: u32) -> Vec<Vec<CoreId>> {
        let fit = |c: &&crate::judge::HostCore| c.node == node && c.free && c.width >= self.threads;
        let ids: Vec<CoreId> = self.bench.cores.iter().filter(fit).map(|c| c.id).collect();
        let slots =
            |set: &[CoreId]| -> u32 { set.iter().map(|c| self.bench.core(*c).width / self.threads).sum() };
        let enough = |set: &Vec<CoreId>| match sharing {
            Sharing::All => set.len() <= n as usize && slots(set) >= n,
            _ => set.len() == n as usize,
        };
        subsets(&ids).into_iter().filter(enough).collect()
    }

    fn room(&self, sharing: Sharing, node: NodeId) -> u32 {
        let fit = self.bench.cores.iter().filter(|c| c.node == node && c.free && c.width >= self.threads);
        match sharing {
            Sharing::All => fit.map(|c| c.width / self.threads).sum(),
            _ => fit.map(|_| 1).sum(),
        }
    }

    /// The split by the rule: every split is tried.
    fn split(&self, sharing: Sharing, up: bool, set: &[NodeId]) -> Option<Vec<u32>> {
        let mut splits: Vec<Vec<u32>> = vec![vec![]];
        for node in set {
            let most = self.room(sharing, *node).min(self.cores);
            splits = splits
                .iter()
                .flat_map(|s| (1..=most).map(move |n| s.iter().copied().chain([n]).collect()))
                .collect();
        }
        let whole_page =
            |s: &&Vec<u32>| s.iter().all(|n| u64::from(*n) * self.pages >= u64::from(self.cores));
        let sum = |s: &&Vec<u32>| s.iter().sum::<u32>() == self.cores;
        let fits = |s: &&Vec<u32>| set.iter().all(|node| self.has_share(set, s, *node, up));
        let splits: Vec<&Vec<u32>> = splits.iter().filter(whole_page).filter(sum).filter(fits).collect();
        let even = |s: &Vec<u32>| {
            let order: Vec<_> = s.iter().map(|n| Reverse(*n)).collect();
            (self.straddles(s), s.iter().map(|n| u64::from(*n).pow(2)).sum::<u64>(), order)
        };
        let best = splits.iter().min_by_key(|s| even(s))?;
        if up || self.has_pages(set, best) {
            return Some((*best).clone());
        }
        let takes = |s: &Vec<u32>| -> u64 {
            set.iter().zip(s).map(|(node, n)| self.share(*n).1.min(self.free(*node))).sum()
        };
        let best = splits.iter().min_by_key(|s| (Reverse(takes(s)), even(s)))?;
        self.has_pages(set, best).then(|| (*best).clone())
    }

    fn free(&self, node: NodeId) -> u64 {
        self.bench.pages[&self.bench.home[&node]]
    }

    fn share(&self, n: u32) -> (u64, u64) {
        let part = self.pages * u64::from(n);
        (part / u64::from(self.cores), part.div_ceil(u64::from(self.cores)))
    }

    /// Guest cores of all cells on the memory that serves `node`.
    fn at_home(&self, set: &[NodeId], split: &[u32], node: NodeId) -> u32 {
        let home = |n: &NodeId| self.bench.home[n];
        set.iter().zip(split).filter(|(n, _)| home(n) == home(&node)).map(|(_, n)| *n).sum()
    }

    fn has_share(&self, set: &[NodeId], split: &[u32], node: NodeId, up: bool) -> bool {
        let (low, high) = self.share(self.at_home(set, split, node));
        (if up { high } else { low }) <= self.free(node)
    }

    fn has_pages(&self, set: &[NodeId], split: &[u32]) -> bool {
        let mut homes: Vec<NodeId> = vec![];
        let mut room = 0;
        for node in set {
            if !homes.contains(&self.bench.home[node]) {
                homes.push(self.bench.home[node]);
                room += self.share(self.at_home(set, split, *node)).1.min(self.free(*node));
            }
        }
        room >= self.pages
    }

    fn straddles(&self, split: &[u32]) -> usize {
        let per = self.bench.world.request.cpu.topology.cores;
        let mut cell_of = vec![];
        for (cell, n) in split.iter().enumerate() {
            cell_of.extend(vec![cell; *n as usize]);
        }
        cell_of.chunks(per as usize).filter(|s| s.first() != s.last()).count()
    }

    /// The smallest sum of distances of I/O threads beside these cells.
    fn io(&self, sharing: Sharing, plan: &[CellPlan], set: &[NodeId]) -> Option<u64> {
        let count = self.bench.io();
        let mut places: Vec<u64> = vec![];
        for core in self.bench.cores.iter().filter(|c| c.free) {
            let used = plan.iter().find(|(_, _, taken)| taken.contains(&core.id));
            let places_on = match (sharing, used) {
                (Sharing::None, Some(_)) => 0,
                (Sharing::None, None) => 1,
                (_, None) => core.width,
                (_, Some(_)) => core.width - self.threads,
            };
            places.extend(vec![self.bench.near(core.node, set); places_on as usize]);
        }
        // Guest cores beyond the first on each host core.
        let mut packed: Vec<u64> = vec![];
        for (node, n, taken) in plan {
            let extra = (*n as usize - taken.len()) * self.threads as usize;
            packed.extend(vec![self.bench.near(*node, set); extra]);
        }
        for far in packed {
            let at = places.iter().position(|p| *p == far)?;
            places.swap_remove(at);
        }
        places.sort_unstable();
        (places.len() >= count).then(|| places.iter().take(count).sum())
    }
}

fn subsets<T: Copy>(of: &[T]) -> Vec<Vec<T>> {
    let mut all: Vec<Vec<T>> = vec![vec![]];
    for item in of {
        let with: Vec<Vec<T>> = all.iter().map(|s| s.iter().copied().chain([*item]).collect()).collect();
        all.extend(with);
    }
    all
}

/// The planner's answer, how it scores, and the best that there is.
fn judged(world: &World) -> (Result<Placement, Refusal>, Option<Verdict>, Option<Verdict>) {
    let topology = world.request.cpu.topology;
    let search = Search {
        bench: Bench::new(world),
        cores: topology.sockets * topology.cores,
        threads: topology.threads,
        pages: world.request.memory.bytes / crate::worlds::PAGE.bytes(),
    };
    let answer = plan(&world.machine, &world.occupancy, &world.request);
    let read = answer.as_ref().ok().map(|p| search.bench.read(p));
    (answer, read, search.best())
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 10_000, failure_persistence: None, ..ProptestConfig::default() })]

    #[test]
    fn nothing_is_better_and_nothing_fits_where_we_refuse(world in dedicated_world()) {
        let (answer, read, best) = judged(&world);
        prop_assert_eq!(read, best, "{:?}", answer);
    }

    #[test]
    fn nothing_is_better_inside_of_what_was_given(world in given_world()) {
        let (answer, read, best) = judged(&world);
        prop_assert_eq!(read, best, "{:?}", answer);
        if let (Ok(placed), Some(within)) = (answer, &world.request.within) {
            prop_assert!(placed.dedicated_cpus().is_subset(&within.cpus));
            prop_assert!(placed.cells.iter().all(|c| within.memory.contains(&c.host_node)));
        }
    }
}
