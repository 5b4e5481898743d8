//! The control groups of a guest's container, which are the kubelet's: made wide enough for the guest's other threads, and
//! divided among its threads.
//!
//! Called by the keeper, under the ledger's lock or when it looks every few seconds. The process stays in its container's
//! group, so that the kubelet counts and ends it as any other; the groups inside have CPUs only. They are taken away before
//! the process ends, or as soon as it is seen that it has: a container runtime does not take away groups that it does not
//! know of, and would try for minutes. It must never touch a group above the pod's.

use std::collections::{BTreeMap, BTreeSet};
use std::fs;
use std::path::{Path, PathBuf};

use pinion_machine::CpuSet;

use super::asker::PodPlace;
use crate::partition::{PartitionError, group, threads as threads_of, write};

/// What the names of our groups begin with.
const PREFIX: &str = "pinion.cpus-";
/// What the kubelet's groups begin with, whichever driver it has.
const KUBEPODS: &str = "kubepods";
/// How far below that a container's group is at most: a class of service, a pod, a container, and one to spare.
const DEEPEST: u32 = 4;
/// What a group may use of its CPUs when nothing limits it.
const NO_QUOTA: &str = "max";

/// The containers' groups of a host.
#[derive(Clone, Debug)]
pub(crate) struct Containers {
    cgroups: PathBuf,
    proc: PathBuf,
}

impl Containers {
    pub(crate) fn below(cgroups: PathBuf, proc: PathBuf) -> Self {
        Self { cgroups, proc }
    }

    /// The files that others could take CPUs away by.
    pub(crate) fn files(&self, place: &PodPlace) -> Vec<PathBuf> {
        let file = |group: &Path| self.cgroups.join(group).join("cpuset.cpus");
        levels(place).map(file).collect()
    }

    /// Lets a container that has CPUs of its own use the housekeeping CPUs too, and its CPUs all the time: a quota would
    /// stop a vCPU that has its CPU to itself. Whether there was something to do.
    ///
    /// The kubelet writes a container's CPUs again when it is started anew, or gives the container others.
    pub(crate) fn widen(&self, place: &PodPlace) -> Result<bool, PartitionError> {
        let mut changed = false;
        for group in levels(place) {
            let file = self.cgroups.join(group).join("cpuset.cpus");
            // A group that names none has those of the group above.
            if let Some(has) = cpus(&file).filter(|has| !has.is_empty())
                && !place.housekeeping.is_subset(&has)
            {
                write(&file, &has.union(&place.housekeeping).to_string())?;
                changed = true;
            }
        }
        for group in levels(place) {
            let file = self.cgroups.join(group).join("cpu.max");
            let quota = fs::read_to_string(&file).unwrap_or_default();
            if quota.split_whitespace().next().is_some_and(|q| q != NO_QUOTA) {
                write(&file, NO_QUOTA)?;
                changed = true;
            }
        }
        let path = self.cgroups.join(&place.group).join("cpuset.cpus.effective");
        let reached = cpus(&path).unwrap_or_default();
        let beyond = place.housekeeping.difference(&reached);
        if beyond.is_empty() { Ok(changed) } else { Err(PartitionError::OutOfReach { path, cpus: beyond }) }
    }

