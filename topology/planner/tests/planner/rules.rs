//! The written rules, one test each.

use crate::requests::{cpus, dedicated, device, free, held, io_thread, shared};
use pinion_machine::{Bdf, CpuSet, KernelFacts, NodeId, PageSize};
use pinion_planner::{
    CpuPolicy, HeldFloating, HeldMemory, Holding, HoldingState, IoThreadPlace, Occupancy, Placement,
    RefusalReason, Request, Shape, Within, plan,
};

const GIB: u64 = 1 << 30;

fn cpu_list(placement: &Placement) -> Vec<u32> {
    placement.vcpus.iter().filter_map(|v| v.cpu).map(|c| c.0).collect()
}

fn nodes(placement: &Placement) -> Vec<u32> {
    placement.cells.iter().map(|c| c.host_node.0).collect()
}

#[test]
fn a_small_guest_goes_where_housekeeping_already_broke_the_node() {
    let machine = Shape::new(2, 4).threads(2).build();
    let placed = plan(&machine, &free(), &dedicated(1, 2, 2, GIB)).unwrap();
    assert_eq!(nodes(&placed), [0]);
    assert_eq!(cpu_list(&placed), [1, 9, 2, 10]);
    assert_eq!(placed.emulator.cpus, cpus("0,8"));
}

#[test]
fn isolated_cpus_are_the_ones_that_are_dedicated() {
    let mut machine = Shape::new(1, 8).build();
    machine.kernel = KernelFacts { isolated: cpus("4-7"), ..KernelFacts::default() };
    assert_eq!(Occupancy::default_housekeeping(&machine), cpus("0-3"));
    let placed = plan(&machine, &free(), &dedicated(1, 2, 1, GIB)).unwrap();
    assert_eq!(cpu_list(&placed), [4, 5]);
}

#[test]
fn a_guest_core_without_siblings_has_a_host_core_to_itself() {
    let machine = Shape::new(1, 4).threads(2).build();
    let placed = plan(&machine, &free(), &dedicated(1, 3, 1, GIB)).unwrap();
    assert_eq!(cpu_list(&placed), [1, 2, 3]);
}

#[test]
fn guest_cores_share_a_host_core_only_where_cores_do_not_suffice() {
    let machine = Shape::new(1, 4).threads(2).build();
    let placed = plan(&machine, &free(), &dedicated(1, 5, 1, GIB)).unwrap();
    assert_eq!(cpu_list(&placed), [1, 5, 2, 6, 3]);
    let two = Shape::new(2, 4).threads(2).build();
    let placed = plan(&two, &free(), &dedicated(1, 6, 1, GIB)).unwrap();
    assert_eq!(nodes(&placed), [0, 1], "cores of its own before one node");
}

#[test]
fn a_sibling_of_a_held_cpu_is_never_given_away() {
    let machine = Shape::new(1, 4).threads(2).build();
    let placed = plan(&machine, &held("1", 0), &dedicated(1, 2, 1, GIB)).unwrap();
    assert_eq!(cpu_list(&placed), [2, 3]);
    assert!(plan(&machine, &held("1", 0), &dedicated(1, 5, 1, GIB)).is_err());
}

#[test]
fn cells_are_even_and_memory_follows_them() {
    let machine = Shape::new(2, 8).threads(2).memory(8 * GIB).build();
    let placed = plan(&machine, &free(), &dedicated(1, 10, 2, 5 * GIB)).unwrap();
    assert_eq!(nodes(&placed), [0, 1]);
    assert_eq!(placed.cells.iter().map(|c| c.vcpus.len()).collect::<Vec<_>>(), [10, 10]);
    assert_eq!(placed.cells.iter().map(|c| c.memory_bytes).sum::<u64>(), 5 * GIB);
    assert_eq!(placed.cells[0].distances, [10, 20]);
}

#[test]
fn cells_are_uneven_where_only_that_fits() {
    let machine = Shape::new(2, 8).build();
    let placed = plan(&machine, &held("8-13", 0), &dedicated(1, 8, 1, 8 * GIB)).unwrap();
    assert_eq!(placed.cells.iter().map(|c| c.vcpus.len()).collect::<Vec<_>>(), [6, 2]);
    assert_eq!(placed.cells.iter().map(|c| c.memory_bytes / GIB).collect::<Vec<_>>(), [6, 2]);
}

