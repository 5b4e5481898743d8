//! What the machine's threads may ask of the kernel: a seccomp filter for each kind of thread.
//!
//! Built once while arming; each thread confines itself before it serves anything of the guest's.
//! A call that is not listed fails with EPERM: nothing here needs one, and whoever took a thread
//! over gets nowhere. Affinity and scheduling class are set from outside, before and after.

use std::collections::BTreeMap;

use nix::libc;
use seccompiler::{
    BpfProgram, SeccompAction, SeccompCmpArgLen, SeccompCmpOp, SeccompCondition, SeccompFilter, SeccompRule,
    apply_filter,
};

/// Why threads cannot be confined.
#[derive(Debug, thiserror::Error)]
pub enum SandboxError {
    /// No filter for this processor, or a mistake of ours.
    #[error("Cannot build the system call filter of the guest's threads")]
    Build(#[source] Box<dyn std::error::Error + Send + Sync>),
    /// The kernel refused it.
    #[error("Cannot confine a thread of the guest: the host's kernel needs CONFIG_SECCOMP_FILTER")]
    Apply(#[source] seccompiler::Error),
}

/// What every thread needs: memory, locks, time, events, its end, and to say why it panics.
const ALL: &[libc::c_long] = &[
    libc::SYS_futex,
    libc::SYS_read,
    libc::SYS_write,
    libc::SYS_close,
    libc::SYS_epoll_ctl,
    libc::SYS_eventfd2,
    libc::SYS_timerfd_create,
    libc::SYS_timerfd_settime,
    libc::SYS_dup,
    libc::SYS_mmap,
    libc::SYS_munmap,
    libc::SYS_mremap,
    libc::SYS_mprotect,
    libc::SYS_madvise,
    libc::SYS_brk,
    libc::SYS_rt_sigreturn,
    libc::SYS_rt_sigprocmask,
    libc::SYS_rt_sigaction,
    libc::SYS_sigaltstack,
    libc::SYS_restart_syscall,
    libc::SYS_getpid,
    libc::SYS_gettid,
    libc::SYS_tgkill,
    libc::SYS_clock_gettime,
    libc::SYS_clock_nanosleep,
    libc::SYS_nanosleep,
    libc::SYS_sched_yield,
    libc::SYS_getrandom,
    libc::SYS_membarrier,
    libc::SYS_rseq,
    libc::SYS_set_robust_list,
    libc::SYS_exit,
    libc::SYS_exit_group,
];

/// What threads that serve devices need besides.
const LOOPS: &[libc::c_long] = &[
    libc::SYS_epoll_wait,
    libc::SYS_epoll_pwait,
    libc::SYS_poll,
    libc::SYS_ppoll,
    libc::SYS_readv,
    libc::SYS_writev,
    libc::SYS_pread64,
    libc::SYS_pwrite64,
    libc::SYS_preadv,
    libc::SYS_pwritev,
    libc::SYS_preadv2,
    libc::SYS_pwritev2,
    libc::SYS_lseek,
    libc::SYS_fsync,
    libc::SYS_fdatasync,
    libc::SYS_sync_file_range,
    libc::SYS_fallocate,
    libc::SYS_ftruncate,
    libc::SYS_fstat,
    libc::SYS_newfstatat,
    libc::SYS_statx,
];

/// `fcntl` commands: duplicating, and looking at, descriptors.
const FCNTL: &[libc::c_int] = &[libc::F_DUPFD_CLOEXEC, libc::F_GETFD, libc::F_GETFL];
/// KVM's requests all carry this in their second byte.
const KVM_REQUESTS: u64 = 0xae00;
const REQUEST_KIND: u64 = 0xff00;
/// Sets the offloads of a tap when a driver has chosen its features.
const TUNSETOFFLOAD: u64 = 0x4004_54d0;
/// What vCPU threads need besides where the guest has devices of the host: their config space and BARs are
/// read and written at offsets.
const DEVICES: &[libc::c_long] = &[libc::SYS_pread64, libc::SYS_pwrite64];
/// Sets up a device's interrupts, and resets it.
const DEVICE_REQUESTS: &[u64] = &[0x3b6e, 0x3b6f];
/// Discards and zeroes on block devices.
const BLOCK_REQUESTS: &[u64] = &[0x1277, 0x127f];

/// What devices a guest has.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Devices {
    /// Only those made here.
    Emulated,
    /// Some of the host's as well.
    OfTheHost,
}

/// The filters of one machine's threads.
#[derive(Clone, Debug)]
pub(crate) struct Sandbox {
    vcpu: BpfProgram,
    event_loop: BpfProgram,
}

impl Sandbox {
    /// Builds both filters.
    pub(crate) fn new(devices: Devices) -> Result<Self, SandboxError> {
        let build = |calls: &[&[libc::c_long]], requests: &[u64]| {
            program(calls, requests).map_err(|e| SandboxError::Build(e.into()))
        };
        let (calls, requests): (&[libc::c_long], &[u64]) = match devices {
            Devices::Emulated => (&[], &[]),
            Devices::OfTheHost => (DEVICES, DEVICE_REQUESTS),
        };
        Ok(Self {
            vcpu: build(&[ALL, calls], &[&[TUNSETOFFLOAD], requests].concat())?,
            event_loop: build(&[ALL, LOOPS], &[&[TUNSETOFFLOAD], BLOCK_REQUESTS, requests].concat())?,
        })
    }

