//! Small random worlds: a machine, what is taken on it, and a request.

use pinion_machine::{Bdf, CpuId, CpuSet, HugePagePool, Machine, NodeId, PageSize};
use pinion_planner::{
    CpuPolicy, DeviceRequest, GuestTopology, HeldFloating, HeldMemory, Holding, HoldingState, IoThreadPlace,
    Occupancy, Request, Shape, Within,
};
use proptest::prelude::*;

use crate::requests::{dedicated, io_thread};

pub(crate) const PAGE: PageSize = PageSize::MIB2;

#[derive(Clone, Debug)]
pub(crate) struct World {
    pub(crate) machine: Machine,
    pub(crate) occupancy: Occupancy,
    pub(crate) request: Request,
}

pub(crate) fn function(index: u8) -> Bdf {
    Bdf::new(0, index + 1, 0, 0).unwrap_or_else(|| panic!("{index}"))
}

fn machine() -> impl Strategy<Value = Machine> {
    let shape = (1u32..=4, 1u32..=4, 1u32..=2, 1u32..=3)
        .prop_filter("at most 12 CPUs", |(n, c, t, _)| n * c * t <= 12);
    let devices = prop::collection::vec((0u32..4, 1u32..=2), 0..4);
    let distances = prop::collection::vec(prop::sample::select(vec![12, 20, 20, 20, 32]), 16);
    let holes = (prop::option::weighted(0.3, 0u32..12), prop::collection::vec(0u64..12, 4));
    let empty = (prop::option::weighted(0.25, 0u32..4), prop::option::weighted(0.15, 0u32..4));
    let facts = (any::<bool>(), prop::bool::weighted(0.4));
    (shape, devices, distances, holes, empty, facts).prop_map(
        |((nodes, cores, threads, l3), devices, distances, (offline, pages), empty, (symmetric, random))| {
            let mut shape = Shape::new(nodes, cores).threads(threads).l3_cores(l3).huge_pages(PAGE, 12);
            if let Some(node) = empty.0.filter(|n| *n < nodes && nodes > 1) {
                shape = shape.without_memory(&[node]);
            }
            if let Some(node) = empty.1.filter(|n| *n < nodes && nodes > 1) {
                shape = shape.without_cpus(&[node]);
            }
            for (index, (node, group)) in (0..).zip(devices) {
                shape = shape.device(function(index), node % nodes, group);
            }
            if random {
                let at = |a: u32, b: u32| match (a == b, symmetric) {
                    (true, _) => 10,
                    (_, true) => distances[(a.min(b) * 4 + a.max(b)) as usize],
                    (_, false) => distances[(a * 4 + b) as usize],
                };
                shape = shape.distances((0..nodes).map(|a| (0..nodes).map(|b| at(a, b)).collect()).collect());
            }
            let mut machine = shape.build();
            for (node, pages) in machine.nodes.iter_mut().zip(pages) {
                node.huge_pages.iter_mut().for_each(|p| p.free = pages);
            }
            if let Some(cpu) = offline.filter(|c| *c > 0) {
                take_offline(&mut machine, CpuId(cpu));
            }
            machine
        },
    )
}

fn take_offline(machine: &mut Machine, cpu: CpuId) {
    machine.cpus.retain(|c| c.id != cpu);
    let sets = machine.nodes.iter_mut().map(|n| &mut n.cpus);
    let sets = sets.chain(machine.cores.iter_mut().map(|c| &mut c.cpus));
    for set in sets.chain(machine.l3_domains.iter_mut().map(|d| &mut d.cpus)) {
        set.remove(cpu);
    }
    machine.cores.retain(|c| !c.cpus.is_empty());
}

fn occupancy() -> impl Strategy<Value = Occupancy> {
    let held = (prop::collection::vec(0u32..12, 0..4), 0u32..4, 0u64..5, any::<bool>());
    let devices = prop::option::weighted(0.2, 0u8..4);
    let housekeeping = prop::collection::vec(0u32..12, 0..3);
    let floating = (prop::collection::vec(0u32..12, 0..3), 0u32..4);
    (held, devices, housekeeping, floating).prop_map(
        |((cpus, node, pages, reserved), device, housekeeping, (over, vcpus))| {
            let housekeeping: CpuSet = housekeeping.into_iter().map(CpuId).collect();
            let cpus: CpuSet = cpus.into_iter().map(CpuId).collect();
            let bytes = pages * PAGE.bytes();
            let holding = Holding {
                owner: "t/other".into(),
                state: if reserved { HoldingState::Reserved } else { HoldingState::Committed },
                cpus: cpus.difference(&housekeeping),
                floating: if over.is_empty() {
                    vec![]
                } else {
                    vec![HeldFloating { cpus: over.into_iter().map(CpuId).collect(), vcpus }]
                },
                memory: vec![HeldMemory { node: NodeId(node), page_size: PAGE, bytes }],
                devices: device.map(function).into_iter().collect(),
            };
            Occupancy { generation: 7, housekeeping, holdings: vec![holding] }
        },
    )
}

