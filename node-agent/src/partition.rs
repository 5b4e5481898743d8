//! CPUs that are a guest's alone: a cpuset partition of control groups, version 2.
//!
//! Called by the keeper, under the ledger's lock, once a guest's threads are on their CPUs, and to take away what
//! guests that are gone have left. What there is, is read from the kernel each time: a folder's name says whose it is.
//! It must never touch a control group of others.

use std::collections::BTreeMap;
use std::fmt;
use std::fs;
use std::io::{self, Write};
use std::path::{Path, PathBuf};

use pinion_machine::CpuSet;
use serde::{Deserialize, Serialize};

/// What the names of our control groups begin with.
const PREFIX: &str = "pinion.";

/// How far a guest's CPUs are its own. Ordered from best to worst.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub enum Isolation {
    /// No other task may run there, and the scheduler balances nothing onto them.
    Isolated,
    /// No other task may run there.
    Exclusive,
    /// Its threads may run nowhere else, but others may run there.
    Pinned,
}

impl Isolation {
    /// All of them, from best to worst.
    pub const ALL: [Self; 3] = [Self::Isolated, Self::Exclusive, Self::Pinned];

    /// As JSON and metric labels write it.
    #[must_use]
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Isolated => "isolated",
            Self::Exclusive => "exclusive",
            Self::Pinned => "pinned",
        }
    }
}

impl fmt::Display for Isolation {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.as_str())
    }
}

/// Why a guest's CPUs are not its own.
#[derive(Debug, thiserror::Error)]
pub enum PartitionError {
    /// No control groups of version 2, or none with CPUs.
    #[error(
        "this host has no control groups of version 2 with CPUs: boot with systemd.unified_cgroup_hierarchy=1, and \
         without cgroup_disable=cpuset"
    )]
    Absent,
    /// A file of a control group cannot be written.
    #[error("Cannot write {text:?} to {path:?}")]
    Write {
        /// The file.
        path: PathBuf,
        /// What should be in it.
        text: String,
        /// From the kernel.
        source: io::Error,
    },
    /// Its threads are not where they were pinned to: the kernel forgets that whenever a partition comes or goes.
    #[error("none of its threads is pinned to CPUs {0}: they were moved, and must be pinned again first")]
    Moved(CpuSet),
    /// A container may not use the CPUs that its other threads belong on.
    #[error(
        "the groups above {path:?} keep it from the housekeeping CPUs {cpus}: let them use these, or name others in the \
         node's profile"
    )]
    OutOfReach {
        /// What its group may use.
        path: PathBuf,
        /// CPUs that are not among it.
        cpus: CpuSet,
    },
    /// The kernel made no partition of it.
    #[error(
        "the kernel says {found:?} of {path:?}: another partition has these CPUs, or a group needs them all"
    )]
    Refused {
        /// The control group.
        path: PathBuf,
        /// `cpuset.cpus.partition`.
        found: String,
    },
}

/// The control groups of a host.
#[derive(Clone, Debug)]
pub(crate) struct Partitions {
    root: PathBuf,
    proc: PathBuf,
}

impl Partitions {
    pub(crate) fn below(cgroups: PathBuf, proc: PathBuf) -> Self {
        Self { root: cgroups, proc }
    }

    /// Whether this host can have any.
    pub(crate) fn are_possible(&self) -> bool {
        let controllers = fs::read_to_string(self.root.join("cgroup.controllers")).unwrap_or_default();
        controllers.split_whitespace().any(|c| c == "cpuset")
    }

    /// Whether there are any now.
    pub(crate) fn exist(&self) -> bool {
        !self.folders().is_empty()
    }

    fn folders(&self) -> Vec<(i32, PathBuf)> {
        let entries = fs::read_dir(&self.root).into_iter().flatten().flatten();
        let of = |e: fs::DirEntry| {
            let name = e.file_name().into_string().ok()?;
            let pid = name.strip_prefix(PREFIX)?.split('.').next()?.parse().ok()?;
            Some((pid, e.path()))
        };
        let mut folders: Vec<_> = entries.filter_map(of).collect();
        folders.sort();
        folders
    }

    fn folder(&self, pid: i32) -> PathBuf {
        self.root.join(format!("{PREFIX}{pid}"))
    }

    /// Whether a process was given a group.
    pub(crate) fn has(&self, pid: i32) -> bool {
        self.folder(pid).is_dir()
    }

    /// The files that others could undo a partition by.
    pub(crate) fn files(&self, pid: i32) -> Vec<PathBuf> {
        let folder = self.folder(pid);
        ["cpuset.cpus.partition", "cpuset.cpus"].map(|name| folder.join(name)).to_vec()
    }

    /// How far the CPUs of a process are its own now.
    pub(crate) fn isolation(&self, pid: i32) -> Isolation {
        let state = fs::read_to_string(self.folder(pid).join("cpuset.cpus.partition")).unwrap_or_default();
        match state.trim() {
            "isolated" => Isolation::Isolated,
            "root" => Isolation::Exclusive,
            _ => Isolation::Pinned,
        }
    }