#[test]
fn sockets_do_not_straddle_cells_where_that_can_be() {
    let machine = Shape::new(2, 8).build();
    let sizes = |sockets, cores| {
        let placed = plan(&machine, &free(), &dedicated(sockets, cores, 1, GIB)).unwrap();
        placed.cells.iter().map(|c| c.vcpus.len()).collect::<Vec<_>>()
    };
    assert_eq!(sizes(3, 4), [4, 8], "one socket and two, not one and a half each");
    assert_eq!(sizes(2, 7), [7, 7]);
    assert_eq!(sizes(1, 12), [6, 6]);
    assert_eq!(sizes(12, 1), [6, 6]);
}

#[test]
fn remainder_pages_go_to_the_first_cells_with_room() {
    let shape = Shape::new(2, 4).huge_pages(PageSize::GIB1, 3);
    let mut request = dedicated(1, 6, 1, 5 * GIB);
    request.memory.page_size = PageSize::GIB1;
    let pages = |machine| {
        let placed = plan(&machine, &free(), &request).unwrap();
        placed.cells.iter().map(|c| c.memory_bytes / GIB).collect::<Vec<_>>()
    };
    assert_eq!(pages(shape.build()), [3, 2]);
    let mut machine = shape.build();
    machine.nodes[0].huge_pages[0].free = 2;
    assert_eq!(pages(machine), [2, 3]);
}

#[test]
fn promised_pages_are_not_free_though_the_kernel_says_so() {
    let machine = Shape::new(1, 8).huge_pages(PageSize::MIB2, 100).build();
    let mut request = dedicated(1, 1, 1, 60 * (2 << 20));
    request.memory.page_size = PageSize::MIB2;
    let mut taken = held("1", 0);
    taken.holdings[0].memory =
        vec![HeldMemory { node: NodeId(0), page_size: PageSize::MIB2, bytes: 50 * (2 << 20) }];
    let refused = plan(&machine, &taken, &request).unwrap_err();
    assert_eq!(refused.reason, RefusalReason::InsufficientHugePages);
    assert_eq!((refused.shortages[0].needed >> 21, refused.shortages[0].free >> 21), (60, 50));
    taken.holdings[0].state = HoldingState::Committed;
    assert!(plan(&machine, &taken, &request).is_err(), "the pool is 100 pages, whatever is free");
    taken.holdings.clear();
    assert!(plan(&machine, &taken, &request).is_ok());
}

#[test]
fn a_node_without_memory_uses_the_nearest() {
    let machine = Shape::new(3, 4).without_memory(&[0]).distances(vec![
        vec![10, 30, 20],
        vec![30, 10, 20],
        vec![20, 20, 10],
    ]);
    let occupancy = held("4-11", 0);
    let placed = plan(&machine.build(), &occupancy, &dedicated(1, 2, 1, GIB)).unwrap();
    assert_eq!((cpu_list(&placed), nodes(&placed)), (vec![1, 2], vec![2]));
}

#[test]
fn memory_only_nodes_carry_no_cells() {
    let machine = Shape::new(34, 72).without_cpus(&(2..34).collect::<Vec<_>>()).build();
    let placed = plan(&machine, &free(), &dedicated(1, 100, 1, 100 * GIB)).unwrap();
    assert_eq!(nodes(&placed), [0, 1]);
}

#[test]
fn the_nearest_nodes_are_taken_together() {
    let machine = Shape::new(8, 4).blocks(2, 12, 32).build();
    let placed = plan(&machine, &held("4-7", 0), &dedicated(1, 8, 1, GIB)).unwrap();
    assert_eq!(nodes(&placed), [2, 3]);
}

#[test]
fn l3_domains_are_few_and_whole_ones_are_kept() {
    let machine = Shape::new(1, 16).l3_cores(4).build();
    let placed = plan(&machine, &free(), &dedicated(1, 3, 1, GIB)).unwrap();
    assert_eq!(cpu_list(&placed), [1, 2, 3], "the domain that housekeeping broke");
    let placed = plan(&machine, &free(), &dedicated(1, 4, 1, GIB)).unwrap();
    assert_eq!(cpu_list(&placed), [4, 5, 6, 7], "one domain before keeping it whole");
    let placed = plan(&machine, &held("4", 0), &dedicated(1, 6, 1, GIB)).unwrap();
    assert_eq!(cpu_list(&placed), [1, 2, 3, 5, 6, 7], "two broken ones before a whole one");
}