fn request() -> impl Strategy<Value = Request> {
    let topology = (1u32..=3, 1u32..=4, prop::sample::select(vec![1u32, 1, 2]));
    let devices = prop::collection::vec(prop::collection::vec(0u8..4, 1..3), 0..3);
    (topology, 1u64..14, 0u32..3, devices, prop::bool::weighted(0.15)).prop_map(
        |((sockets, cores, threads), pages, io, devices, shared)| {
            let mut request = dedicated(sockets, cores, threads, pages * PAGE.bytes());
            request.memory.page_size = PAGE;
            request.io_threads = (1..=io).map(|id| io_thread(id, IoThreadPlace::Dedicated)).collect();
            request.devices = (0..)
                .zip(devices)
                .map(|(i, c): (u32, _)| DeviceRequest {
                    name: format!("dev{i}"),
                    candidates: c.into_iter().map(function).collect(),
                })
                .collect();
            if shared {
                request.cpu.policy = CpuPolicy::Shared;
            }
            request
        },
    )
}

/// Any world, with dedicated or shared CPUs.
pub(crate) fn world() -> impl Strategy<Value = World> {
    (machine(), occupancy(), request()).prop_map(|(machine, occupancy, request)| World {
        machine,
        occupancy,
        request,
    })
}

/// A world with dedicated CPUs and a guest of a size that often fits.
pub(crate) fn dedicated_world() -> impl Strategy<Value = World> {
    let small = (1u32..=2, 1u32..=3, 1u64..7, 0usize..2);
    (world(), small).prop_map(|(mut world, (sockets, cores, pages, keep))| {
        world.request.cpu.policy = CpuPolicy::Dedicated;
        let GuestTopology { threads, .. } = world.request.cpu.topology;
        world.request.cpu.topology = GuestTopology { sockets, cores, threads };
        world.request.memory.bytes = pages * PAGE.bytes();
        world.request.devices.truncate(keep);
        world
    })
}

/// The same, for a guest in a pod that was given some of the machine.
pub(crate) fn given_world() -> impl Strategy<Value = World> {
    let cpus = prop::collection::vec(prop::bool::weighted(0.7), 12);
    let nodes = prop::collection::vec(prop::bool::weighted(0.8), 4);
    (dedicated_world(), cpus, nodes).prop_map(|(mut world, cpus, nodes)| {
        let given = |given: Vec<bool>| (0u32..).zip(given).filter(|(_, g)| *g).map(|(id, _)| id);
        let within =
            Within { cpus: given(cpus).map(CpuId).collect(), memory: given(nodes).map(NodeId).collect() };
        world.request.within = Some(within);
        world
    })
}

/// Gives a node `cores` more free cores of `threads` CPUs, and `pages` more free pages.
pub(crate) fn grow(world: &mut World, node: NodeId, cores: u32, threads: u32, pages: u64) {
    let machine = &mut world.machine;
    let mut next = 1000 + machine.cpus.last().map_or(0, |c| c.id.0);
    for _ in 0..cores {
        let cpus: CpuSet = (next..next + threads).map(CpuId).collect();
        let core = pinion_machine::CoreId(next);
        machine.cpus.extend(cpus.iter().map(|id| pinion_machine::Cpu {
            id,
            core,
            node: Some(node),
            power: None,
        }));
        machine.cores.push(pinion_machine::Core {
            id: core,
            package: pinion_machine::PackageId(0),
            die: None,
            node: Some(node),
            l3: None,
            cpus: cpus.clone(),
        });
        if let Some(n) = machine.nodes.iter_mut().find(|n| n.id == node) {
            n.cpus.extend(cpus.iter());
        }
        next += threads;
    }
    let held = |reserved_only: bool| {
        let counted = |h: &&Holding| !reserved_only || h.state == HoldingState::Reserved;
        let memory = world.occupancy.holdings.iter().filter(counted).flat_map(|h| &h.memory);
        memory.filter(|m| m.node == node).map(|m| m.bytes / PAGE.bytes()).sum::<u64>()
    };
    let (promised, held) = (held(true), held(false));
    if let Some(n) = machine.nodes.iter_mut().find(|n| n.id == node).filter(|_| pages > 0) {
        n.memory_bytes = n.memory_bytes.max(1);
        let pool = n.huge_pages.first().copied();
        let pool = pool.unwrap_or(HugePagePool { page_size: PAGE, total: 0, free: 0 });
        let free = pool.free.saturating_sub(promised).min(pool.total.saturating_sub(held)) + pages;
        n.huge_pages = vec![HugePagePool { page_size: PAGE, total: free + held, free: free + promised }];
    }
}
