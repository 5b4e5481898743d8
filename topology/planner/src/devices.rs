//! Which functions are passed through: free ones, all requests together, nearest first.

use pinion_machine::{Bdf, Machine};

use crate::{Occupancy, Request};

/// More than any distance sum with its tie-breaks.
const IMPOSSIBLE: u64 = 1 << 50;

/// The functions that may be given to the guest.
#[derive(Debug)]
pub(crate) struct DevicePool {
    functions: Vec<Function>,
    /// Per request, whether each function satisfies it.
    wants: Vec<Vec<bool>>,
}

/// A free function.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Function {
    pub(crate) address: Bdf,
    pub(crate) group: Option<u32>,
    /// Its node, by index.
    pub(crate) node: Option<usize>,
}

/// A function for each request, or none where they do not suffice.
#[derive(Clone, Debug)]
pub(crate) struct Assignment {
    /// Sum of the distances.
    pub(crate) distance: u64,
    /// Per request.
    pub(crate) functions: Vec<Option<Function>>,
}

impl DevicePool {
    /// The free candidates: of functions that exist, not held, and with no function of
    /// their IOMMU group held by another guest.
    pub(crate) fn new(machine: &Machine, occupancy: &Occupancy, request: &Request) -> Self {
        let mut held: Vec<Bdf> = occupancy.holdings.iter().flat_map(|h| h.devices.iter().copied()).collect();
        held.sort_unstable();
        let is_held = |address: &Bdf| held.binary_search(address).is_ok();
        let in_group = machine.pci.iter().filter(|f| is_held(&f.address));
        let groups: Vec<u32> = in_group.filter_map(|f| f.iommu_group).collect();
        let mut functions = Vec::new();
        let mut wants = vec![Vec::new(); request.devices.len()];
        if request.devices.is_empty() {
            return Self { functions, wants };
        }
        let mut pci: Vec<_> = machine.pci.iter().collect();
        pci.sort_by_key(|f| f.address);
        let mut seen: Vec<(Option<usize>, Vec<bool>, usize)> = Vec::new();
        for f in pci {
            let mine: Vec<bool> = request.devices.iter().map(|d| d.candidates.contains(&f.address)).collect();
            let taken = is_held(&f.address) || f.iommu_group.is_some_and(|g| groups.contains(&g));
            if taken || !mine.contains(&true) {
                continue;
            }
            let node = f.node.and_then(|id| machine.nodes.binary_search_by_key(&id, |n| n.id).ok());
            // Of functions alike, more than there are requests can never be needed.
            match seen.iter_mut().find(|(n, m, _)| *n == node && *m == mine) {
                Some((_, _, count)) if *count >= request.devices.len() => continue,
                Some((_, _, count)) => *count += 1,
                None => seen.push((node, mine.clone(), 1)),
            }
            functions.push(Function { address: f.address, group: f.iommu_group, node });
            for (want, mine) in wants.iter_mut().zip(mine) {
                want.push(mine);
            }
        }
        Self { functions, wants }
    }

    pub(crate) fn is_empty(&self) -> bool {
        self.wants.is_empty()
    }

    /// Sets of requests with fewer free functions between them than they are, each with
    /// how many functions it has: requests that lack one, and those that compete with them.
    pub(crate) fn lacking(&self) -> Vec<(Vec<usize>, usize)> {
        let matched = self.matching();
        let wants = |r: usize, f: usize| self.wants.get(r).and_then(|w| w.get(f)).copied().unwrap_or(false);
        let mut sets: Vec<Vec<usize>> = Vec::new();
        for lacking in matched.iter().zip(0..).filter(|(f, _)| f.is_none()).map(|(_, r)| r) {
            let mut set = vec![lacking];
            let mut next = 0;
            while let Some(r) = set.get(next).copied() {
                let takers = matched.iter().enumerate().filter(|(_, f)| f.is_some_and(|f| wants(r, f)));
                let new: Vec<usize> = takers.map(|(t, _)| t).filter(|t| !set.contains(t)).collect();
                set.extend(new);
                next += 1;
            }
            let (joined, apart) = sets.into_iter().partition(|s| s.iter().any(|r| set.contains(r)));
            sets = apart;
            set.extend(joined.into_iter().flatten());
            set.sort_unstable();
            set.dedup();
            sets.push(set);
        }
        sets.sort_unstable();
        let has =
            |set: &[usize]| set.iter().filter(|r| matched.get(**r).copied().flatten().is_some()).count();
        sets.into_iter()
            .map(|s| {
                let free = has(&s);
                (s, free)
            })
            .collect()
    }