#[test]
fn dedicated_io_threads_sit_by_the_guest_on_cores_of_their_own() {
    let machine = Shape::new(2, 4).threads(2).build();
    let mut request = dedicated(1, 2, 2, GIB);
    request.io_threads = vec![io_thread(1, IoThreadPlace::Dedicated), io_thread(2, IoThreadPlace::SharedIo)];
    let placed = plan(&machine, &free(), &request).unwrap();
    assert_eq!(cpu_list(&placed), [1, 9, 2, 10]);
    assert_eq!(placed.io_threads[0].cpus, cpus("3"));
    assert_eq!(placed.io_threads[1].cpus, cpus("0,8"));
    assert_eq!(placed.dedicated_cpus(), cpus("1-3,9-10"));
    let one = Shape::new(1, 4).threads(2).build();
    request.cpu.topology.cores = 3;
    assert!(plan(&one, &free(), &request).is_err(), "no CPU is left beside three whole cores");
    request.cpu.topology.threads = 1;
    let placed = plan(&one, &free(), &request).unwrap();
    assert_eq!(placed.io_threads[0].cpus, cpus("5"), "a sibling, where cores do not suffice");
}

#[test]
fn shared_guests_float_over_as_many_cpus_as_they_have() {
    let machine = Shape::new(2, 4).threads(2).build();
    let placed = plan(&machine, &free(), &shared(3, GIB)).unwrap();
    assert!(placed.vcpus.iter().all(|v| v.cpu.is_none() && v.cpus == cpus("1-2,9-10")));
    let mut taken = free();
    taken.holdings.push(placed.holding(HoldingState::Committed));
    let next = plan(&machine, &taken, &shared(1, GIB)).unwrap();
    assert_eq!(next.vcpus[0].cpus, cpus("1-2,9-10"), "the pool has room for it");
    taken.holdings.push(Holding { owner: "t/next".into(), ..next.holding(HoldingState::Committed) });
    assert_eq!(taken.holdings[1].floating, [HeldFloating { cpus: cpus("1-2,9-10"), vcpus: 1 }]);
    let third = plan(&machine, &taken, &shared(2, GIB)).unwrap();
    assert_eq!(third.vcpus[0].cpus, cpus("1-3,9-11"), "the pool grows by whole cores");
    let own = plan(&machine, &taken, &dedicated(1, 2, 2, GIB)).unwrap();
    assert_eq!(nodes(&own), [1], "a floated-over core is not dedicated");
}

#[test]
fn shared_guests_float_over_housekeeping_where_nothing_else_is() {
    let machine = Shape::new(1, 1).threads(2).build();
    let placed = plan(&machine, &free(), &shared(2, GIB)).unwrap();
    assert!(placed.vcpus.iter().all(|v| v.cpus == cpus("0-1")));
    let refused = plan(&machine, &free(), &dedicated(1, 1, 1, GIB)).unwrap_err();
    assert_eq!(refused.reason, RefusalReason::NoDedicatedCpus);
    assert_eq!(refused.nearest, None);
}

#[test]
fn real_time_vcpus_are_marked() {
    let machine = Shape::new(1, 4).build();
    let mut request = dedicated(1, 3, 1, GIB);
    request.cpu.realtime = vec![2, 0];
    let placed = plan(&machine, &free(), &request).unwrap();
    assert_eq!(placed.vcpus.iter().map(|v| v.realtime).collect::<Vec<_>>(), [true, false, true]);
}

#[test]
fn devices_draw_the_guest_and_are_shared_out_together() {
    let at = |bus| Bdf::new(0, bus, 0, 0).unwrap();
    let machine = Shape::new(4, 4).device(at(1), 2, 1).device(at(2), 3, 2).device(at(3), 3, 2).build();
    let mut request = dedicated(1, 2, 1, GIB);
    request.devices = vec![device("any", &[at(1), at(2)]), device("one", &[at(1)])];
    let placed = plan(&machine, &free(), &request).unwrap();
    assert_eq!(placed.devices.iter().map(|d| d.address).collect::<Vec<_>>(), [at(2), at(1)]);
    assert_eq!(nodes(&placed), [2]);
    let mut taken = free();
    taken.holdings.push(Holding {
        devices: vec![at(3)],
        cpus: CpuSet::new(),
        ..held("1", 0).holdings[0].clone()
    });
    let refused = plan(&machine, &taken, &request).unwrap_err();
    assert_eq!(refused.reason, RefusalReason::InsufficientDevices, "one group is one guest's");
    assert_eq!(refused.shortages.len(), 1);
    assert_eq!(refused.shortages[0].held_by[0].owner, "t/other");
}

