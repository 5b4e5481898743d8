//! What else runs while CPUs are measured: threads on all other CPUs.

use std::hint::black_box;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread::{self, JoinHandle};

use clap::ValueEnum;
use nix::sched::sched_setaffinity;
use nix::unistd::Pid;
use pinion_machine::CpuSet;

/// Bytes that each thread copies, twice: more than its share of any cache.
const BYTES: usize = 16 << 20;

/// A load.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub(crate) enum Load {
    /// Nothing
    None,
    /// A thread that computes on each other CPU
    Cpu,
    /// A thread that copies memory on each other CPU
    Memory,
}

/// A load that runs; dropping it ends it.
#[derive(Debug)]
pub(super) struct Running {
    stop: Arc<AtomicBool>,
    threads: Vec<JoinHandle<()>>,
}

impl Load {
    /// Starts it on CPUs.
    pub(super) fn start(self, cpus: &CpuSet) -> Running {
        let stop = Arc::new(AtomicBool::new(false));
        let mut threads = Vec::new();
        if self != Self::None {
            for cpu in cpus.iter() {
                let stop = Arc::clone(&stop);
                let name = format!("load {cpu}");
                let body = move || {
                    if let (Ok(cpu), mut set) = (usize::try_from(cpu.0), nix::sched::CpuSet::new()) {
                        // Where it may not go there, it runs where it is.
                        let _ = set.set(cpu).and_then(|()| sched_setaffinity(Pid::from_raw(0), &set));
                    }
                    self.work(&stop);
                };
                // With a thread less, the load is smaller; the result is no worse for it.
                threads.extend(thread::Builder::new().name(name).spawn(body));
            }
        }
        Running { stop, threads }
    }

    fn work(self, stop: &AtomicBool) {
        let bytes = if self == Self::Memory { BYTES } else { 0 };
        let (from, mut to) = (vec![1u8; bytes], vec![0u8; bytes]);
        let mut n = 0u64;
        while !stop.load(Ordering::Relaxed) {
            if self == Self::Memory {
                to.copy_from_slice(&from);
                black_box(&to);
            } else {
                for _ in 0..10_000 {
                    n = black_box(n.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1));
                }
            }
        }
    }
}

impl Drop for Running {
    fn drop(&mut self) {
        self.stop.store(true, Ordering::Relaxed);
        for thread in self.threads.drain(..) {
            // It only computes: nothing is lost with it.
            let _ = thread.join();
        }
    }
}
