//! The seccomp profile of launchers in pods, as the kubelet reads it from a file of the node.
//!
//! Called by the daemon when it starts. Container runtimes' own profile forbids `mbind` and `set_mempolicy` to who has no
//! CAP_SYS_NICE, and a guest's memory is bound to its nodes by these. This one allows them, and forbids what changes the
//! kernel or looks into other processes; the launcher confines each of its threads further by itself.
//!
//! Source: `LinuxSeccomp` of the OCI runtime specification.

use std::fs;
use std::io;
use std::path::{Path, PathBuf};

use serde_json::{Value, json};

/// Where it is below the kubelet's folder of profiles; pods name it so.
pub const SECCOMP_PROFILE: &str = "pinion/launcher.json";

/// System calls that no launcher needs.
const FORBIDDEN: [&str; 54] = [
    "acct",
    "add_key",
    "bpf",
    "chroot",
    "clock_adjtime",
    "clock_adjtime64",
    "clock_settime",
    "clock_settime64",
    "create_module",
    "delete_module",
    "fanotify_init",
    "finit_module",
    "fsconfig",
    "fsmount",
    "fsopen",
    "fspick",
    "init_module",
    "io_uring_enter",
    "io_uring_register",
    "io_uring_setup",
    "ioperm",
    "iopl",
    "kcmp",
    "kexec_file_load",
    "kexec_load",
    "keyctl",
    "lookup_dcookie",
    "mount",
    "mount_setattr",
    "move_mount",
    "name_to_handle_at",
    "open_by_handle_at",
    "open_tree",
    "perf_event_open",
    "pidfd_getfd",
    "pivot_root",
    "process_madvise",
    "process_vm_readv",
    "process_vm_writev",
    "ptrace",
    "quotactl",
    "quotactl_fd",
    "reboot",
    "request_key",
    "setdomainname",
    "sethostname",
    "setns",
    "settimeofday",
    "swapoff",
    "swapon",
    "syslog",
    "umount2",
    "unshare",
    "userfaultfd",
];

fn profile() -> Value {
    json!({
        "defaultAction": "SCMP_ACT_ALLOW",
        "architectures": ["SCMP_ARCH_X86_64"],
        "syscalls": [{"names": FORBIDDEN.as_slice(), "action": "SCMP_ACT_ERRNO", "errnoRet": 1}],
    })
}

/// Writes it below the kubelet's folder of profiles, where it is not there already.
///
/// # Errors
/// When it cannot be written.
pub fn write_seccomp_profile(folder: &Path) -> io::Result<PathBuf> {
    let path = folder.join(SECCOMP_PROFILE);
    let text = serde_json::to_string_pretty(&profile())?;
    if fs::read_to_string(&path).is_ok_and(|there| there == text) {
        return Ok(path);
    }
    if let Some(parent) = path.parent() {
        fs::create_dir_all(parent)?;
    }
    // A kubelet may be reading it.
    let new = path.with_extension("new");
    fs::write(&new, text)?;
    fs::rename(&new, &path)?;
    Ok(path)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn it_is_written_once_and_forbids_nothing_that_places_memory() {
        let folder = tempfile::tempdir().unwrap();
        let path = write_seccomp_profile(folder.path()).unwrap();
        let written = || fs::metadata(&path).unwrap().modified().unwrap();
        let (first, text) = (written(), fs::read_to_string(&path).unwrap());
        write_seccomp_profile(folder.path()).unwrap();
        assert_eq!(written(), first);
        assert!(
            text.contains("\"ptrace\"") && !text.contains("mbind") && !text.contains("sched_setaffinity")
        );
        assert!(FORBIDDEN.is_sorted());
        fs::write(&path, "{}").unwrap();
        write_seccomp_profile(folder.path()).unwrap();
        assert_eq!(fs::read_to_string(&path).unwrap(), text);
    }
}
