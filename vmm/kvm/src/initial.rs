//! The state of a vCPU as KVM made it: what a reset brings back.
//!
//! Taken once after creation, on the thread that creates vCPUs; restored on the vCPU's own
//! thread before each boot.

use kvm_bindings::{
    MsrList, Msrs, kvm_debugregs, kvm_lapic_state, kvm_mp_state, kvm_msr_entry, kvm_regs, kvm_sregs,
    kvm_vcpu_events, kvm_xcrs, kvm_xsave,
};
use kvm_ioctls::{Kvm, VcpuFd};

use crate::error::KvmError;

/// MSRs that a reset must leave alone: writing the counter back would turn time back.
const KEPT: [u32; 2] = [0x10, 0x3b];
/// MSRs that software of the guest owns through KVM (clock, async faults, steal time, EOI, polling):
/// switched off by writing 0.
const PARAVIRTUAL: std::ops::RangeInclusive<u32> = 0x4b56_4d00..=0x4b56_4dff;
/// `IA32_MISC_ENABLE`: fast strings on, as firmware would leave it.
const MISC_ENABLE: (u32, u64) = (0x1a0, 1);
/// `IA32_MTRR_DEF_TYPE`: MTRRs on, all memory write-back.
const MTRR_DEF_TYPE: (u32, u64) = (0x2ff, 0x806);

/// Everything of a vCPU that a guest can change.
#[derive(Debug)]
pub(crate) struct InitialState {
    regs: kvm_regs,
    pub(crate) sregs: kvm_sregs,
    lapic: kvm_lapic_state,
    xsave: kvm_xsave,
    xcrs: kvm_xcrs,
    debug: kvm_debugregs,
    events: kvm_vcpu_events,
    mp: kvm_mp_state,
    msrs: Vec<kvm_msr_entry>,
}

impl InitialState {
    /// Reads all of it. CPUID must be set already: KVM answers zero for an MSR that CPUID does
    /// not offer.
    pub(crate) fn read(fd: &VcpuFd, vcpu: u32, kvm: &Kvm) -> Result<Self, KvmError> {
        let get = |action| KvmError::vcpu(vcpu, action);
        let list = kvm.get_msr_index_list().map_err(get("list the registers"))?;
        Ok(Self {
            regs: fd.get_regs().map_err(get("read the registers"))?,
            sregs: fd.get_sregs().map_err(get("read the special registers"))?,
            lapic: fd.get_lapic().map_err(get("read the local APIC"))?,
            xsave: fd.get_xsave().map_err(get("read the floating-point state"))?,
            xcrs: fd.get_xcrs().map_err(get("read the extended control registers"))?,
            debug: fd.get_debug_regs().map_err(get("read the debug registers"))?,
            events: fd.get_vcpu_events().map_err(get("read the pending events"))?,
            mp: fd.get_mp_state().map_err(get("read the run state"))?,
            msrs: msrs(fd, &list),
        })
    }

    /// Writes all of it back.
    ///
    /// The order matters:
    /// 1. Special registers first: they switch the local APIC's mode.
    /// 2. The local APIC then, before anything can be pending in it.
    /// 3. MSRs after both; the TSC deadline only holds with the local APIC in place.
    pub(crate) fn restore(&self, fd: &VcpuFd, vcpu: u32) -> Result<(), KvmError> {
        let set = |action| KvmError::vcpu(vcpu, action);
        fd.set_mp_state(self.mp).map_err(set("reset the run state"))?;
        fd.set_regs(&self.regs).map_err(set("reset the registers"))?;
        fd.set_sregs(&self.sregs).map_err(set("reset the special registers"))?;
        // SAFETY: the state was read from this very vCPU, without dynamic features that would need more room.
        unsafe { fd.set_xsave(&self.xsave) }.map_err(set("reset the floating-point state"))?;
        fd.set_xcrs(&self.xcrs).map_err(set("reset the extended control registers"))?;
        fd.set_debug_regs(&self.debug).map_err(set("reset the debug registers"))?;
        fd.set_lapic(&self.lapic).map_err(set("reset the local APIC"))?;
        write_all(fd, vcpu, &self.msrs)?;
        fd.set_vcpu_events(&self.events).map_err(set("reset the pending events"))
    }
}

/// Each MSR that can be read, as far as it is worth writing back.
fn msrs(fd: &VcpuFd, list: &MsrList) -> Vec<kvm_msr_entry> {
    let mut found: Vec<kvm_msr_entry> = list
        .as_slice()
        .iter()
        .filter(|index| !KEPT.contains(index))
        .filter_map(|&index| {
            let mut one = Msrs::from_entries(&[kvm_msr_entry { index, ..kvm_msr_entry::default() }]).ok()?;
            (fd.get_msrs(&mut one).ok()? == 1).then(|| one.as_slice().first().copied())?
        })
        .collect();
    for (index, data) in [MISC_ENABLE, MTRR_DEF_TYPE] {
        found.retain(|e| e.index != index);
        found.push(kvm_msr_entry { index, data, ..kvm_msr_entry::default() });
    }
    for entry in found.iter_mut().filter(|e| PARAVIRTUAL.contains(&e.index)) {
        entry.data = 0;
    }
    // What KVM does not take back as it gave it is not guest state.
    found.retain(|entry| {
        Msrs::from_entries(&[*entry]).is_ok_and(|one| fd.set_msrs(&one).is_ok_and(|n| n == 1))
    });
    found
}

fn write_all(fd: &VcpuFd, vcpu: u32, entries: &[kvm_msr_entry]) -> Result<(), KvmError> {
    let partial =
        |action| KvmError::Vcpu { action, vcpu, source: std::io::Error::other("not all were taken") };
    let all = Msrs::from_entries(entries).map_err(|_| partial("list the model-specific registers"))?;
    let written = fd.set_msrs(&all).map_err(KvmError::vcpu(vcpu, "reset the model-specific registers"))?;
    if written == entries.len() { Ok(()) } else { Err(partial("reset all model-specific registers")) }
}
