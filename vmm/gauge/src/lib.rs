//! What a CPU really gives: a bare-metal guest of ours (no operating system, one vCPU), or a host thread, reads the
//! time-stamp counter as fast as it can and records every gap between two readings.
//!
//! Called by `pinion qualify`. Owns one thread for each CPU, which sleeps between two runs. Nothing is sampled and
//! nothing rounded: each gap is either counted by its length in cycles, or kept with the time it ended at. It must never
//! allocate or print while it measures.

#![cfg(target_arch = "x86_64")]

mod guest;
mod host;
mod record;
mod thread;

pub use record::{Gap, LONG_GAP_CYCLES, Record};
pub use thread::{Gauge, GaugeError, Subject};
