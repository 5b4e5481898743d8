//! Putting threads back where they belong: of this process, or of one that this may change.

use std::io;

use pinion_machine::CpuSet;

use crate::certificate::{Repair, Scheduling};
use crate::guest::numbers;

/// By the kernel's own calls, thread by thread.
#[derive(Clone, Copy, Debug, Default)]
pub struct SetThreads;

impl Repair for SetThreads {
    fn set_cpus(&self, tid: i32, cpus: &CpuSet) -> io::Result<()> {
        vmm_host::set_affinity(tid, &numbers(cpus)).map_err(io::Error::other)
    }

    fn set_scheduling(&self, tid: i32, scheduling: Scheduling) -> io::Result<()> {
        if scheduling == Scheduling::OTHER {
            return vmm_host::set_ordinary(tid).map_err(io::Error::other);
        }
        let priority = i32::try_from(scheduling.priority).unwrap_or(1);
        vmm_host::set_fifo(tid, priority).map_err(io::Error::other)
    }
}
