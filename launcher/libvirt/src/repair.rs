//! Putting QEMU's threads back.

use std::fs;
use std::io;
use std::path::PathBuf;
use std::sync::Arc;

use pinion_launcher::SetThreads;
use pinion_launcher::backend::ThreadGroups;
use pinion_launcher::certificate::{Repair, Scheduling};
use pinion_machine::CpuSet;

/// By the kernel's own calls. A worker that a vCPU's thread starts, as QEMU does now and then, is born in that thread's
/// control group, which keeps it from where it belongs: it goes to the emulator's first.
#[derive(Debug)]
pub(crate) struct Threads {
    pub(crate) home: Home,
    pub(crate) emulator: CpuSet,
}

/// The control group of the emulator's threads.
#[derive(Debug)]
pub(crate) enum Home {
    /// libvirt's, which this process may use; none where the host has no single tree of groups.
    Own(Option<PathBuf>),
    /// Of a container: somebody else sees to it.
    Kept(Arc<dyn ThreadGroups>),
}

impl Threads {
    fn bring_home(&self, tid: i32) -> io::Result<()> {
        match &self.home {
            Home::Own(Some(group)) => fs::write(group.join("cgroup.threads"), tid.to_string()),
            Home::Own(None) => Ok(()),
            Home::Kept(groups) => groups.sort(),
        }
    }
}

impl Repair for Threads {
    fn set_cpus(&self, tid: i32, cpus: &CpuSet) -> io::Result<()> {
        let set = SetThreads.set_cpus(tid, cpus);
        if set.is_ok() || *cpus != self.emulator {
            return set;
        }
        self.bring_home(tid)?;
        SetThreads.set_cpus(tid, cpus)
    }

    fn set_scheduling(&self, tid: i32, scheduling: Scheduling) -> io::Result<()> {
        SetThreads.set_scheduling(tid, scheduling)
    }
}