    /// Gives each set of CPUs that threads are pinned to a group of its own: from then on they stay there, whatever anybody
    /// sets, and whatever CPUs the container gets besides.
    ///
    /// 1. CPUs that no thread is pinned to end it here: the threads were moved, and must be pinned again first.
    /// 2. The groups are made, threaded; only then may the container's pass CPUs on to them, since it has processes.
    /// 3. Each thread goes to its group: those of the process, and of others in the container, such as QEMU.
    /// 4. A CPU of the guest's own is one thread's. What that has started since, as QEMU does, was born beside it, and goes to
    ///    the housekeeping CPUs.
    pub(crate) fn divide(&self, pid: i32, place: &PodPlace, own: &CpuSet) -> Result<(), PartitionError> {
        let folder = self.cgroups.join(&place.group);
        let mut threads: BTreeMap<CpuSet, Vec<i32>> = BTreeMap::new();
        for process in self.processes(&folder, pid) {
            for (cpus, mut tids) in threads_of(&self.proc, process) {
                threads.entry(cpus).or_default().append(&mut tids);
            }
        }
        let pinned = threads.keys().filter(|allowed| allowed.is_subset(own));
        let bare = pinned.fold(own.clone(), |bare, allowed| bare.difference(allowed));
        if !bare.is_empty() {
            return Err(PartitionError::Moved(bare));
        }
        let ours = |cpus: &&CpuSet| cpus.is_subset(own) || cpus.is_subset(&place.housekeeping);
        let sets: BTreeMap<&CpuSet, &Vec<i32>> = threads.iter().filter(|(cpus, _)| ours(cpus)).collect();
        for cpus in sets.keys() {
            group(&child(&folder, cpus))?;
        }
        write(&folder.join("cgroup.subtree_control"), "+cpuset")?;
        for (cpus, tids) in sets {
            let child = child(&folder, cpus);
            write(&child.join("cpuset.cpus"), &cpus.to_string())?;
            for tid in tids {
                self.bring(*tid, &child)?;
            }
        }
        self.bring_strays_home(place, own)
    }

    /// Brings a thread to a group; one that has ended meanwhile needs none.
    fn bring(&self, tid: i32, to: &Path) -> Result<(), PartitionError> {
        match write(&to.join("cgroup.threads"), &tid.to_string()) {
            // The kernel shows each thread so, though it lists processes alone.
            Err(_) if !self.proc.join(tid.to_string()).exists() => Ok(()),
            done => done,
        }
    }

    /// The processes of a container: a guest on QEMU has two.
    fn processes(&self, folder: &Path, pid: i32) -> BTreeSet<i32> {
        let listed = fs::read_to_string(folder.join("cgroup.procs")).unwrap_or_default();
        // Zero is a process that this one does not see.
        listed.lines().filter_map(|line| line.parse().ok()).filter(|pid| *pid > 0).chain([pid]).collect()
    }

    fn bring_strays_home(&self, place: &PodPlace, own: &CpuSet) -> Result<(), PartitionError> {
        let home = child(&self.cgroups.join(&place.group), &place.housekeeping);
        for (folder, cpus) in self.children(place) {
            if cpus.len() != 1 || !cpus.is_subset(own) {
                continue;
            }
            let listed = fs::read_to_string(folder.join("cgroup.threads")).unwrap_or_default();
            let mut tids: Vec<i32> = listed.lines().filter_map(|line| line.parse().ok()).collect();
            tids.sort_by_key(|tid| (started(&self.proc, *tid), *tid));
            for tid in tids.into_iter().skip(1) {
                self.bring(tid, &home)?;
            }
        }
        Ok(())
    }

    /// Gives groups inside that were changed their CPUs again. Whether there was something to do.
    pub(crate) fn restore(&self, place: &PodPlace) -> Result<bool, PartitionError> {
        let mut changed = false;
        for (folder, wanted) in self.children(place) {
            let file = folder.join("cpuset.cpus");
            if cpus(&file).as_ref() != Some(&wanted) {
                write(&file, &wanted.to_string())?;
                changed = true;
            }
        }
        Ok(changed)
    }

    /// Takes the groups away again that [`Containers::divide`] has made; threads that are left go back to the container's.
    pub(crate) fn gather(&self, place: &PodPlace) {
        let folder = self.cgroups.join(&place.group);
        for (child, _) in self.children(place) {
            for tid in fs::read_to_string(child.join("cgroup.threads")).unwrap_or_default().lines() {
                // It may have ended.
                let _ = write(&folder.join("cgroup.threads"), tid);
            }
            let _ = fs::remove_dir(&child);
        }
    }

