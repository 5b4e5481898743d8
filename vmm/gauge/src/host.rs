//! The same measurement by a thread of the host.

use std::sync::atomic::{AtomicBool, Ordering};

use crate::guest::{Written, tsc};
use crate::record::{Gap, LONG_GAP_CYCLES, LONGEST_LOG};

/// Measures until it is stopped. Everything is allocated, and touched, before it begins.
pub(crate) fn run(threshold: u32, stop: &AtomicBool, begun: impl FnOnce()) -> Written {
    let mut counts = vec![0u64; LONG_GAP_CYCLES];
    let mut gaps = vec![Gap { end_tsc: 0, cycles: 0 }; LONGEST_LOG];
    let (mut logged, mut dropped) = (0usize, 0u64);
    // Zeroed memory is not there until it is written.
    counts.iter_mut().for_each(|count| *count = std::hint::black_box(0));
    begun();
    let mut last = tsc();
    while !stop.load(Ordering::Relaxed) {
        let now = tsc();
        let cycles = now.wrapping_sub(last);
        last = now;
        let short = usize::try_from(cycles).ok().filter(|c| *c < threshold as usize);
        if let Some(count) = short.and_then(|c| counts.get_mut(c)) {
            *count += 1;
        } else if let Some(gap) = gaps.get_mut(logged) {
            *gap = Gap { end_tsc: now, cycles };
            logged += 1;
        } else {
            dropped += 1;
        }
    }
    gaps.truncate(logged);
    Written { counts, gaps, dropped }
}
