//! What the process that reads images may do: next to nothing.

use std::io;

use nix::libc;
use nix::sys::prctl::set_no_new_privs;
use nix::sys::resource::{Resource, setrlimit};
use seccompiler::{BpfProgram, SeccompAction, SeccompFilter};

use crate::sandbox::give_up_all_privileges;

/// Memory, bytes: a unified kernel image is the largest thing that is held.
const MEMORY: u64 = 512 << 20;
/// Bytes of the kernel and of the initrd, each.
const FILE: u64 = 512 << 20;
/// Processor time, seconds.
const SECONDS: u64 = 60;

/// The calls that are left: talk on what is open, take memory within the limit, end.
const CALLS: &[libc::c_long] = &[
    libc::SYS_read,
    libc::SYS_write,
    libc::SYS_brk,
    libc::SYS_mmap,
    libc::SYS_munmap,
    libc::SYS_mremap,
    libc::SYS_madvise,
    libc::SYS_futex,
    libc::SYS_getrandom,
    libc::SYS_clock_gettime,
    libc::SYS_sigaltstack,
    libc::SYS_rt_sigreturn,
    libc::SYS_rt_sigprocmask,
    libc::SYS_sched_yield,
    libc::SYS_fcntl,
    libc::SYS_close,
    libc::SYS_exit,
    libc::SYS_exit_group,
];

/// Gives up everything but [`CALLS`]. Another call ends the process at once.
///
/// 1. Limits, which need calls that are gone afterwards.
/// 2. Privileges; without new ones, a filter needs none.
/// 3. The filter.
pub(super) fn enter() -> io::Result<()> {
    let failed = |e: &dyn std::fmt::Display| io::Error::other(e.to_string());
    let limits = [
        (Resource::RLIMIT_AS, MEMORY),
        (Resource::RLIMIT_FSIZE, FILE),
        (Resource::RLIMIT_CPU, SECONDS),
        (Resource::RLIMIT_CORE, 0),
        (Resource::RLIMIT_NPROC, 0),
    ];
    for (resource, most) in limits {
        setrlimit(resource, most, most)?;
    }
    set_no_new_privs()?;
    give_up_all_privileges().map_err(|e| failed(&e))?;
    let arch = std::env::consts::ARCH.try_into().map_err(|e| failed(&e))?;
    let rules = CALLS.iter().map(|call| (*call, Vec::new())).collect();
    let filter = SeccompFilter::new(rules, SeccompAction::KillProcess, SeccompAction::Allow, arch);
    let program: BpfProgram = filter.and_then(TryInto::try_into).map_err(|e| failed(&e))?;
    seccompiler::apply_filter(&program).map_err(|e| failed(&e))
}
