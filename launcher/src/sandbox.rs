//! Gives up the privileges that only setting up needs.
//!
//! Called by the session once everything is open and before a thread of the guest exists, so that
//! every one of them inherits what is left. The system call filters of vCPU and I/O threads are the
//! virtual machine monitor's.

use std::os::unix::fs::MetadataExt;
use std::path::Path;

use caps::errors::CapsError;
use caps::{CapSet, Capability, CapsHashSet};
use nix::sys::resource::{Resource, getrlimit, setrlimit};
use nix::unistd::geteuid;

use crate::spec::LaunchSpec;

/// Keeps what this guest needs while it runs, of what this process has, and nothing else.
pub(crate) fn give_up_privileges(spec: &LaunchSpec, more: &[Capability]) -> Result<(), CapsError> {
    if !spec.placement.devices.is_empty() {
        allow_locking(spec.placement.cells.iter().map(|c| c.memory_bytes).sum());
    }
    let realtime = spec.placement.vcpus.iter().any(|v| v.realtime);
    let mut needed = needed(realtime, spec.certificate.as_deref().is_some_and(is_elsewhere));
    needed.extend(more);
    // What a program started by this one would get; none is started.
    for set in [CapSet::Ambient, CapSet::Inheritable] {
        restrict(set, &CapsHashSet::new())?;
    }
    // Effective first: it must stay inside what is permitted.
    for set in [CapSet::Effective, CapSet::Permitted] {
        restrict(set, &needed)?;
    }
    Ok(())
}

/// Devices need all of the guest's memory locked: the limit is raised while this process still may.
/// Where it may not, arming says so.
fn allow_locking(bytes: u64) {
    if let Ok((soft, hard)) = getrlimit(Resource::RLIMIT_MEMLOCK) {
        let _ = setrlimit(Resource::RLIMIT_MEMLOCK, soft.max(bytes), hard.max(bytes));
    }
}

/// Gives up every privilege of the calling thread.
pub(crate) fn give_up_all_privileges() -> Result<(), CapsError> {
    [CapSet::Ambient, CapSet::Inheritable, CapSet::Effective, CapSet::Permitted]
        .into_iter()
        .try_for_each(|set| restrict(set, &CapsHashSet::new()))
}

fn restrict(set: CapSet, to: &CapsHashSet) -> Result<(), CapsError> {
    let has = caps::read(None, set)?;
    if has.is_subset(to) {
        return Ok(());
    }
    caps::set(None, set, &has.intersection(to).copied().collect())
}

/// Whether a file's folder is another user's, so that writing there takes a privilege.
fn is_elsewhere(file: &Path) -> bool {
    let folder = file.parent().filter(|f| !f.as_os_str().is_empty()).unwrap_or(Path::new("."));
    std::fs::metadata(folder).is_ok_and(|m| m.uid() != geteuid().as_raw())
}

fn needed(realtime: bool, foreign_certificate: bool) -> CapsHashSet {
    let mut needed = CapsHashSet::new();
    if realtime {
        // To make vCPUs real-time, now and after somebody undid it, and to lock their memory.
        needed.extend([Capability::CAP_SYS_NICE, Capability::CAP_IPC_LOCK]);
    }
    if foreign_certificate {
        needed.insert(Capability::CAP_DAC_OVERRIDE);
    }
    needed
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_guest_keeps_only_what_it_needs() {
        assert_eq!(needed(false, false), CapsHashSet::new());
        assert_eq!(needed(true, true).len(), 3);
    }

    #[test]
    fn a_certificate_in_a_folder_of_ones_own_takes_no_privilege() {
        let folder = tempfile::tempdir().unwrap();
        assert!(!is_elsewhere(&folder.path().join("certificate.json")));
        assert_eq!(is_elsewhere(Path::new("/proc/1/certificate.json")), !geteuid().is_root());
    }

    #[test]
    fn a_thread_gives_up_everything_and_others_keep_theirs() {
        let before = caps::read(None, CapSet::Permitted).unwrap();
        let left = std::thread::spawn(|| {
            give_up_all_privileges().unwrap();
            caps::read(None, CapSet::Permitted).unwrap()
        });
        assert_eq!(left.join().unwrap(), CapsHashSet::new());
        assert_eq!(caps::read(None, CapSet::Permitted).unwrap(), before);
    }
}