#[test]
fn interrupts_come_to_housekeeping_of_the_node_else_to_the_guests_own_io_cpus_there() {
    let at = Bdf::new(0, 1, 0, 0).unwrap();
    let machine = Shape::new(2, 4).device(at, 1, 1).build();
    let mut request = dedicated(1, 2, 1, GIB);
    request.devices = vec![device("one", &[at])];
    let interrupts = |placement: &Placement| placement.devices[0].interrupt_cpus.clone();
    let keeping = |list| Occupancy { housekeeping: cpus(list), ..free() };
    let placed = plan(&machine, &keeping("0,4-5"), &request).unwrap();
    assert_eq!(interrupts(&placed), cpus("4-5"));
    assert_eq!(interrupts(&plan(&machine, &keeping("0"), &request).unwrap()), cpus("0"), "the nearest");
    request.io_threads = vec![io_thread(1, IoThreadPlace::Dedicated)];
    let placed = plan(&machine, &keeping("0"), &request).unwrap();
    assert_eq!(interrupts(&placed), placed.io_threads[0].cpus);
    let turns: Vec<_> = (0..3).map(|v| pinion_planner::vector_cpu(&cpus("4-5"), v).unwrap().0).collect();
    assert_eq!(turns, [4, 5, 4]);
    assert_eq!(pinion_planner::vector_cpu(&CpuSet::new(), 0), None);
}

#[test]
fn refusals_name_the_least_that_is_short() {
    let machine = Shape::new(2, 8).build();
    let refused = plan(&machine, &held("8-13", 0), &dedicated(1, 12, 1, GIB)).unwrap_err();
    assert_eq!(refused.reason, RefusalReason::InsufficientCpus);
    let short = &refused.shortages[0];
    assert_eq!((short.resource.as_str(), short.needed - short.free), ("cpus", 3));
    assert_eq!(refused.nearest.unwrap().topology.cores, 9);
    let refused = plan(&machine, &free(), &dedicated(1, 2, 2, GIB)).unwrap_err();
    assert_eq!(refused.reason, RefusalReason::UnsupportedThreads);
    let mut huge = dedicated(1, 2, 1, GIB);
    huge.memory.page_size = PageSize::GIB1;
    let refused = plan(&machine, &free(), &huge).unwrap_err();
    assert_eq!(refused.reason, RefusalReason::UnsupportedPageSize);
    assert_eq!(refused.shortages[0].resource, "hugepages-1Gi");
    assert_eq!(CpuPolicy::Dedicated, huge.cpu.policy);
}

/// Nodes 0 and 3 are alike, yet not to be exchanged: the cell on 3 comes after those on 1
/// and 2, so that only one guest socket lies in two cells.
#[test]
fn of_nodes_alike_the_one_that_keeps_sockets_whole_is_taken() {
    let mut machine = Shape::new(4, 2).huge_pages(PageSize::MIB2, 12).build();
    for (node, free) in machine.nodes.iter_mut().zip([9, 3, 2, 9]) {
        node.huge_pages[0].free = free;
    }
    let mut occupancy = held("1", 0);
    occupancy.housekeeping = cpus("7");
    let mut request = dedicated(2, 2, 1, 6 * PageSize::MIB2.bytes());
    request.memory.page_size = PageSize::MIB2;
    let placed = plan(&machine, &occupancy, &request).unwrap();
    assert_eq!(nodes(&placed), [1, 2, 3]);
}

/// Nodes 0 and 1 are alike but for node 2, which has no memory and takes that of node 0.
#[test]
fn a_node_without_memory_is_nearest_to_the_one_that_serves_it() {
    let far = vec![vec![10, 20, 12], vec![20, 10, 12], vec![12, 12, 10]];
    let shape = Shape::new(3, 3).huge_pages(PageSize::MIB2, 12).without_memory(&[2]).distances(far);
    let mut machine = shape.build();
    for node in machine.nodes.iter_mut().take(2) {
        node.huge_pages[0].free = 3;
    }
    let mut request = dedicated(2, 1, 1, 4 * PageSize::MIB2.bytes());
    request.memory.page_size = PageSize::MIB2;
    let occupancy = Occupancy { housekeeping: cpus("6"), ..free() };
    let placed = plan(&machine, &occupancy, &request).unwrap();
    assert_eq!(placed.cells.iter().map(|c| c.host_node).collect::<Vec<_>>(), [NodeId(1), NodeId(0)]);
    assert_eq!(cpu_list(&placed), [3, 7]);
}

