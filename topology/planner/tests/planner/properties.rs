//! What holds for every placement and every refusal.

use std::collections::BTreeMap;

use pinion_machine::{CoreId, CpuSet, NodeId, Outline};
use pinion_planner::{CpuPolicy, HoldingState, Occupancy, Placement, Request, Shape, Shortage, plan};
use proptest::prelude::*;

use crate::worlds::{PAGE, World, grow, world};

fn core_of(world: &World, cpu: pinion_machine::CpuId) -> CoreId {
    world.machine.cpu(cpu).map(|c| c.core).unwrap_or_else(|| panic!("{cpu} is not online"))
}

/// Everything that must hold of a placement, whatever its quality.
fn check(world: &World, placed: &Placement) {
    let request = &world.request;
    let topology = request.cpu.topology;
    let vcpus = topology.sockets * topology.cores * topology.threads;
    assert_eq!(placed.vcpus.len(), vcpus as usize);
    assert_eq!(placed.generation, world.occupancy.generation);
    let own = placed.dedicated_cpus();
    assert!(own.is_disjoint(&placed.emulator.cpus));
    assert!(!placed.emulator.cpus.is_empty());
    let mut taken: CpuSet = placed.emulator.cpus.clone();
    for holding in &world.occupancy.holdings {
        taken = taken.union(&holding.cpus);
        taken = holding.floating.iter().fold(taken, |all, f| all.union(&f.cpus));
    }
    for cpu in own.iter() {
        let core = world.machine.core(core_of(world, cpu)).map(|c| c.cpus.clone()).unwrap_or_default();
        assert!(core.is_disjoint(&taken), "core of {cpu} is another's");
    }
    let io = placed.io_threads.iter().map(|t| t.cpus.len()).sum::<usize>();
    assert_eq!(io, request.io_threads.len());
    if request.cpu.policy == CpuPolicy::Dedicated {
        assert_eq!(own.len(), vcpus as usize + io, "each CPU is given once");
        let threads = placed.vcpus.chunks(topology.threads as usize);
        for siblings in threads {
            let mut cores: Vec<_> =
                siblings.iter().filter_map(|v| v.cpu).map(|c| core_of(world, c)).collect();
            cores.dedup();
            assert_eq!(cores.len(), 1, "siblings on siblings");
            assert!(siblings.iter().all(|v| v.cell == siblings[0].cell));
        }
    } else {
        let held = world.occupancy.holdings.iter().fold(own, |all, h| all.union(&h.cpus));
        let online = world.machine.online();
        for vcpu in &placed.vcpus {
            let housekeeping = vcpu.cpus.is_subset(&placed.emulator.cpus);
            assert!(housekeeping || vcpu.cpus.is_disjoint(&held.union(&placed.emulator.cpus)));
            assert!(!vcpu.cpus.is_empty() && vcpu.cpus.is_subset(&online));
        }
    }
    check_cells(world, placed);
    check_devices(world, placed);
}

fn check_cells(world: &World, placed: &Placement) {
    let total: u64 = placed.cells.iter().map(|c| c.memory_bytes).sum();
    assert_eq!(total, world.request.memory.bytes);
    let vcpus = placed.vcpus.len() as u64;
    let mut used: BTreeMap<NodeId, u64> = BTreeMap::new();
    let mut next = 0;
    for (id, cell) in (0..).zip(&placed.cells) {
        assert_eq!(cell.id, id);
        assert_eq!(cell.page_size_bytes, PAGE);
        assert!(cell.memory_bytes > 0 && cell.memory_bytes.is_multiple_of(PAGE.bytes()));
        let exact = total / PAGE.bytes() * cell.vcpus.len() as u64;
        let pages = cell.memory_bytes / PAGE.bytes();
        let shared = placed.cells.iter().filter(|c| c.host_node == cell.host_node).count() as u64;
        assert!(pages + shared > exact / vcpus && pages < exact.div_ceil(vcpus) + shared, "in proportion");
        *used.entry(cell.host_node).or_default() += pages;
        for vcpu in &cell.vcpus {
            assert_eq!(*vcpu, next);
            assert_eq!(placed.vcpus[next as usize].cell, id);
            next += 1;
        }
        assert_eq!(cell.distances.len(), placed.cells.len());
        assert_eq!(cell.distances[id as usize], 10);
        if let Some(home) = home_of(world, placed, id) {
            assert_eq!(cell.host_node, home);
        }
    }
    for (node, pages) in used {
        let free = free_pages(world, node);
        assert!(pages <= free, "{pages} of {free} on {node}");
    }
}

/// The node of a cell's CPUs, where it has memory.
fn home_of(world: &World, placed: &Placement, cell: u32) -> Option<NodeId> {
    let cpu = placed.vcpus.iter().find(|v| v.cell == cell)?.cpu?;
    let node = world.machine.cpu(cpu)?.node?;
    world.machine.node(node).filter(|n| n.memory_bytes > 0).map(|n| n.id)
}

fn free_pages(world: &World, node: NodeId) -> u64 {
    let Some(pool) = world.machine.node(node).and_then(|n| n.huge_pages.first()) else { return 0 };
    let held = |reserved_only: bool| {
        let counts = world
            .occupancy
            .holdings
            .iter()
            .filter(|h| !reserved_only || h.state == HoldingState::Reserved)
            .flat_map(|h| &h.memory)
            .filter(|m| m.node == node && m.page_size == PAGE);
        counts.map(|m| m.bytes / PAGE.bytes()).sum::<u64>()
    };
    pool.total.saturating_sub(held(false)).min(pool.free.saturating_sub(held(true)))
}

