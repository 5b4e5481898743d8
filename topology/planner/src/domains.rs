//! Which L3 domains of one node give the guest its cores.
//!
//! Fewest domains; then the fewest whole free ones broken; then the choice that keeps free
//! cores together; then the lowest. Exact: a table over (domains taken, cores in them).

/// A domain's free cores.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Offer {
    /// Free cores that fit a guest core.
    pub(crate) free: u32,
    /// Whether all its cores are free.
    pub(crate) whole: bool,
}

/// Cores taken per domain, and what that costs.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(crate) struct Take {
    pub(crate) cores: Vec<u32>,
    /// Domains used.
    pub(crate) domains: u32,
    /// Whole free domains among them.
    pub(crate) whole: u32,
    /// Room lost: the sum over domains of free² before less free² after.
    pub(crate) room: u64,
}

pub(crate) fn square(n: u32) -> u64 {
    u64::from(n) * u64::from(n)
}

/// The fewest domains that have `cores` cores between them, or `None`.
pub(crate) fn fewest(offers: &[Offer], cores: u32) -> Option<u32> {
    let mut free: Vec<u32> = offers.iter().map(|o| o.free).collect();
    free.sort_unstable_by(|a, b| b.cmp(a));
    let mut left = cores;
    let mut count = 0;
    for f in free {
        if left == 0 {
            break;
        }
        left = left.saturating_sub(f);
        count += 1;
    }
    (left == 0).then_some(count)
}

/// The best way to take `cores` cores, or `None` where there are fewer.
pub(crate) fn take(offers: &[Offer], cores: u32) -> Option<Take> {
    let count = fewest(offers, cores)?;
    let usable: Vec<usize> =
        (0..offers.len()).filter(|i| offers.get(*i).is_some_and(|o| o.free > 0)).collect();
    let alike = usable.iter().all(|i| offers.get(*i) == usable.first().and_then(|f| offers.get(*f)));
    let chosen: Vec<usize> = match count {
        0 => Vec::new(),
        1 => one(offers, cores).into_iter().collect(),
        n if n as usize >= usable.len() || alike => usable.into_iter().take(n as usize).collect(),
        n => several(offers, cores, n)?,
    };
    Some(fill(offers, cores, &chosen))
}

fn one(offers: &[Offer], cores: u32) -> Option<usize> {
    let fits = offers.iter().enumerate().filter(|(_, o)| o.free >= cores);
    fits.min_by_key(|(i, o)| (o.whole, o.free, *i)).map(|(i, _)| i)
}

/// Takes all of every chosen domain but the last, and the rest from the last.
fn fill(offers: &[Offer], cores: u32, chosen: &[usize]) -> Take {
    let mut take = Take { cores: vec![0; offers.len()], ..Take::default() };
    let mut left = cores;
    for index in chosen {
        let (Some(offer), Some(n)) = (offers.get(*index), take.cores.get_mut(*index)) else { continue };
        *n = left.min(offer.free);
        left -= *n;
        take.domains += 1;
        take.whole += u32::from(offer.whole);
        take.room += square(offer.free) - square(offer.free - *n);
    }
    take
}

/// Whole domains broken, then room lost.
type Cost = (u32, u64);

/// Exactly `count` domains, `count` being the fewest that have enough.
fn several(offers: &[Offer], cores: u32, count: u32) -> Option<Vec<usize>> {
    let largest = offers.iter().map(|o| o.free).max()?;
    let count = count as usize;
    // With the fewest domains, what is left over is less than any one of them has.
    let width = (cores + largest) as usize;
    // best[i][c][s]: the cheapest way to take c of the domains from i on with s cores.
    let empty = vec![vec![None::<Cost>; width]; count + 1];
    let mut best = vec![empty; offers.len() + 1];
    *best.last_mut()?.first_mut()?.first_mut()? = Some((0, 0));
    for i in (0..offers.len()).rev() {
        let offer = offers.get(i)?;
        let (now, next) = best.split_at_mut(i + 1);
        let (now, next) = (now.last_mut()?, next.first()?);
        for (c, row) in now.iter_mut().enumerate() {
            for (s, slot) in row.iter_mut().enumerate() {
                let skip = next.get(c).and_then(|r| r.get(s)).copied().flatten();
                *slot = [taken(offer, next, c, s), skip].into_iter().flatten().min();
            }
        }
    }
    let all = best.first()?.get(count)?;
    let lost = |s: usize| {
        let over = u32::try_from(s).ok()?.checked_sub(cores)?;
        all.get(s).copied().flatten().map(|(whole, room)| (whole, room - square(over), s))
    };
    let mut sum = (0..width).filter_map(lost).min()?.2;
    let mut chosen = Vec::with_capacity(count);
    for (i, offer) in offers.iter().enumerate() {
        let c = count - chosen.len();
        let here = best.get(i)?.get(c)?.get(sum).copied().flatten();
        let next = best.get(i + 1)?;
        if here.is_some() && taken(offer, next, c, sum) == here {
            chosen.push(i);
            sum -= offer.free as usize;
        }
    }
    Some(chosen)
}

