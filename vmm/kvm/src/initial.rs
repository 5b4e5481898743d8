//! The state of a vCPU as KVM made it: what a reset brings back.
//!
//! Taken once after creation, on the thread that creates vCPUs; restored on the vCPU's own
//! thread before each boot.

use kvm_bindings::{
    Msrs, kvm_debugregs, kvm_lapic_state, kvm_mp_state, kvm_msr_entry, kvm_regs, kvm_sregs, kvm_vcpu_events,
    kvm_xcrs, kvm_xsave,
};
use kvm_ioctls::VcpuFd;

use crate::error::KvmError;

/// MSRs that a reset must leave alone: writing the counter back would turn time back.
const KEPT: [u32; 2] = [0x10, 0x3b];
/// MSRs by which a guest gives KVM an address of its memory (clock, async faults, steal time, end of
/// interrupt): switched off by writing 0.
const PARAVIRTUAL: std::ops::RangeInclusive<u32> = 0x4b56_4d00..=0x4b56_4d04;
/// Hyper-V's MSRs: our guests are not offered any, and touching one makes KVM allocate their state.
const HYPER_V: std::ops::RangeInclusive<u32> = 0x4000_0000..=0x4000_0fff;
/// `IA32_MISC_ENABLE`: fast strings on, as firmware would leave it.
const MISC_ENABLE: (u32, u64) = (0x1a0, 1);
/// `IA32_MTRR_DEF_TYPE`: MTRRs on, all memory write-back.
const MTRR_DEF_TYPE: (u32, u64) = (0x2ff, 0x806);

/// Bit of `IA32_APIC_BASE` that switches to x2APIC.
const APIC_BASE_X2APIC: u64 = 1 << 10;

/// How local APICs start.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum ApicMode {
    /// As after power-on.
    XApic,
    /// As firmware leaves them where an id is above 254: only x2APIC mode can hold it.
    X2Apic,
}

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
    /// not offer. The local APIC's mode is set before its state is read, whose format it decides.
    pub(crate) fn read(fd: &VcpuFd, vcpu: u32, mode: ApicMode, msrs: &[u32]) -> Result<Self, KvmError> {
        let get = |action| KvmError::vcpu(vcpu, action);
        let mut sregs = fd.get_sregs().map_err(get("read the special registers"))?;
        if mode == ApicMode::X2Apic {
            sregs.apic_base |= APIC_BASE_X2APIC;
            fd.set_sregs(&sregs).map_err(get("set the mode of the local APIC"))?;
        }
        Ok(Self {
            regs: fd.get_regs().map_err(get("read the registers"))?,
            sregs,
            lapic: fd.get_lapic().map_err(get("read the local APIC"))?,
            xsave: fd.get_xsave().map_err(get("read the floating-point state"))?,
            xcrs: fd.get_xcrs().map_err(get("read the extended control registers"))?,
            debug: fd.get_debug_regs().map_err(get("read the debug registers"))?,
            events: fd.get_vcpu_events().map_err(get("read the pending events"))?,
            mp: fd.get_mp_state().map_err(get("read the run state"))?,
            msrs: self::msrs(fd, msrs),
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
fn msrs(fd: &VcpuFd, indices: &[u32]) -> Vec<kvm_msr_entry> {
    let listed = indices
        .iter()
        .filter(|index| !KEPT.contains(index) && !HYPER_V.contains(index))
        .map(|&index| kvm_msr_entry { index, ..kvm_msr_entry::default() })
        .collect();
    let mut found = taken(listed, |entries| {
        let mut some = Msrs::from_entries(entries).ok()?;
        let count = fd.get_msrs(&mut some).ok()?;
        entries.iter_mut().zip(some.as_slice()).for_each(|(to, from)| *to = *from);
        Some(count)
    });
    for (index, data) in [MISC_ENABLE, MTRR_DEF_TYPE] {
        found.retain(|e| e.index != index);
        found.push(kvm_msr_entry { index, data, ..kvm_msr_entry::default() });
    }
    for entry in found.iter_mut().filter(|e| PARAVIRTUAL.contains(&e.index)) {
        entry.data = 0;
    }
    // What KVM does not take back as it gave it is not guest state.
    taken(found, |entries| fd.set_msrs(&Msrs::from_entries(entries).ok()?).ok())
}

/// The entries that `request` takes. It takes them in order up to the first that it refuses, and
/// says how many: what follows a refused one is offered again without it.
fn taken(
    entries: Vec<kvm_msr_entry>,
    mut request: impl FnMut(&mut [kvm_msr_entry]) -> Option<usize>,
) -> Vec<kvm_msr_entry> {
    let mut left = entries;
    let mut taken = Vec::with_capacity(left.len());
    while !left.is_empty() {
        let count = request(&mut left).unwrap_or(0).min(left.len());
        taken.extend(left.drain(..count));
        left.drain(..left.len().min(1));
    }
    taken
}

fn write_all(fd: &VcpuFd, vcpu: u32, entries: &[kvm_msr_entry]) -> Result<(), KvmError> {
    let partial =
        |action| KvmError::Vcpu { action, vcpu, source: std::io::Error::other("not all were taken") };
    let all = Msrs::from_entries(entries).map_err(|_| partial("list the model-specific registers"))?;
    let written = fd.set_msrs(&all).map_err(KvmError::vcpu(vcpu, "reset the model-specific registers"))?;
    if written == entries.len() { Ok(()) } else { Err(partial("reset all model-specific registers")) }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn entries(indices: &[u32]) -> Vec<kvm_msr_entry> {
        indices.iter().map(|&index| kvm_msr_entry { index, ..kvm_msr_entry::default() }).collect()
    }

    #[test]
    fn registers_that_are_refused_do_not_hide_those_after_them() {
        let odd_is_refused = |offered: &mut [kvm_msr_entry]| {
            let count = offered.iter().take_while(|e| e.index % 2 == 0).count();
            offered.iter_mut().take(count).for_each(|e| e.data = 7);
            Some(count)
        };
        let left = taken(entries(&[1, 2, 4, 5, 7, 6]), odd_is_refused);
        assert_eq!(left.iter().map(|e| (e.index, e.data)).collect::<Vec<_>>(), [(2, 7), (4, 7), (6, 7)]);
        assert!(taken(entries(&[2, 4]), |_| None).is_empty());
    }
}