    /// Takes away groups of guests that are gone; `live` are containers that have one.
    pub(crate) fn tidy(&self, live: &BTreeSet<PathBuf>) {
        let roots = folders(&self.cgroups).filter(|path| name(path).starts_with(KUBEPODS));
        for path in roots.collect::<Vec<_>>() {
            self.tidy_below(&path, live, DEEPEST);
        }
    }

    fn tidy_below(&self, folder: &Path, live: &BTreeSet<PathBuf>, depth: u32) {
        let is_live = folder.strip_prefix(&self.cgroups).is_ok_and(|group| live.contains(group));
        for path in folders(folder) {
            if !name(&path).starts_with(PREFIX) {
                if depth > 0 {
                    self.tidy_below(&path, live, depth - 1);
                }
            } else if !is_live {
                // One that has threads stays.
                let _ = fs::remove_dir(&path);
            }
        }
    }

    /// Our groups in a container's, with the CPUs that their names say.
    fn children(&self, place: &PodPlace) -> Vec<(PathBuf, CpuSet)> {
        let entries = fs::read_dir(self.cgroups.join(&place.group)).into_iter().flatten().flatten();
        let ours = |e: fs::DirEntry| {
            let cpus = e.file_name().to_str()?.strip_prefix(PREFIX)?.parse().ok()?;
            Some((e.path(), cpus))
        };
        let mut found: Vec<_> = entries.filter_map(ours).collect();
        found.sort();
        found
    }
}

fn folders(of: &Path) -> impl Iterator<Item = PathBuf> {
    let entries = fs::read_dir(of).into_iter().flatten().flatten();
    entries.filter(|entry| entry.file_type().is_ok_and(|kind| kind.is_dir())).map(|entry| entry.path())
}

fn name(path: &Path) -> &str {
    path.file_name().and_then(|name| name.to_str()).unwrap_or_default()
}

fn child(folder: &Path, cpus: &CpuSet) -> PathBuf {
    folder.join(format!("{PREFIX}{cpus}"))
}

/// The container's group, and those above it up to the pod's.
fn levels(place: &PodPlace) -> impl Iterator<Item = &Path> {
    place.group.ancestors().filter(|group| group.starts_with(&place.pod_group))
}

/// When a thread was started, in ticks since the host was. Source: proc(5), `starttime`; a name may have anything in it.
fn started(proc: &Path, tid: i32) -> u64 {
    let stat = fs::read_to_string(proc.join(tid.to_string()).join("stat")).unwrap_or_default();
    let after = stat.rsplit_once(')').map(|(_, after)| after).unwrap_or_default();
    after.split_whitespace().nth(19).and_then(|ticks| ticks.parse().ok()).unwrap_or(u64::MAX)
}

