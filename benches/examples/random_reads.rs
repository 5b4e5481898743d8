//! Reads a device as a database does: 4 KiB at random places, one after the other, past the page cache.
//!
//! `random_reads DEVICE COUNT` prints `FIRST` once it has read for the first time, and in the end `READS` with the microseconds
//! of the median and of the 99th percentile read. Runs in the guests of the benchmark `passthrough`.

#![forbid(unsafe_code)]
#![expect(clippy::unwrap_used, reason = "a benchmark ends at the first thing that is wrong")]

use std::fs::OpenOptions;
use std::os::unix::fs::{FileExt, OpenOptionsExt};
use std::time::Instant;

const BLOCK: usize = 4096;
/// `O_DIRECT` of Linux on x86-64.
const DIRECT: i32 = 0o40000;
const DEVICE_BYTES: u64 = 64 << 20;

fn main() {
    let mut words = std::env::args().skip(1);
    let device = words.next().unwrap();
    let count: usize = words.next().unwrap().parse().unwrap();
    let file = OpenOptions::new().read(true).custom_flags(DIRECT).open(device).unwrap();
    // What is read directly must be aligned in memory too.
    let mut buffer = vec![0u8; 2 * BLOCK];
    let start = buffer.as_ptr().align_offset(BLOCK);
    let block = buffer.get_mut(start..start + BLOCK).unwrap();
    let (mut state, mut times) = (0x9e37_79b9_7f4a_7c15u64, Vec::with_capacity(count));
    for n in 0..count {
        // xorshift64
        state ^= state << 13;
        state ^= state >> 7;
        state ^= state << 17;
        let at = state % (DEVICE_BYTES / BLOCK as u64) * BLOCK as u64;
        let before = Instant::now();
        file.read_exact_at(block, at).unwrap();
        times.push(before.elapsed().as_micros());
        if n == 0 {
            println!("FIRST");
        }
    }
    times.sort_unstable();
    let at = |per_mille: usize| times.get(count * per_mille / 1000).copied().unwrap_or(0);
    println!("READS {} {}", at(500), at(990));
}
