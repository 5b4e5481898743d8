//! Huge pages that are not there yet: taken on the node where a guest needs them, and given back after it.
//!
//! Used where a guest is planned. A guest is placed on the huge pages that there are, if that is possible at all; only
//! otherwise on those that the kernel could make of free memory.

use std::collections::BTreeMap;
use std::fs;

use pinion_machine::{Machine, NodeId, PageSize};
use pinion_node_agent::PagesWish;
use pinion_planner::{Holding, HoldingState, Occupancy, Placement, Refusal, Request, plan};

/// Memory of a node that is never made into huge pages: at least this, bytes ...
const LEFT_BYTES: u64 = 256 << 20;
/// ... and at least one part in so many.
const LEFT_SHARE: u64 = 10;

/// Pages that the kernel did not find.
#[derive(Debug, thiserror::Error)]
#[error(
    "node {node}: the kernel has {free} free huge pages of {} MiB and {needed} are needed: its memory is in pieces; take them \
     when the host boots (hugepages=), or by a profile", size_kib >> 10
)]
pub(crate) struct PagesShort {
    node: NodeId,
    size_kib: u64,
    free: u64,
    needed: u64,
}

/// Places a guest, and says which huge pages have to be made for it.
///
/// # Errors
/// The planner's refusal, about the pages that there are.
pub(crate) fn place(
    machine: &Machine,
    occupancy: &Occupancy,
    request: &Request,
    may_make: bool,
) -> Result<(Placement, Vec<PagesWish>), Refusal> {
    let refusal = match plan(machine, occupancy, request) {
        Ok(placement) => return Ok((placement, Vec::new())),
        Err(refusal) => refusal,
    };
    if !may_make || request.memory.page_size == PageSize::KIB4 {
        return Err(refusal);
    }
    let Ok(placement) = plan(&with_possible_pages(machine), occupancy, request) else { return Err(refusal) };
    let missing = missing(machine, occupancy, &placement.holding(HoldingState::Reserved));
    Ok((placement, missing))
}

/// A machine whose free memory is huge pages already, but for what the host needs.
fn with_possible_pages(machine: &Machine) -> Machine {
    let mut machine = machine.clone();
    for node in &mut machine.nodes {
        let left = LEFT_BYTES.max(node.memory_bytes / LEFT_SHARE);
        let possible = node.available_bytes.saturating_sub(left);
        for pool in &mut node.huge_pages {
            let more = possible / pool.page_size.bytes();
            pool.free = pool.free.saturating_add(more);
            pool.total = pool.total.saturating_add(more);
        }
    }
    machine
}

type Pages = BTreeMap<(NodeId, PageSize), u64>;

/// Huge pages of a holding, by node and size.
fn pages(holding: &Holding) -> Pages {
    let mut pages = Pages::new();
    for held in holding.memory.iter().filter(|m| m.page_size != PageSize::KIB4) {
        *pages.entry((held.node, held.page_size)).or_default() += held.bytes / held.page_size.bytes();
    }
    pages
}

/// What is missing, beside what others were promised and have not taken yet.
fn missing(machine: &Machine, occupancy: &Occupancy, holding: &Holding) -> Vec<PagesWish> {
    let mut promised = Pages::new();
    for other in occupancy.holdings.iter().filter(|h| h.state == HoldingState::Reserved) {
        pages(other).into_iter().for_each(|(at, n)| *promised.entry(at).or_default() += n);
    }
    let free = |(node, size): (NodeId, PageSize)| {
        let pools = machine.node(node).map(|n| n.huge_pages.as_slice()).unwrap_or_default();
        pools.iter().find(|p| p.page_size == size).map_or(0, |p| p.free)
    };
    let wish = |(at, needed): ((NodeId, PageSize), u64)| {
        let available = free(at).saturating_sub(promised.get(&at).copied().unwrap_or(0));
        let count = needed.saturating_sub(available);
        (count > 0).then_some(PagesWish { node: at.0, size_kib: at.1.bytes() >> 10, count })
    };
    pages(holding).into_iter().filter_map(wish).collect()
}

/// Whether the kernel has made what a guest needs.
///
/// # Errors
/// [`PagesShort`].
pub(crate) fn check(placement: &Placement, wished: &[PagesWish]) -> Result<(), PagesShort> {
    let needed = pages(&placement.holding(HoldingState::Reserved));
    for wish in wished {
        let at =
            needed.iter().find(|((node, size), _)| *node == wish.node && size.bytes() >> 10 == wish.size_kib);
        let path = format!(
            "/sys/devices/system/node/node{}/hugepages/hugepages-{}kB/free_hugepages",
            wish.node, wish.size_kib
        );
        let free = fs::read_to_string(path).ok().and_then(|t| t.trim().parse::<u64>().ok()).unwrap_or(0);
        if let Some((_, needed)) = at.filter(|(_, needed)| free < **needed) {
            return Err(PagesShort { node: wish.node, size_kib: wish.size_kib, free, needed: *needed });
        }
    }
    Ok(())
}

/// What is made for a guest, in a line.
pub(crate) fn words(wished: &[PagesWish]) -> String {
    let one = |w: &PagesWish| format!("{} of {} MiB on node {}", w.count, w.size_kib >> 10, w.node);
    let all: Vec<String> = wished.iter().map(one).collect();
    if all.is_empty() { String::new() } else { format!("  huge pages to be made: {}\n", all.join(", ")) }
}

#[cfg(test)]
mod tests {
    use pinion_planner::{CpuPolicy, CpuRequest, GuestTopology, MemoryRequest, NumaPolicy, Shape};

    use super::*;

    fn request(mebibytes: u64) -> Request {
        Request {
            name: "default/a".into(),
            cpu: CpuRequest {
                topology: GuestTopology { sockets: 1, cores: 1, threads: 1 },
                policy: CpuPolicy::Dedicated,
                realtime: vec![],
            },
            memory: MemoryRequest { bytes: mebibytes << 20, page_size: PageSize::MIB2 },
            numa: NumaPolicy::Auto,
            io_threads: vec![],
            devices: vec![],
            within: None,
        }
    }

    #[test]
    fn pages_are_made_only_where_those_that_there_are_do_not_do() {
        let machine = Shape::new(1, 4).memory(4 << 30).huge_pages(PageSize::MIB2, 100).build();
        let nobody = Occupancy { housekeeping: "0".parse().unwrap(), ..Occupancy::default() };
        assert_eq!(place(&machine, &nobody, &request(200), true).unwrap().1, vec![]);
        let (placement, made) = place(&machine, &nobody, &request(512), true).unwrap();
        assert_eq!(made, [PagesWish { node: NodeId(0), size_kib: 2048, count: 156 }]);
        assert!(words(&made).contains("156 of 2 MiB on node 0"));
        assert!(place(&machine, &nobody, &request(512), false).is_err());
        assert!(place(&machine, &nobody, &request(8192), true).is_err(), "more than there is");
        // What was promised to another counts.
        let promised = placement.holding(HoldingState::Reserved);
        let others =
            Occupancy { holdings: vec![Holding { owner: "default/b".into(), ..promised }], ..nobody };
        let (_, made) = place(&machine, &others, &request(64), true).unwrap();
        assert_eq!(made, [PagesWish { node: NodeId(0), size_kib: 2048, count: 32 }]);
    }
}