    /// Per request the function, by index, of an assignment that satisfies the most.
    fn matching(&self) -> Vec<Option<usize>> {
        let assigned = self.assign(|_| 0).functions;
        let index = |f: &Function| self.functions.iter().position(|o| o.address == f.address);
        assigned.iter().map(|f| f.as_ref().and_then(index)).collect()
    }

    /// Whether every request can have a function.
    pub(crate) fn suffice(&self) -> bool {
        self.is_empty() || self.lacking().is_empty()
    }

    /// Whether a node has functions of its own to give.
    pub(crate) fn is_on(&self, node: usize) -> bool {
        self.functions.iter().any(|f| f.node == Some(node))
    }

    /// The assignment with the most requests satisfied, then the smallest sum of distances,
    /// then the lowest addresses.
    pub(crate) fn assign(&self, distance: impl Fn(Option<usize>) -> u32) -> Assignment {
        let columns = self.functions.len() + self.wants.len();
        let unit = (columns as u64).saturating_mul(self.wants.len() as u64).saturating_add(1);
        let far: Vec<u64> = self.functions.iter().map(|f| u64::from(distance(f.node))).collect();
        let cost = |row: usize, column: usize| {
            let wanted = self.wants.get(row).and_then(|w| w.get(column)).copied().unwrap_or(false);
            let far = far.get(column).filter(|_| wanted);
            far.map_or(IMPOSSIBLE, |far| far.saturating_mul(unit).saturating_add(column as u64))
        };
        let columns = cheapest(self.wants.len(), columns, cost);
        let mut total = 0;
        let functions = columns.iter().enumerate().map(|(row, column)| {
            let possible = cost(row, *column) < IMPOSSIBLE;
            let function = self.functions.get(*column).filter(|_| possible).copied();
            total += function.and(far.get(*column)).copied().unwrap_or(0);
            function
        });
        let functions = functions.collect();
        Assignment { distance: total, functions }
    }
}

/// The column of each row in the assignment of least total cost (the Hungarian method,
/// rows added one at a time along shortest paths). There must be at least as many columns.
fn cheapest(rows: usize, columns: usize, cost: impl Fn(usize, usize) -> u64) -> Vec<usize> {
    let cost = |r: usize, c: usize| i128::from(cost(r, c));
    let mut row_price = vec![0i128; rows + 1];
    let mut column_price = vec![0i128; columns + 1];
    // Column 0 stands for the row being added; rows and columns count from 1.
    let mut row_of = vec![0usize; columns + 1];
    for row in 1..=rows {
        row_of[0] = row;
        let mut via = vec![0usize; columns + 1];
        let mut least = vec![i128::MAX; columns + 1];
        let mut done = vec![false; columns + 1];
        let mut at = 0;
        while row_of[at] != 0 {
            done[at] = true;
            let from = row_of[at];
            let mut step = i128::MAX;
            let mut next = 0;
            for c in 1..=columns {
                if done[c] {
                    continue;
                }
                let reduced = cost(from - 1, c - 1) - row_price[from] - column_price[c];
                if reduced < least[c] {
                    least[c] = reduced;
                    via[c] = at;
                }
                if least[c] < step {
                    step = least[c];
                    next = c;
                }
            }
            for c in 0..=columns {
                if done[c] {
                    row_price[row_of[c]] += step;
                    column_price[c] -= step;
                } else if least[c] != i128::MAX {
                    least[c] -= step;
                }
            }
            at = next;
        }
        while at != 0 {
            row_of[at] = row_of[via[at]];
            at = via[at];
        }
    }
    let mut chosen = vec![columns; rows];
    for c in 1..=columns {
        if row_of[c] > 0 {
            chosen[row_of[c] - 1] = c - 1;
        }
    }
    chosen
}