fn cpus(file: &Path) -> Option<CpuSet> {
    fs::read_to_string(file).ok()?.trim().parse().ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    const GROUP: &str = "kubepods/pod12/ab";

    fn place() -> PodPlace {
        PodPlace {
            namespace: "lab".into(),
            name: "vm".into(),
            uid: "12".into(),
            pod_group: "kubepods/pod12".into(),
            group: GROUP.into(),
            housekeeping: "0-1".parse().unwrap(),
        }
    }

    /// A host where process 7 has threads on CPUs 2, 3 and 0-1.
    fn host() -> (tempfile::TempDir, Containers) {
        let root = tempfile::tempdir().unwrap();
        let (cgroups, proc) = (root.path().join("cgroup"), root.path().join("proc"));
        fs::create_dir_all(cgroups.join(GROUP)).unwrap();
        for (file, text) in [
            ("kubepods/pod12/cpuset.cpus", "\n"),
            ("kubepods/pod12/cpu.max", "200000 100000\n"),
            ("kubepods/cpu.max", "300000 100000\n"),
            ("kubepods/pod12/ab/cpuset.cpus", "2-3\n"),
            ("kubepods/pod12/ab/cpuset.cpus.effective", "0-3\n"),
            ("kubepods/pod12/ab/cpu.max", "max 100000\n"),
            ("kubepods/pod12/ab/cgroup.subtree_control", ""),
        ] {
            fs::write(cgroups.join(file), text).unwrap();
        }
        for (tid, allowed) in [("7", "0-1"), ("8", "2"), ("9", "3"), ("10", "0-7")] {
            let task = proc.join("7/task").join(tid);
            fs::create_dir_all(&task).unwrap();
            fs::write(task.join("status"), format!("Cpus_allowed_list:\t{allowed}\n")).unwrap();
        }
        (root, Containers::below(cgroups, proc))
    }

    fn text(containers: &Containers, file: &str) -> String {
        fs::read_to_string(containers.cgroups.join(file)).unwrap().trim().to_owned()
    }

    /// A folder has no files of a control group until somebody makes them.
    fn make_children(containers: &Containers) {
        for cpus in ["0-1", "2", "3"] {
            let folder = containers.cgroups.join(GROUP).join(format!("{PREFIX}{cpus}"));
            fs::create_dir_all(&folder).unwrap();
            for file in ["cgroup.type", "cgroup.threads", "cpuset.cpus"] {
                fs::write(folder.join(file), "").unwrap();
            }
        }
    }

    #[test]
    fn a_container_gets_the_housekeeping_cpus_and_loses_its_quota_up_to_the_pod() {
        let (_root, containers) = host();
        assert!(containers.widen(&place()).unwrap());
        assert_eq!(text(&containers, "kubepods/pod12/ab/cpuset.cpus"), "0-3");
        assert_eq!(text(&containers, "kubepods/pod12/cpuset.cpus"), "", "it has those above");
        assert!(text(&containers, "kubepods/pod12/cpu.max").starts_with("max"));
        assert_eq!(text(&containers, "kubepods/cpu.max"), "300000 100000", "not the pod's");
    }

    #[test]
    fn what_is_wide_enough_is_left_and_what_cannot_be_is_told() {
        let (_root, containers) = host();
        for file in ["kubepods/pod12/cpu.max", "kubepods/pod12/ab/cpu.max"] {
            fs::write(containers.cgroups.join(file), "max 100000\n").unwrap();
        }
        fs::write(containers.cgroups.join("kubepods/pod12/ab/cpuset.cpus"), "0-3\n").unwrap();
        assert!(!containers.widen(&place()).unwrap());
        fs::write(containers.cgroups.join("kubepods/pod12/ab/cpuset.cpus.effective"), "1-3\n").unwrap();
        let refused = containers.widen(&place()).unwrap_err();
        assert!(
            matches!(&refused, PartitionError::OutOfReach { cpus, .. } if cpus.to_string() == "0"),
            "{refused}"
        );
    }

    #[test]
    fn each_thread_goes_to_the_group_of_its_cpus() {
        let (_root, containers) = host();
        make_children(&containers);
        containers.divide(7, &place(), &"2-3".parse().unwrap()).unwrap();
        for (cpus, tid) in [("0-1", "7"), ("2", "8"), ("3", "9")] {
            let group = format!("{GROUP}/{PREFIX}{cpus}");
            assert_eq!(text(&containers, &format!("{group}/cgroup.type")), "threaded");
            assert_eq!(text(&containers, &format!("{group}/cpuset.cpus")), cpus);
            assert_eq!(text(&containers, &format!("{group}/cgroup.threads")), tid);
        }
        assert_eq!(text(&containers, "kubepods/pod12/ab/cgroup.subtree_control"), "+cpuset");
        assert!(!containers.restore(&place()).unwrap(), "nothing was changed");
        fs::write(containers.cgroups.join(format!("{GROUP}/{PREFIX}2/cpuset.cpus")), "0-7\n").unwrap();
        assert!(containers.restore(&place()).unwrap());
        assert!(text(&containers, &format!("{GROUP}/{PREFIX}2/cpuset.cpus")).starts_with('2'));
    }

    /// QEMU is a process beside the launcher, and a thread of it starts others on its own CPU.
    #[test]
    fn threads_of_all_processes_are_divided_and_what_a_vcpus_thread_has_started_goes_home() {
        let (_root, containers) = host();
        make_children(&containers);
        let group = |file: &str| containers.cgroups.join(GROUP).join(file);
        fs::write(group("cgroup.procs"), "1\n7\n20\n0\n").unwrap();
        for (pid, tid, allowed, started) in
            [("20", "21", "2", 50), ("20", "30", "0-1", 51), ("20", "22", "2", 70)]
        {
            let task = containers.proc.join(pid).join("task").join(tid);
            fs::create_dir_all(&task).unwrap();
            fs::write(task.join("status"), format!("Cpus_allowed_list:\t{allowed}\n")).unwrap();
            let own = containers.proc.join(tid);
            fs::create_dir_all(&own).unwrap();
            // A name may have anything in it.
            let fields = vec!["0"; 18].join(" ");
            fs::write(own.join("stat"), format!("{tid} (CPU) 0/KVM) S {fields} {started} 0")).unwrap();
        }
        fs::remove_dir_all(containers.proc.join("7/task/8")).unwrap();
        // What a real kernel shows: the thread of the vCPU, and a younger one with a smaller number.
        let children = containers.children(&place());
        assert_eq!(children.len(), 3);
        containers.divide(7, &place(), &"2-3".parse().unwrap()).unwrap();
        assert_eq!(text(&containers, &format!("{GROUP}/{PREFIX}3/cgroup.threads")), "9");
        let vcpus = group(&format!("{PREFIX}2/cgroup.threads"));
        fs::write(&vcpus, "22\n21\n").unwrap();
        fs::write(group(&format!("{PREFIX}0-1/cgroup.threads")), "").unwrap();
        containers.bring_strays_home(&place(), &"2-3".parse().unwrap()).unwrap();
        assert_eq!(text(&containers, &format!("{GROUP}/{PREFIX}0-1/cgroup.threads")), "22");
        assert_eq!(started(&containers.proc, 21), 50);
        assert_eq!(started(&containers.proc, 4242), u64::MAX, "one that has ended is the youngest");
    }

    #[test]
    fn a_cpu_that_no_thread_is_pinned_to_is_told_before_anything_is_changed() {
        let (_root, containers) = host();
        let refused = containers.divide(7, &place(), &"2-4".parse().unwrap()).unwrap_err();
        assert!(matches!(&refused, PartitionError::Moved(cpus) if cpus.to_string() == "4"), "{refused}");
        assert!(containers.children(&place()).is_empty());
    }

    #[test]
    fn groups_of_guests_that_are_gone_are_taken_away_and_no_others() {
        let folder = tempfile::tempdir().unwrap();
        let containers = Containers::below(folder.path().to_owned(), "/proc".into());
        let make = |path: &str| fs::create_dir_all(folder.path().join(path)).unwrap();
        let is_there = |path: &str| folder.path().join(path).exists();
        for path in [
            "kubepods/pod1/a/pinion.cpus-2",
            "kubepods/burstable/pod2/b/pinion.cpus-4",
            "other/pinion.cpus-6",
        ] {
            make(path);
        }
        make("kubepods/pod1/a/somebody");
        containers.tidy(&BTreeSet::from(["kubepods/burstable/pod2/b".into()]));
        assert!(!is_there("kubepods/pod1/a/pinion.cpus-2") && is_there("kubepods/pod1/a/somebody"));
        assert!(is_there("kubepods/burstable/pod2/b/pinion.cpus-4") && is_there("other/pinion.cpus-6"));
        containers.tidy(&BTreeSet::new());
        assert!(
            !is_there("kubepods/burstable/pod2/b/pinion.cpus-4") && is_there("kubepods/burstable/pod2/b")
        );
    }
}