fn taken(offer: &Offer, next: &[Vec<Option<Cost>>], c: usize, s: usize) -> Option<Cost> {
    let before = s.checked_sub(offer.free as usize)?;
    if offer.free == 0 {
        return None;
    }
    let (whole, room) = next.get(c.checked_sub(1)?)?.get(before).copied().flatten()?;
    Some((whole + u32::from(offer.whole), room + square(offer.free)))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn offers(free: &[(u32, bool)]) -> Vec<Offer> {
        free.iter().map(|(free, whole)| Offer { free: *free, whole: *whole }).collect()
    }

    fn cores(free: &[(u32, bool)], n: u32) -> Option<Vec<u32>> {
        take(&offers(free), n).map(|t| t.cores)
    }

    #[test]
    fn one_domain_is_taken_where_one_suffices() {
        assert_eq!(cores(&[(4, true), (3, false), (2, false)], 2), Some(vec![0, 0, 2]), "the fullest");
        assert_eq!(cores(&[(4, true), (3, false), (2, false)], 4), Some(vec![4, 0, 0]));
        assert_eq!(cores(&[(4, true), (4, true)], 3), Some(vec![3, 0]), "the lowest");
    }

    #[test]
    fn whole_domains_are_kept_where_as_few_others_suffice() {
        assert_eq!(cores(&[(8, true), (5, false), (6, false)], 9), Some(vec![0, 5, 4]));
        assert_eq!(cores(&[(8, true), (5, false), (6, false)], 12), Some(vec![8, 4, 0]));
    }

    #[test]
    fn too_few_cores_are_refused() {
        assert_eq!(take(&offers(&[(2, true), (0, false)]), 3), None);
        assert_eq!(cores(&[(0, false), (3, true)], 3), Some(vec![0, 3]));
        assert_eq!(cores(&[(2, true)], 0), Some(vec![0]));
    }

    #[test]
    fn several_domains_are_as_cheap_as_any_choice() {
        // Every choice over many shapes of five domains.
        for seed in 0..2000u32 {
            let free: Vec<(u32, bool)> = (0..5)
                .map(|i| {
                    let r = seed.wrapping_mul(2_654_435_761 + i * 977) >> 11;
                    (r % 5, r / 5 % 3 == 0)
                })
                .collect();
            let free = offers(&free);
            let total: u32 = free.iter().map(|o| o.free).sum();
            for n in 1..=total {
                let taken = take(&free, n).unwrap();
                let best = (0u32..32).filter_map(|set| cost_of(&free, set, n)).min().unwrap();
                assert_eq!((taken.domains, taken.whole, taken.room), best, "{free:?} {n}");
                assert_eq!(taken.cores.iter().sum::<u32>(), n);
            }
        }
    }

    /// Cost of taking these domains, the left-over cores kept together where they can be.
    fn cost_of(free: &[Offer], set: u32, n: u32) -> Option<(u32, u32, u64)> {
        let chosen: Vec<&Offer> = (0..5).filter(|i| set >> i & 1 == 1).map(|i| &free[i]).collect();
        let total: u32 = chosen.iter().map(|o| o.free).sum();
        let over = total.checked_sub(n)?;
        let used = chosen.iter().all(|o| o.free > over);
        let room = chosen.iter().map(|o| square(o.free)).sum::<u64>();
        let whole = chosen.iter().map(|o| u32::from(o.whole)).sum();
        used.then(|| (set.count_ones(), whole, room - square(over)))
    }
}