    /// Confines the calling thread, which runs a vCPU.
    pub(crate) fn enter_vcpu(&self) -> Result<(), SandboxError> {
        apply_filter(&self.vcpu).map_err(SandboxError::Apply)
    }

    /// Confines the calling thread, which runs an event loop.
    pub(crate) fn enter_loop(&self) -> Result<(), SandboxError> {
        apply_filter(&self.event_loop).map_err(SandboxError::Apply)
    }
}

fn program(calls: &[&[libc::c_long]], requests: &[u64]) -> Result<BpfProgram, seccompiler::BackendError> {
    let second = |operator, value| {
        SeccompRule::new(vec![SeccompCondition::new(1, SeccompCmpArgLen::Dword, operator, value)?])
    };
    let mut rules: BTreeMap<i64, Vec<SeccompRule>> =
        calls.iter().flat_map(|set| set.iter()).map(|call| (*call, Vec::new())).collect();
    let mut ioctls = vec![second(SeccompCmpOp::MaskedEq(REQUEST_KIND), KVM_REQUESTS)?];
    for request in requests {
        ioctls.push(second(SeccompCmpOp::Eq, *request)?);
    }
    rules.insert(libc::SYS_ioctl, ioctls);
    let commands = FCNTL.iter().map(|c| second(SeccompCmpOp::Eq, u64::from(c.unsigned_abs())));
    rules.insert(libc::SYS_fcntl, commands.collect::<Result<_, _>>()?);
    let denied = SeccompAction::Errno(libc::EPERM.unsigned_abs());
    SeccompFilter::new(rules, denied, SeccompAction::Allow, std::env::consts::ARCH.try_into()?)?.try_into()
}

#[cfg(test)]
mod tests {
    use std::fs::File;
    use std::io::{ErrorKind, Read, Write};
    use std::thread;

    use super::*;

    /// What a thread can still do once it is confined: open a file, start a thread, use a pipe.
    fn confined(enter: impl FnOnce(&Sandbox) -> Result<(), SandboxError> + Send + 'static) -> [bool; 3] {
        let sandbox = Sandbox::new(Devices::Emulated).unwrap();
        let (reader, writer) = nix::unistd::pipe().unwrap();
        let body = move || {
            let (mut reader, mut writer) = (File::from(reader), File::from(writer));
            if let Err(e) = enter(&sandbox) {
                return Err(e.to_string());
            }
            let opened = File::open("/dev/null").map_err(|e| e.kind());
            let spawned = thread::Builder::new().spawn(|| ()).map(drop).map_err(|e| e.kind());
            let mut byte = [0];
            let piped = writer.write_all(b"x").and_then(|()| reader.read_exact(&mut byte));
            let denied = |kind: Result<(), ErrorKind>| kind == Err(ErrorKind::PermissionDenied);
            Ok([denied(opened.map(drop)), denied(spawned), piped.is_ok()])
        };
        match thread::spawn(body).join().unwrap() {
            Ok(seen) => seen,
            Err(e) => {
                println!("skipped: {e}");
                [true; 3]
            }
        }
    }

    #[test]
    fn confined_threads_do_their_work_and_nothing_else() {
        assert_eq!(confined(Sandbox::enter_vcpu), [true; 3]);
        assert_eq!(confined(Sandbox::enter_loop), [true; 3]);
    }

    #[test]
    fn a_vcpu_may_neither_wait_for_files_nor_write_at_offsets() {
        let sandbox = Sandbox::new(Devices::Emulated).unwrap();
        let file = tempfile::tempfile().unwrap();
        let outcome = thread::spawn(move || {
            sandbox.enter_vcpu().ok().map(|()| std::os::unix::fs::FileExt::write_at(&file, b"x", 0))
        });
        match outcome.join().unwrap() {
            Some(written) => assert_eq!(written.unwrap_err().kind(), ErrorKind::PermissionDenied),
            None => println!("skipped: this kernel has no seccomp filters"),
        }
    }
}
