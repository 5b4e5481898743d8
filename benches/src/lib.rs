//! Machines and guests for the benchmarks of `benches/`.
//!
//! Each benchmark is a target of its own under `benches/benches`; run one with
//! `cargo bench -p pinion-benches --bench planner`.

#![forbid(unsafe_code)]

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
