//! Reads back from `/proc` where the threads and pages of a guest are.
//!
//! Called by the auditor, on the launcher's main thread, and by whoever audits a
//! guest from outside. It must never change anything.

use std::collections::BTreeMap;
use std::fs;
use std::io;

use pinion_machine::{CpuId, CpuSet};
use procfs::process::{Process, Task};
use procfs::{ProcError, ProcResult};

use super::census::{Census, CensusError, Mappings, Range};
use super::document::{Role, Scheduling, ThreadFacts};

/// What there is to look at: the guest's process and what lives in it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Subjects {
    /// The process.
    pub pid: i32,
    /// vCPU and I/O threads by their ids. Every other thread found is an emulator thread.
    pub threads: Vec<(Role, i32)>,
    /// Where the cells' memory lies.
    pub cells: Vec<(u32, Vec<Range>)>,
}

/// What was read.
#[derive(Clone, Debug)]
pub struct Observation {
    /// Threads in the order of [`Subjects::threads`], then emulator threads by id. `None`: it is gone.
    pub threads: Vec<(Role, i32, Option<ThreadFacts>)>,
    /// Why the threads could not be read, where they could not.
    pub threads_unreadable: Option<String>,
}

/// Pages of the cells.
#[derive(Clone, Debug)]
pub struct MemoryObservation {
    /// Counted pages of each cell.
    pub cells: BTreeMap<u32, Result<Census, String>>,
    /// Bytes of ordinary memory that cannot be swapped out (`VmLck`).
    pub locked_bytes: Option<u64>,
}

/// Reads the threads.
#[must_use]
pub fn observe_threads(subjects: &Subjects) -> Observation {
    match try_observe_threads(subjects) {
        Ok(threads) => Observation { threads, threads_unreadable: None },
        Err(e) => Observation {
            threads: Vec::new(),
            threads_unreadable: Some(format!("Cannot read /proc/{}/task: {e}", subjects.pid)),
        },
    }
}

fn try_observe_threads(subjects: &Subjects) -> ProcResult<Vec<(Role, i32, Option<ThreadFacts>)>> {
    let process = Process::new(subjects.pid)?;
    let mut found = BTreeMap::new();
    for task in process.tasks()? {
        // A thread that ends while it is read is not there.
        let Ok(task) = task else { continue };
        let known = subjects.threads.iter().find(|(_, tid)| *tid == task.tid);
        let role = known.map_or(Role::Emulator, |(role, _)| *role);
        match read_thread(role, &task) {
            Ok(facts) => found.insert(task.tid, facts),
            Err(error) if is_gone(&error) => continue,
            Err(error) => return Err(error),
        };
    }
    let mut threads: Vec<_> =
        subjects.threads.iter().map(|&(role, tid)| (role, tid, found.remove(&tid))).collect();
    threads.extend(found.into_iter().map(|(tid, facts)| (Role::Emulator, tid, Some(facts))));
    Ok(threads)
}

fn is_gone(error: &ProcError) -> bool {
    match error {
        ProcError::NotFound(_) => true,
        // ESRCH: the thread ended between open and read.
        ProcError::Io(e, _) => e.raw_os_error() == Some(nix::libc::ESRCH),
        _ => false,
    }
}

fn read_thread(role: Role, task: &Task) -> ProcResult<ThreadFacts> {
    let stat = task.stat()?;
    let status = task.status()?;
    let missing = |what: &str| ProcError::Other(format!("The kernel does not tell a thread's {what}"));
    let allowed = status.cpus_allowed_list.ok_or_else(|| missing("allowed CPUs"))?;
    let last_cpu = stat.processor.and_then(|c| u32::try_from(c).ok()).ok_or_else(|| missing("last CPU"))?;
    // Absent where the kernel is built without scheduler statistics.
    let schedstat = task.schedstat().ok();
    Ok(ThreadFacts {
        role,
        name: stat.comm,
        tid: task.tid,
        allowed_cpus: allowed.iter().flat_map(|&(a, b)| a..=b).map(CpuId).collect::<CpuSet>(),
        last_cpu: CpuId(last_cpu),
        scheduling: Scheduling {
            policy: stat.policy.ok_or_else(|| missing("scheduling class"))?,
            priority: stat.rt_priority.unwrap_or(0),
        },
        run_delay_ns: schedstat.as_ref().map(|s| s.run_delay),
        run_time_ns: schedstat.as_ref().map(|s| s.sum_exec_runtime),
        involuntary_switches: status.nonvoluntary_ctxt_switches,
        runnable: stat.state == 'R',
    })
}

/// Counts the cells' pages. The kernel walks the guest's page tables for it: about a
/// millisecond for each GiB of 4 KiB pages, next to nothing with huge pages.
#[must_use]
pub fn observe_memory(subjects: &Subjects) -> MemoryObservation {
    let locked_bytes = Process::new(subjects.pid)
        .and_then(|p| p.status())
        .ok()
        .and_then(|s| s.vmlck)
        .and_then(|kib| kib.checked_mul(1024));
    let mappings = read_mappings(subjects.pid);
    let count = |ranges: &[Range]| match &mappings {
        Ok(mappings) => mappings.count(ranges).map_err(|e| e.to_string()),
        Err(e) => Err(e.clone()),
    };
    let cells = subjects.cells.iter().map(|(cell, ranges)| (*cell, count(ranges))).collect();
    MemoryObservation { cells, locked_bytes }
}

fn read_mappings(pid: i32) -> Result<Mappings, String> {
    let read = |name: &str| {
        let path = format!("/proc/{pid}/{name}");
        fs::read_to_string(&path).map_err(|e| (e.kind(), format!("Cannot read {path}: {e}")))
    };
    let maps = read("maps").map_err(|(_, text)| text)?;
    let numa_maps = read("numa_maps").map_err(|(kind, text)| match kind {
        io::ErrorKind::NotFound => CensusError::NoNuma.to_string(),
        _ => text,
    })?;
    Ok(Mappings::parse(&maps, &numa_maps))
}

#[cfg(test)]
mod tests {
    use std::process;

    use super::*;

    fn myself() -> Subjects {
        let pid = i32::try_from(process::id()).unwrap();
        Subjects { pid, threads: vec![(Role::Vcpu(0), pid)], cells: vec![] }
    }

    #[test]
    fn threads_of_this_process_are_read_and_others_count_as_emulator() {
        let observation = observe_threads(&myself());
        assert_eq!(observation.threads_unreadable, None);
        let (role, tid, facts) = &observation.threads[0];
        assert_eq!((*role, *tid), (Role::Vcpu(0), myself().pid));
        assert!(!facts.as_ref().unwrap().allowed_cpus.is_empty());
        // The test runs in a thread that is not the main one.
        assert!(observation.threads[1..].iter().any(|(role, ..)| *role == Role::Emulator));
    }

    #[test]
    fn a_thread_that_is_gone_is_reported_gone() {
        let subjects = Subjects { threads: vec![(Role::IoThread(1), i32::MAX)], ..myself() };
        assert!(matches!(observe_threads(&subjects).threads[0], (Role::IoThread(1), i32::MAX, None)));
    }

    #[test]
    fn a_process_that_is_gone_is_unreadable() {
        let subjects = Subjects { pid: i32::MAX, ..myself() };
        assert!(observe_threads(&subjects).threads_unreadable.unwrap().contains("/proc/2147483647/task"));
        let subjects = Subjects { cells: vec![(0, vec![])], ..subjects };
        assert!(observe_memory(&subjects).cells[&0].is_err());
    }
}
