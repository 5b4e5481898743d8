//! A vCPU: lives on its own thread from its first entry on.

use std::fmt;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use kvm_bindings::{KVM_MP_STATE_HALTED, kvm_run};
use kvm_ioctls::{VcpuExit, VcpuFd};
use vmm_boot::BootEntry;
use vmm_bus::{Gpa, Port};

use crate::cpuid::GuestCpuid;
use crate::error::KvmError;
use crate::initial::{ApicMode, InitialState};
use crate::kick::Kicker;
use crate::registers;

/// Who answers a guest's port and MMIO accesses. Called on the vCPU's thread; must not block.
pub trait IoHandler {
    /// Fills `data` from a port.
    fn port_read(&self, port: Port, data: &mut [u8]);
    /// Takes `data` for a port.
    fn port_write(&self, port: Port, data: &[u8]);
    /// Fills `data` from an address that is not RAM.
    fn mmio_read(&self, address: Gpa, data: &mut [u8]);
    /// Takes `data` for an address that is not RAM.
    fn mmio_write(&self, address: Gpa, data: &[u8]);
    /// The guest has handled a level-triggered interrupt.
    fn end_of_interrupt(&self, vector: u8);
}

/// Why a vCPU left guest mode for good, or for now.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Exit {
    /// The access was answered; enter again.
    Handled,
    /// It was kicked.
    Kicked,
    /// Triple fault: the guest asks for a reset this way, or has crashed.
    TripleFault,
    /// KVM cannot go on; with what it says and where the guest was.
    Failed(String),
}

/// Exits by kind, since the start.
#[derive(Debug, Default)]
pub struct ExitCounts {
    /// Port accesses.
    pub port: AtomicU64,
    /// MMIO accesses.
    pub mmio: AtomicU64,
    /// Kicks and signals.
    pub interrupted: AtomicU64,
    /// All others.
    pub other: AtomicU64,
}

/// A vCPU.
pub struct Vcpu {
    fd: VcpuFd,
    index: u32,
    initial: InitialState,
    exits: Arc<ExitCounts>,
}

impl fmt::Debug for Vcpu {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Vcpu").field("index", &self.index).finish_non_exhaustive()
    }
}

impl Vcpu {
    /// Sets CPUID, then reads what the processor is after reset: KVM answers zero for an MSR
    /// that CPUID does not offer.
    pub(crate) fn new(
        fd: VcpuFd,
        index: u32,
        cpuid: &GuestCpuid,
        mode: ApicMode,
        msrs: &[u32],
    ) -> Result<Self, KvmError> {
        fd.set_cpuid2(&cpuid.0).map_err(KvmError::vcpu(index, "set the CPUID"))?;
        let initial = InitialState::read(&fd, index, mode, msrs)?;
        Ok(Self { fd, index, initial, exits: Arc::default() })
    }

    /// Its number.
    #[must_use]
    pub fn index(&self) -> u32 {
        self.index
    }

    /// Its exits, counted while it runs.
    #[must_use]
    pub fn exits(&self) -> Arc<ExitCounts> {
        Arc::clone(&self.exits)
    }

    /// As after power-on; with an entry, ready to execute a kernel's first instruction. The others
    /// wait for the guest to start them.
    ///
    /// # Errors
    /// [`KvmError::Vcpu`].
    pub fn reset(&mut self, entry: Option<&BootEntry>) -> Result<(), KvmError> {
        self.initial.restore(&self.fd, self.index)?;
        if let Some(entry) = entry {
            let set = |action| KvmError::vcpu(self.index, action);
            let sregs = registers::special(&self.initial.sregs, entry);
            self.fd.set_sregs(&sregs).map_err(set("set the special registers"))?;
            self.fd.set_regs(&registers::general(entry)).map_err(set("set the registers"))?;
        }
        Ok(())
    }

    /// A kicker for this vCPU. Call it on the thread that runs it; drop it before that thread
    /// is joined and before the vCPU is dropped.
    ///
    /// # Errors
    /// When the signal's handler cannot be installed.
    pub fn kicker(&mut self) -> Result<Kicker, KvmError> {
        let flag: *mut u8 = &raw mut self.fd.get_kvm_run().immediate_exit;
        // SAFETY: the run page is mapped as long as the vCPU's file; the caller drops the kicker
        // before both are gone, and calls this on the thread that runs the vCPU.
        unsafe { Kicker::new(flag) }
            .map_err(|source| KvmError::Request { action: "prepare to stop a vCPU", source })
    }