fn check_devices(world: &World, placed: &Placement) {
    let mut given = Vec::new();
    for (device, request) in placed.devices.iter().zip(&world.request.devices) {
        assert!(request.candidates.contains(&device.address));
        assert!(!given.contains(&device.address));
        given.push(device.address);
        let vcpus: pinion_machine::CpuSet = placed.vcpus.iter().filter_map(|v| v.cpu).collect();
        assert!(!device.interrupt_cpus.is_empty() && device.interrupt_cpus.is_disjoint(&vcpus));
        let function = world.machine.pci.iter().find(|f| f.address == device.address);
        let group = function.and_then(|f| f.iommu_group);
        assert_eq!(device.iommu_group, group);
        let other = |a: &pinion_machine::Bdf| {
            let f = world.machine.pci.iter().find(|f| f.address == *a);
            *a == device.address || f.is_some_and(|f| f.iommu_group == group)
        };
        assert!(!world.occupancy.holdings.iter().any(|h| h.devices.iter().any(other)));
    }
    assert_eq!(placed.devices.len(), world.request.devices.len());
}

/// The world without a shortage: that much more of it, free.
fn without(world: &mut World, shortage: &Shortage) {
    let more = shortage.needed - shortage.free;
    let threads = match world.request.cpu.policy {
        CpuPolicy::Dedicated => world.request.cpu.topology.threads,
        CpuPolicy::Shared => 1,
    };
    match (shortage.resource.as_str(), shortage.node) {
        ("cpus" | "cores", Some(node)) => {
            grow(world, node, u32::try_from(more).unwrap_or(u32::MAX), threads, 0);
        }
        ("hugepages-2Mi", Some(node)) => grow(world, node, 0, 1, more / PAGE.bytes()),
        (names, None) => {
            let names: Vec<&str> = names.split(", ").collect();
            for n in 0..more {
                let address = crate::worlds::function(100 + u8::try_from(n).unwrap_or(0));
                let mut new = pinion_planner::Shape::new(1, 1).device(address, 0, 1000).build().pci;
                new[0].iommu_group = None;
                world.machine.pci.append(&mut new);
                for device in world.request.devices.iter_mut().filter(|d| names.contains(&d.name.as_str())) {
                    device.candidates.push(address);
                }
            }
        }
        other => panic!("unknown shortage {other:?}"),
    }
}

fn with_housekeeping(world: &World) -> World {
    let mut fixed = world.clone();
    let online = world.machine.online();
    if world.occupancy.housekeeping.intersection(&online).is_empty() {
        fixed.occupancy.housekeeping = Occupancy::default_housekeeping(&world.machine);
    }
    fixed
}

#[test]
fn an_outline_is_small() {
    let machine = Shape::new(2, 32).threads(2).l3_cores(8).build();
    let bytes = serde_json::to_string(&Outline::of(&machine, |_| true)).unwrap().len();
    assert!(bytes < 2048, "{bytes} bytes for {} CPUs", machine.cpus.len());
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 10_000, failure_persistence: None, ..ProptestConfig::default() })]

    #[test]
    fn placements_are_sound_and_refusals_are_true(world in world()) {
        let answer = plan(&world.machine, &world.occupancy, &world.request);
        prop_assert_eq!(&answer, &plan(&world.machine, &world.occupancy, &world.request));
        match answer {
            Ok(placed) => check(&world, &placed),
            Err(refusal) => {
                prop_assert!(!refusal.shortages.is_empty());
                let mut grown = with_housekeeping(&world);
                for shortage in &refusal.shortages {
                    prop_assert!(shortage.needed > shortage.free, "{}", refusal);
                    without(&mut grown, shortage);
                }
                let placed = plan(&grown.machine, &grown.occupancy, &grown.request);
                prop_assert!(placed.is_ok(), "{}\n{}", refusal, placed.unwrap_err());
                if let Some(nearest) = refusal.nearest {
                    let mut smaller: Request = world.request.clone();
                    prop_assert!(nearest.memory.bytes <= smaller.memory.bytes);
                    smaller.cpu.topology = nearest.topology;
                    smaller.memory = nearest.memory;
                    let world = World { request: smaller, ..world };
                    let placed = plan(&world.machine, &world.occupancy, &world.request);
                    prop_assert!(placed.is_ok(), "{}\n{}", refusal, placed.unwrap_err());
                    check(&world, &placed.unwrap());
                }
            }
        }
    }

    #[test]
    fn a_machine_by_its_outline_is_planned_the_same(world in world()) {
        let outline = Outline::of(&world.machine, |_| true);
        let again: Outline = serde_json::from_str(&serde_json::to_string(&outline).unwrap()).unwrap();
        let machine = again.machine().unwrap();
        let housekeeping = |machine| world.occupancy.clone().with_housekeeping(machine);
        prop_assert_eq!(housekeeping(&machine), housekeeping(&world.machine));
        let answer = plan(&world.machine, &world.occupancy, &world.request);
        prop_assert_eq!(plan(&machine, &world.occupancy, &world.request), answer);
    }
}
