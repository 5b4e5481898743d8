//! Machines and guests for the benchmarks of `benches/`.
//!
//! Each benchmark is a target of its own under `benches/benches`; run one with
//! `cargo bench -p pinion-benches --bench planner`.

#![forbid(unsafe_code)]

pub mod side_by_side;

use pinion_machine::{CpuId, Machine, PageSize};
use pinion_planner::{
    CpuPolicy, CpuRequest, GuestTopology, HoldingState, MemoryRequest, NumaPolicy, Occupancy, Request, Shape,
    plan,
};

/// 64 nodes of 256 cores of two threads, L3 domains of 8 cores, in blocks of 8 nodes.
#[must_use]
pub fn large_machine() -> Machine {
    Shape::new(64, 256).threads(2).l3_cores(8).blocks(8, 12, 32).huge_pages(PageSize::MIB2, 1 << 16).build()
}

/// 8 nodes with 512 CPUs in all: 32 cores of two threads each, L3 domains of 8 cores.
#[must_use]
pub fn dense_machine() -> Machine {
    Shape::new(8, 32).threads(2).l3_cores(8).blocks(4, 12, 32).huge_pages(PageSize::MIB2, 1 << 16).build()
}

/// 8 nodes with 512 CPUs each.
#[must_use]
pub fn wide_machine() -> Machine {
    Shape::new(8, 256).threads(2).l3_cores(8).blocks(4, 12, 32).huge_pages(PageSize::MIB2, 1 << 16).build()
}

/// 34 nodes of which two have CPUs: 72 cores each.
#[must_use]
pub fn accelerator_machine() -> Machine {
    let memory_only: Vec<u32> = (2..34).collect();
    Shape::new(34, 72).threads(2).without_cpus(&memory_only).huge_pages(PageSize::MIB2, 1 << 16).build()
}

/// 64 equally distant nodes of 8 cores, and a ledger that leaves a different few of them
/// free on each: the case with the most choices that cannot be told apart.
#[must_use]
pub fn ragged_machine() -> (Machine, Occupancy) {
    let machine = Shape::new(64, 8).threads(2).l3_cores(4).huge_pages(PageSize::MIB2, 1 << 16).build();
    let mut occupancy = filled(&machine, 0);
    let held = |core: u32| core.wrapping_mul(2_654_435_761) >> 7;
    let taken =
        machine.cores.iter().filter(|c| c.id.0 > 0 && held(c.id.0) % 5 < 2 + c.node.map_or(0, |n| n.0) % 2);
    occupancy.holdings.push(pinion_planner::Holding {
        owner: "bench/other".to_owned(),
        state: HoldingState::Committed,
        cpus: taken.flat_map(|c| c.cpus.iter()).collect(),
        floating: Vec::new(),
        memory: Vec::new(),
        devices: Vec::new(),
    });
    (machine, occupancy)
}

/// A guest with dedicated CPUs, two threads per core, on 2 MiB pages.
#[must_use]
pub fn guest(name: &str, cores: u32, mebibytes: u64) -> Request {
    Request {
        name: name.to_owned(),
        cpu: CpuRequest {
            topology: GuestTopology { sockets: 1, cores, threads: 2 },
            policy: CpuPolicy::Dedicated,
            realtime: Vec::new(),
        },
        memory: MemoryRequest { bytes: mebibytes << 20, page_size: PageSize::MIB2 },
        numa: NumaPolicy::Auto,
        io_threads: Vec::new(),
        devices: Vec::new(),
        within: None,
    }
}

/// A machine's ledger after `guests` guests of 2 to 5 cores were placed one after another,
/// those that fit.
#[must_use]
pub fn filled(machine: &Machine, guests: u32) -> Occupancy {
    let housekeeping = [CpuId(0)].into_iter().collect();
    let mut occupancy = Occupancy { generation: 0, housekeeping, holdings: Vec::new() };
    for number in 0..guests {
        let request = guest(&format!("bench/{number}"), 2 + number * 7 % 4, 4096);
        if let Ok(placed) = plan(machine, &occupancy, &request) {
            occupancy.holdings.push(placed.holding(HoldingState::Reserved));
            occupancy.generation += 1;
        }
    }
    occupancy
}
