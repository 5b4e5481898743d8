//! Putting QEMU's threads back.

use std::fs;
use std::io;
use std::path::PathBuf;

use pinion_launcher::SetThreads;
use pinion_launcher::certificate::{Repair, Scheduling};
use pinion_machine::CpuSet;

/// By the kernel's own calls. A worker that a vCPU's thread starts, as QEMU does now and then, is born in that thread's
/// control group, which keeps it from where it belongs: it goes to the emulator's first.
#[derive(Debug)]
pub(crate) struct Threads {
    /// The emulator's group and CPUs.
    pub(crate) group: Option<PathBuf>,
    pub(crate) emulator: CpuSet,
}

impl Repair for Threads {
    fn set_cpus(&self, tid: i32, cpus: &CpuSet) -> io::Result<()> {
        let set = SetThreads.set_cpus(tid, cpus);
        match &self.group {
            Some(group) if set.is_err() && *cpus == self.emulator => {
                fs::write(group.join("cgroup.threads"), tid.to_string())?;
                SetThreads.set_cpus(tid, cpus)
            }
            _ => set,
        }
    }

    fn set_scheduling(&self, tid: i32, scheduling: Scheduling) -> io::Result<()> {
        SetThreads.set_scheduling(tid, scheduling)
    }
}