    /// Enters the guest, and answers what made it exit.
    pub fn run(&mut self, io: &dyn IoHandler) -> Exit {
        let count = |counter: &AtomicU64| counter.fetch_add(1, Ordering::Relaxed);
        let page: *const kvm_run = self.fd.get_kvm_run();
        // SAFETY: the run page stays mapped with the vCPU's file; after an exit for a port the kernel
        // has filled in this member, which no other reference covers: the data lie behind it.
        let width = || usize::from(unsafe { (*page).__bindgen_anon_1.io.size }).max(1);
        let exit = match self.fd.run() {
            Ok(VcpuExit::IoOut(port, data)) => {
                count(&self.exits.port);
                data.chunks(width()).for_each(|one| io.port_write(Port(port), one));
                return Exit::Handled;
            }
            Ok(VcpuExit::IoIn(port, data)) => {
                count(&self.exits.port);
                data.chunks_mut(width()).for_each(|one| io.port_read(Port(port), one));
                return Exit::Handled;
            }
            Ok(VcpuExit::MmioRead(address, data)) => {
                count(&self.exits.mmio);
                io.mmio_read(Gpa(address), data);
                return Exit::Handled;
            }
            Ok(VcpuExit::MmioWrite(address, data)) => {
                count(&self.exits.mmio);
                io.mmio_write(Gpa(address), data);
                return Exit::Handled;
            }
            Ok(VcpuExit::IoapicEoi(vector)) => {
                count(&self.exits.other);
                io.end_of_interrupt(vector);
                return Exit::Handled;
            }
            Ok(VcpuExit::Intr) => Ok(Exit::Kicked),
            Ok(VcpuExit::Shutdown) => Ok(Exit::TripleFault),
            Ok(VcpuExit::FailEntry(reason, cpu)) => {
                Err(format!("the processor refused to enter the guest, reason {reason:#x}, on CPU {cpu}"))
            }
            Ok(VcpuExit::InternalError) => Err("KVM internal error".to_owned()),
            Ok(exit) => Err(format!("an exit that is not handled: {exit:?}")),
            Err(e) if matches!(e.errno(), libc::EINTR | libc::EAGAIN) => Ok(Exit::Kicked),
            Err(e) => Err(format!("KVM_RUN failed: {e}")),
        };
        match exit {
            Ok(Exit::Kicked) => {
                count(&self.exits.interrupted);
                self.fd.set_kvm_immediate_exit(0);
                Exit::Kicked
            }
            Ok(exit) => {
                count(&self.exits.other);
                exit
            }
            Err(reason) => Exit::Failed(self.with_registers(reason)),
        }
    }

    /// Tells a guest that uses KVM's clock that it was paused, so that its watchdogs do not take the gap for a hang
    /// (`KVM_KVMCLOCK_CTRL`).
    ///
    /// # Errors
    /// [`KvmError::Vcpu`].
    pub fn was_paused(&self) -> Result<(), KvmError> {
        match self.fd.kvmclock_ctrl() {
            // It does not use that clock.
            Err(e) if e.errno() == libc::EINVAL => Ok(()),
            told => told.map_err(KvmError::vcpu(self.index, "tell the pause")),
        }
    }

    /// Completes the instruction that the last exit was about: KVM finishes it at the next entry
    /// only, perhaps with further exits. A string instruction may never end: it is left half done.
    pub fn complete(&mut self, io: &dyn IoHandler) {
        const MOST_EXITS: u32 = 64;
        for _ in 0..MOST_EXITS {
            self.fd.set_kvm_immediate_exit(1);
            if self.run(io) != Exit::Handled {
                break;
            }
        }
        self.fd.set_kvm_immediate_exit(0);
    }

    /// Whether the guest has halted this vCPU.
    #[must_use]
    pub fn is_halted(&self) -> bool {
        self.fd.get_mp_state().is_ok_and(|s| s.mp_state == KVM_MP_STATE_HALTED)
    }

    fn with_registers(&mut self, reason: String) -> String {
        let suberror = {
            let run = self.fd.get_kvm_run();
            // SAFETY: plain numbers; after an internal error the kernel has filled in this member.
            unsafe { run.__bindgen_anon_1.internal.suberror }
        };
        match (self.fd.get_regs(), self.fd.get_sregs()) {
            (Ok(r), Ok(s)) => format!(
                "{reason} (suberror {suberror}); rip={:#x} rsp={:#x} rflags={:#x} cs={:#x} cr0={:#x} cr3={:#x} cr4={:#x} efer={:#x}",
                r.rip, r.rsp, r.rflags, s.cs.selector, s.cr0, s.cr3, s.cr4, s.efer
            ),
            _ => reason,
        }
    }
}

#[cfg(test)]
mod tests;
