//! Large machines, awkward machines and absurd requests: still an answer, still sound.

use pinion_machine::{CpuId, CpuSet, Machine};
use pinion_planner::{HoldingState, Occupancy, Placement, RefusalReason, Shape, plan};

use crate::requests::{dedicated, free, held, shared};

const GIB: u64 = 1 << 30;

/// A ledger in which each core of a node is held that `pattern` picks.
fn held_where(machine: &Machine, pattern: impl Fn(u32, u32) -> bool) -> Occupancy {
    let mut cpus = CpuSet::new();
    for core in &machine.cores {
        let node = core.node.map_or(0, |n| n.0);
        if pattern(node, core.id.0) {
            cpus.extend(core.cpus.iter());
        }
    }
    let mut occupancy = held("", 0);
    occupancy.housekeeping = [CpuId(0)].into_iter().collect();
    cpus.remove(CpuId(0));
    occupancy.holdings[0].cpus = cpus;
    occupancy
}

fn spread(placed: &Placement) -> Vec<u32> {
    placed.cells.iter().map(|c| c.host_node.0).collect()
}

#[test]
fn a_guest_over_many_unequal_nodes_is_placed() {
    let machine = Shape::new(64, 8).l3_cores(4).build();
    // Every node has a different pattern of free cores, all nodes are equally far.
    let taken = held_where(&machine, |node, core| (core.wrapping_mul(2_654_435_761) >> 7) % 3 < node % 3);
    let placed = plan(&machine, &taken, &dedicated(1, 60, 1, 60 * GIB)).unwrap();
    assert_eq!(placed.cells.len(), 8, "eight whole nodes");
    let placed = plan(&machine, &taken, &dedicated(3, 30, 1, 90 * GIB)).unwrap();
    assert_eq!(placed.vcpus.len(), 90);
}

#[test]
fn blocks_of_near_nodes_are_found_among_many() {
    let machine = Shape::new(64, 8).blocks(8, 12, 32).build();
    let taken = held_where(&machine, |node, core| node / 8 != 5 && core % 8 == 7);
    let placed = plan(&machine, &taken, &dedicated(8, 8, 1, 64 * GIB)).unwrap();
    assert_eq!(spread(&placed), (40..48).collect::<Vec<_>>());
}

#[test]
fn a_machine_is_filled_to_the_last_core() {
    let machine = Shape::new(4, 8).threads(2).l3_cores(4).build();
    let mut occupancy = free();
    let mut placed = 0;
    while let Ok(guest) = plan(&machine, &occupancy, &dedicated(1, 1 + placed % 3, 2, GIB)) {
        occupancy.holdings.push(guest.holding(HoldingState::Reserved));
        placed += 1;
    }
    let held = occupancy.holdings.iter().map(|h| h.cpus.len()).sum::<usize>();
    assert!(held >= 2 * 29, "{held} of 62 CPUs; at most two cores are too few for three");
}

#[test]
fn absurd_requests_are_refused() {
    let machine = Shape::new(2, 4).build();
    for (sockets, cores, threads) in
        [(u32::MAX, u32::MAX, 1), (1, u32::MAX, u32::MAX), (0, 0, 0), (1, 1, u32::MAX)]
    {
        let request = dedicated(sockets, cores, threads, u64::MAX);
        assert!(plan(&machine, &free(), &request).is_err());
    }
    let refused = plan(&machine, &free(), &dedicated(1, 1, 1, u64::MAX)).unwrap_err();
    assert_eq!(refused.reason, RefusalReason::InsufficientMemory);
    assert!(plan(&machine, &free(), &shared(u32::MAX, GIB)).is_err(), "vCPUs are counted, not laid out");
}