#[test]
fn a_machine_without_cpus_refuses() {
    let machine = pinion_machine::Machine::default();
    for request in [dedicated(1, 1, 1, GIB), shared(1, GIB)] {
        let refused = plan(&machine, &free(), &request).unwrap_err();
        assert_eq!(refused.shortages[0].node, None);
    }
}

fn within(mut request: Request, list: &str, memory: &[u32]) -> Request {
    request.within = Some(Within { cpus: cpus(list), memory: memory.iter().copied().map(NodeId).collect() });
    request
}

#[test]
fn a_guest_in_a_pod_stays_on_the_cpus_and_nodes_that_the_pod_was_given() {
    let machine = Shape::new(2, 4).threads(2).build();
    let request = within(dedicated(1, 2, 2, GIB), "5-6,13-14", &[1]);
    let placed = plan(&machine, &free(), &request).unwrap();
    assert_eq!((cpu_list(&placed), nodes(&placed)), (vec![5, 13, 6, 14], vec![1]));
    assert_eq!(placed.emulator.cpus, cpus("0,8"), "housekeeping is outside");
    let far = within(dedicated(1, 2, 2, GIB), "5-6,13-14", &[0]);
    assert_eq!(nodes(&plan(&machine, &free(), &far).unwrap()), [0], "memory from where it may come");
    let more = within(dedicated(1, 3, 2, GIB), "5-6,13-14", &[1]);
    let refused = plan(&machine, &free(), &more).unwrap_err();
    assert_eq!(refused.reason, RefusalReason::InsufficientCpus);
}

#[test]
fn a_core_of_which_a_pod_was_given_one_cpu_counts_as_one() {
    let machine = Shape::new(1, 4).threads(2).build();
    let halves = within(dedicated(1, 2, 1, GIB), "1-2", &[0]);
    let siblings_are_others = Occupancy { housekeeping: cpus("0,4-6"), ..held("7", 0) };
    assert_eq!(cpu_list(&plan(&machine, &siblings_are_others, &halves).unwrap()), [1, 2]);
    let pairs = within(dedicated(1, 1, 2, GIB), "1-2", &[0]);
    let refused = plan(&machine, &siblings_are_others, &pairs).unwrap_err();
    assert_eq!(refused.reason, RefusalReason::UnsupportedThreads);
    let of_a_held_core = within(dedicated(1, 1, 1, GIB), "3", &[0]);
    assert_eq!(cpu_list(&plan(&machine, &siblings_are_others, &of_a_held_core).unwrap()), [3]);
}

#[test]
fn what_others_hold_is_not_given_away_but_what_they_floated_over_is() {
    let machine = Shape::new(1, 4).build();
    let request = within(dedicated(1, 1, 1, GIB), "2-3", &[0]);
    assert_eq!(cpu_list(&plan(&machine, &held("2", 0), &request).unwrap()), [3]);
    let refused = plan(&machine, &held("2-3", 0), &request).unwrap_err();
    assert_eq!(refused.shortages[0].held_by[0].owner, "t/other");
    let mut floated = held("", 0);
    floated.holdings[0].floating = vec![HeldFloating { cpus: cpus("0-3"), vcpus: 2 }];
    assert_eq!(cpu_list(&plan(&machine, &floated, &request).unwrap()), [2]);
}

#[test]
fn a_shared_guest_in_a_pod_floats_over_its_containers_cpus() {
    let machine = Shape::new(2, 4).build();
    let pool = Occupancy { housekeeping: cpus("0-2,6"), ..held("", 0) };
    let placed = plan(&machine, &pool, &within(shared(2, GIB), "0-2,6", &[0, 1])).unwrap();
    assert_eq!(nodes(&placed), [0]);
    assert!(placed.vcpus.iter().all(|v| v.cpus == cpus("0-2")), "those of its node");
    let placed = plan(&machine, &pool, &within(shared(2, GIB), "0-2,6", &[1])).unwrap();
    assert_eq!(nodes(&placed), [1]);
}

#[test]
fn a_pod_without_cpus_of_its_own_has_no_dedicated_guest() {
    let machine = Shape::new(1, 4).build();
    let refused = plan(&machine, &free(), &within(dedicated(1, 1, 1, GIB), "", &[0])).unwrap_err();
    assert_eq!(refused.reason, RefusalReason::UnsupportedThreads);
}