    /// Makes the CPUs that a process's threads are pinned to its own. Threads on housekeeping CPUs get groups too:
    /// kernels before 6.2 forget what a thread had set for itself whenever a partition comes or goes.
    ///
    /// The order matters:
    /// 1. CPUs that no thread is pinned to end it here, with nothing changed: once they are a partition, no thread from
    ///    outside could be.
    /// 2. The process goes where threads of one process may be in several groups: the root.
    /// 3. Threads go by the CPUs they may run on: a group for each, which keeps them there from now on whatever anybody
    ///    sets. Nothing changes for them yet.
    /// 4. Only then do the CPUs become a partition: the kernel moves every other task off them, but no thread that is in.
    pub(crate) fn make(
        &self,
        pid: i32,
        cpus: &CpuSet,
        housekeeping: &CpuSet,
    ) -> Result<Isolation, PartitionError> {
        if !self.are_possible() {
            return Err(PartitionError::Absent);
        }
        let folder = self.folder(pid);
        let threads = threads(&self.proc, pid);
        let pinned = threads.keys().filter(|allowed| allowed.is_subset(cpus));
        let bare = pinned.fold(cpus.clone(), |bare, allowed| bare.difference(allowed));
        if !bare.is_empty() {
            return Err(PartitionError::Moved(bare));
        }
        self.to_root(pid)?;
        group_with(&folder, cpus)?;
        write(&folder.join("cgroup.subtree_control"), "+cpuset")?;
        for (allowed, tids) in &threads {
            let own = if allowed.is_subset(cpus) {
                folder.join(format!("cpus-{allowed}"))
            } else if allowed.is_subset(housekeeping) {
                self.root.join(format!("{PREFIX}{pid}.cpus-{allowed}"))
            } else {
                // A group of theirs would stand in the way of the next guest's partition.
                continue;
            };
            group_with(&own, allowed)?;
            for tid in tids {
                match write(&own.join("cgroup.threads"), &tid.to_string()) {
                    // It ended meanwhile.
                    Err(_) if !self.proc.join(format!("{pid}/task/{tid}")).exists() => {}
                    done => done?,
                }
            }
        }
        let state = folder.join("cpuset.cpus.partition");
        // Kernels before 6.1 know no `isolated`.
        write(&state, "isolated").or_else(|_| write(&state, "root"))?;
        match self.isolation(pid) {
            Isolation::Pinned => {
                let found = fs::read_to_string(&state).unwrap_or_default().trim().to_owned();
                Err(PartitionError::Refused { path: folder, found })
            }
            made => Ok(made),
        }
    }

    /// Takes away those of processes that are gone; true once none of them is left.
    pub(crate) fn sweep(&self, alive: &[i32]) -> bool {
        let mut clean = true;
        for (pid, folder) in self.folders() {
            if alive.contains(&pid) {
                continue;
            }
            // First the CPUs go back to all: the folder may have to wait for a thread that has not quite ended.
            let state = folder.join("cpuset.cpus.partition");
            if fs::read_to_string(&state).is_ok_and(|s| s.trim() != "member") {
                let _ = write(&state, "member");
            }
            let children = fs::read_dir(&folder).into_iter().flatten().flatten();
            for child in children.filter(|c| c.file_type().is_ok_and(|t| t.is_dir())) {
                let _ = fs::remove_dir(child.path());
            }
            clean &= fs::remove_dir(&folder).is_ok();
        }
        clean
    }

    fn to_root(&self, pid: i32) -> Result<(), PartitionError> {
        let groups = fs::read_to_string(self.proc.join(format!("{pid}/cgroup"))).unwrap_or_default();
        if groups.lines().any(|l| l == "0::/") {
            return Ok(());
        }
        write(&self.root.join("cgroup.procs"), &pid.to_string())
    }
}

/// A process's threads by the CPUs they may run on.
pub(crate) fn threads(proc: &Path, pid: i32) -> BTreeMap<CpuSet, Vec<i32>> {
    let mut threads: BTreeMap<CpuSet, Vec<i32>> = BTreeMap::new();
    let tasks = fs::read_dir(proc.join(pid.to_string()).join("task")).into_iter().flatten().flatten();
    for task in tasks {
        let status = fs::read_to_string(task.path().join("status")).unwrap_or_default();
        let allowed = status.lines().find_map(|l| l.strip_prefix("Cpus_allowed_list:"));
        let tid = task.file_name().to_str().and_then(|n| n.parse().ok());
        if let (Some(Ok(allowed)), Some(tid)) = (allowed.map(|l| l.trim().parse()), tid) {
            threads.entry(allowed).or_default().push(tid);
        }
    }
    threads
}

/// A group for threads, with CPUs.
fn group_with(folder: &Path, cpus: &CpuSet) -> Result<(), PartitionError> {
    group(folder)?;
    write(&folder.join("cpuset.cpus"), &cpus.to_string())
}

