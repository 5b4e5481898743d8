//! The supervisor: carries out resets and the end, on the emulator's thread.

use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use vmm_devices::{Ioapic, Power};
use vmm_event_loop::{Control, Event, Subscriber};
use vmm_pci::PciSegment;
use vmm_sys_util::eventfd::EventFd;

use crate::console;
use crate::gate::{Gate, GuestEnd, Request};
use crate::loader::Loader;

/// What a reset resets.
#[derive(Debug)]
pub(crate) struct Platform {
    pub(crate) pci: Arc<PciSegment>,
    pub(crate) ioapic: Arc<Mutex<Ioapic>>,
    pub(crate) power: Arc<Mutex<Power>>,
    pub(crate) serial: console::Port,
}

fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

impl Platform {
    fn reset(&self) {
        self.pci.reset();
        lock(&self.ioapic).reset();
        lock(&self.power).reset();
        // Out of descriptors: the port then keeps its registers, which drivers set anew anyway.
        let _ = lock(&self.serial).reset();
    }
}

/// A guest that runs no longer than this before it resets itself has not booted.
const QUICK: Duration = Duration::from_secs(1);
/// After so many of those in a row it has crashed.
const MOST_QUICK_RESETS: u32 = 10;

/// Waits for requests at the gate.
#[derive(Debug)]
pub(crate) struct Supervisor {
    pub(crate) attention: EventFd,
    pub(crate) gate: Arc<Gate>,
    pub(crate) platform: Platform,
    pub(crate) loader: Loader,
    pub(crate) reboots: Arc<AtomicU64>,
    /// Resets in a row that came soon after the guest's start.
    pub(crate) quick_resets: u32,
}

impl Supervisor {
    /// The guest's kernel starts again, in place: same threads, same memory, same devices.
    ///
    /// The order matters:
    /// 1. All vCPUs are parked: nobody touches a device or memory.
    /// 2. Devices are reset, which ends their work on memory.
    /// 3. The kernel is loaded: memory is nobody else's now.
    /// 4. The vCPUs reset themselves, each on its own thread, and run.
    fn reboot(&mut self) {
        self.platform.reset();
        self.quick_resets = if self.gate.open_for() < QUICK { self.quick_resets + 1 } else { 0 };
        if self.quick_resets >= MOST_QUICK_RESETS {
            let what =
                format!("it reset itself {MOST_QUICK_RESETS} times, each within a second of its start");
            self.gate.end(GuestEnd::Crashed(what));
            return;
        }
        match self.loader.load() {
            Ok(entry) => {
                self.reboots.fetch_add(1, Ordering::Relaxed);
                self.gate.open(entry);
            }
            Err(e) => {
                let cause = std::error::Error::source(&e).map(ToString::to_string).unwrap_or_default();
                self.gate.end(GuestEnd::Failed(format!("at reboot: {e}: {cause}")));
            }
        }
    }
}

impl Subscriber for Supervisor {
    fn ready(&mut self, _event: Event, _control: &mut Control<'_>) {
        let _ = self.attention.read();
        match self.gate.wait_parked() {
            Some(Request::Reset) => self.reboot(),
            Some(Request::End(how)) => {
                // Ends the devices' work on guest memory before anybody frees it.
                self.platform.reset();
                self.gate.end(how);
            }
            None => {}
        }
    }
}
