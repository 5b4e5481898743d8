//! How long one plan takes. The limits are in `docs/SPECIFICATION.md`.

use std::hint::black_box;
use std::time::{Duration, Instant};

use pinion_benches::{
    accelerator_machine, dense_machine, filled, guest, large_machine, ragged_machine, wide_machine,
};
use pinion_machine::Machine;
use pinion_planner::{Occupancy, Request, plan};

/// How long each case is measured; `cargo test` only runs each once.
const BUDGET: Duration = Duration::from_secs(2);

fn main() {
    let large = large_machine();
    let part_full = filled(&large, 400);
    let dense = dense_machine();
    let sixty = filled(&dense, 60);
    let accelerators = accelerator_machine();
    let free = Occupancy::default();
    let measure = |name: &str, machine: &Machine, occupancy: &Occupancy, request: &Request| {
        let taken = if plan(machine, occupancy, request).is_ok() { "placed" } else { "refused" };
        let (median, high) =
            times(|| plan(black_box(machine), black_box(occupancy), black_box(request)).is_ok());
        println!("planner/{name:<44} {taken:<8} median {median:>10.1?}   99 % {high:>10.1?}");
    };
    println!("64 nodes x 256 cores x 2 threads (limit 1 ms)");
    measure("large/idle/4-cores", &large, &free, &guest("t/a", 4, 4096));
    measure("large/idle/1000-cores", &large, &free, &guest("t/a", 1000, 65536));
    measure("large/400-guests/4-cores", &large, &part_full, &guest("t/a", 4, 4096));
    measure("large/400-guests/1000-cores", &large, &part_full, &guest("t/a", 1000, 65536));
    measure("large/400-guests/refused", &large, &part_full, &guest("t/a", 20_000, 65536));
    println!("8 nodes x 32 cores x 2 threads, {} guests placed (limit 200 us)", sixty.holdings.len());
    measure("dense/60-guests/2-cores", &dense, &sixty, &guest("t/a", 2, 4096));
    measure("dense/60-guests/12-cores", &dense, &sixty, &guest("t/a", 12, 8192));
    measure("dense/60-guests/refused", &dense, &sixty, &guest("t/a", 200, 8192));
    let wide = wide_machine();
    let wide_sixty = filled(&wide, 60);
    println!("8 nodes x 256 cores x 2 threads, {} guests placed (limit 200 us)", wide_sixty.holdings.len());
    measure("wide/60-guests/8-cores", &wide, &wide_sixty, &guest("t/a", 8, 4096));
    measure("wide/60-guests/600-cores", &wide, &wide_sixty, &guest("t/a", 600, 8192));
    let (ragged, unequal) = ragged_machine();
    println!("64 equally distant nodes, each with other cores free");
    measure("ragged/4-cores", &ragged, &unequal, &guest("t/a", 4, 4096));
    measure("ragged/20-cores", &ragged, &unequal, &guest("t/a", 20, 4096));
    measure("ragged/100-cores", &ragged, &unequal, &guest("t/a", 100, 4096));
    println!("34 nodes, 2 with CPUs");
    measure("accelerators/idle/100-cores", &accelerators, &free, &guest("t/a", 100, 8192));
}

/// Median and 99th percentile of the run times of `f`.
fn times(mut f: impl FnMut() -> bool) -> (Duration, Duration) {
    let measured = std::env::args().any(|a| a == "--bench");
    let until = Instant::now() + if measured { BUDGET } else { Duration::ZERO };
    let mut times = Vec::new();
    while times.is_empty() || Instant::now() < until {
        let start = Instant::now();
        black_box(f());
        times.push(start.elapsed());
    }
    times.sort_unstable();
    let at = |part: usize| times.get(times.len() * part / 100).copied().unwrap_or_default();
    (at(50), at(99))
}