/// A group for threads; its type can be set once.
pub(crate) fn group(folder: &Path) -> Result<(), PartitionError> {
    match fs::create_dir(folder) {
        Err(e) if e.kind() != io::ErrorKind::AlreadyExists => {
            return Err(PartitionError::Write { path: folder.to_owned(), text: String::new(), source: e });
        }
        _ => {}
    }
    write(&folder.join("cgroup.type"), "threaded")
}

pub(crate) fn write(path: &Path, text: &str) -> Result<(), PartitionError> {
    let failed = |source| PartitionError::Write { path: path.to_owned(), text: text.to_owned(), source };
    let mut file = fs::OpenOptions::new().write(true).open(path).map_err(failed)?;
    file.write_all(text.as_bytes()).map_err(failed)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_host_without_control_groups_says_what_to_boot_with() {
        let root = tempfile::tempdir().unwrap();
        let partitions = Partitions::below(root.path().join("cgroup"), root.path().join("proc"));
        let cpus = "2-3".parse().unwrap();
        let refused = partitions.make(7, &cpus, &CpuSet::new()).unwrap_err();
        assert!(matches!(refused, PartitionError::Absent));
        assert!(refused.to_string().contains("unified_cgroup_hierarchy"));
        assert_eq!(partitions.isolation(7), Isolation::Pinned);
        assert!(partitions.sweep(&[]));
    }

    #[test]
    fn a_group_that_cannot_be_made_names_its_file() {
        let root = tempfile::tempdir().unwrap();
        let (cgroups, proc) = (root.path().join("cgroup"), root.path().join("proc"));
        fs::create_dir_all(proc.join("7/task/7")).unwrap();
        fs::write(proc.join("7/task/7/status"), "Cpus_allowed_list:\t2\n").unwrap();
        fs::create_dir_all(&cgroups).unwrap();
        fs::write(proc.join("7/cgroup"), "0::/\n").unwrap();
        fs::write(cgroups.join("cgroup.controllers"), "cpuset cpu\n").unwrap();
        let partitions = Partitions::below(cgroups, proc);
        let refused = partitions.make(7, &"2".parse().unwrap(), &CpuSet::new()).unwrap_err();
        assert!(refused.to_string().contains("pinion.7/cgroup.type"), "{refused}");
    }

    #[test]
    fn cpus_that_no_thread_is_pinned_to_become_no_partition() {
        let root = tempfile::tempdir().unwrap();
        let (cgroups, proc) = (root.path().join("cgroup"), root.path().join("proc"));
        for (tid, allowed) in [("7", "0-1,6"), ("8", "2"), ("9", "0-1,6")] {
            let task = proc.join("7/task").join(tid);
            fs::create_dir_all(&task).unwrap();
            fs::write(task.join("status"), format!("Name:\tx\nCpus_allowed_list:\t{allowed}\n")).unwrap();
        }
        fs::create_dir_all(&cgroups).unwrap();
        fs::write(cgroups.join("cgroup.controllers"), "cpuset cpu\n").unwrap();
        let partitions = Partitions::below(cgroups, proc);
        let refused = partitions.make(7, &"2-3".parse().unwrap(), &"0-1".parse().unwrap()).unwrap_err();
        assert!(refused.to_string().contains("pinned to CPUs 3:"), "{refused}");
        assert!(!partitions.has(7));
    }

    #[test]
    fn only_our_own_groups_of_processes_that_are_gone_are_taken_away() {
        let root = tempfile::tempdir().unwrap();
        for name in ["pinion.7", "pinion.7.cpus-0-1", "pinion.8", "pinion.x", "system.slice", "pinion"] {
            fs::create_dir(root.path().join(name)).unwrap();
        }
        fs::create_dir(root.path().join("pinion.7/cpus-2")).unwrap();
        let partitions = Partitions::below(root.path().to_owned(), root.path().to_owned());
        assert!(partitions.sweep(&[8]));
        let mut left: Vec<_> = fs::read_dir(root.path())
            .unwrap()
            .map(|e| e.unwrap().file_name().into_string().unwrap())
            .collect();
        left.sort();
        assert_eq!(left, ["pinion", "pinion.8", "pinion.x", "system.slice"]);
    }

    #[test]
    fn a_partition_that_the_kernel_calls_invalid_is_none() {
        let root = tempfile::tempdir().unwrap();
        fs::create_dir(root.path().join("pinion.7")).unwrap();
        let partitions = Partitions::below(root.path().to_owned(), root.path().to_owned());
        for (text, isolation) in [
            ("isolated\n", Isolation::Isolated),
            ("root\n", Isolation::Exclusive),
            ("isolated invalid (Cpu list in cpuset.cpus not exclusive)\n", Isolation::Pinned),
            ("member\n", Isolation::Pinned),
        ] {
            fs::write(root.path().join("pinion.7/cpuset.cpus.partition"), text).unwrap();
            assert_eq!(partitions.isolation(7), isolation, "{text}");
        }
    }
}
