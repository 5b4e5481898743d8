//! Getting a vCPU out of guest mode, without ever losing the request.
//!
//! A signal alone can be lost: it may arrive after the thread looked whether it was asked to stop
//! and before it entered the guest. So, in this order:
//! 1. The kicker sets `immediate_exit` in the run page, which makes the next entry fail at once.
//! 2. It then signals the thread, which ends an entry that had happened already.
//! 3. The vCPU's thread clears the flag once it is out.

use std::io;
use std::sync::atomic::{AtomicU8, Ordering, fence};

use vmm_sys_util::signal::{SIGRTMIN, register_signal_handler};

/// The signal; its handler does nothing, its arrival ends `KVM_RUN` with EINTR.
fn signal_number() -> libc::c_int {
    SIGRTMIN()
}

extern "C" fn nothing(_: libc::c_int, _: *mut libc::siginfo_t, _: *mut libc::c_void) {}

/// Asks one vCPU's thread to leave guest mode.
#[derive(Debug)]
pub struct Kicker {
    thread: libc::pthread_t,
    flag: *mut u8,
}

// SAFETY: the flag is only ever accessed as an atomic, and stays mapped as long as the vCPU, which
// outlives its kickers (see `Kicker::new`).
unsafe impl Send for Kicker {}
// SAFETY: as above.
unsafe impl Sync for Kicker {}

impl Kicker {
    /// A kicker of the calling thread, which runs the vCPU whose `immediate_exit` is at `flag`.
    ///
    /// # Safety
    /// `flag` must stay valid, and the calling thread must not be joined, while the kicker exists.
    pub(crate) unsafe fn new(flag: *mut u8) -> io::Result<Self> {
        register_signal_handler(signal_number(), nothing)
            .map_err(|e| io::Error::from_raw_os_error(e.errno()))?;
        // SAFETY: pthread_self has no preconditions.
        let thread = unsafe { libc::pthread_self() };
        Ok(Self { thread, flag })
    }

    /// Makes the vCPU leave guest mode, now or as soon as it enters.
    pub fn kick(&self) {
        // SAFETY: valid by the contract of `new`, and only accessed atomically here and by the
        // kernel, which reads it once at entry.
        let flag = unsafe { AtomicU8::from_ptr(self.flag) };
        flag.store(1, Ordering::SeqCst);
        fence(Ordering::SeqCst);
        // SAFETY: the thread has not been joined, by the contract of `new`; the signal has a handler.
        unsafe { libc::pthread_kill(self.thread, signal_number()) };
    }
}
