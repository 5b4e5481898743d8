//! Memory slots of devices, beside those of the guest's RAM.
//!
//! Called on vCPU threads, under the lock of the device whose BAR moves. A slot cannot be moved: it
//! is deleted and made anew, in between the guest sees nothing there.

use std::collections::BTreeMap;
use std::fmt;
use std::io;
use std::sync::{Arc, Mutex, PoisonError};

use kvm_bindings::kvm_userspace_memory_region;
use kvm_ioctls::VmFd;
use vmm_bus::{AttachError, Gpa};
use vmm_memory::{DeviceMemory, MemorySlots, SlotId};

/// Slots of devices come after those of RAM: two for each of 64 cells are far fewer.
const FIRST: u32 = 1024;

/// Slots of one VM's devices.
pub struct KvmSlots {
    vm: Arc<VmFd>,
    most: u32,
    /// What each slot shows: it stays mapped for as long as the guest can see it.
    taken: Mutex<BTreeMap<u32, Arc<DeviceMemory>>>,
}

impl fmt::Debug for KvmSlots {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("KvmSlots").field("taken", &self.taken).finish_non_exhaustive()
    }
}

impl KvmSlots {
    /// No slots yet; the kernel has `most` in all.
    pub(crate) fn new(vm: Arc<VmFd>, most: usize) -> Self {
        Self { vm, most: u32::try_from(most).unwrap_or(u32::MAX), taken: Mutex::default() }
    }

    fn set(&self, region: kvm_userspace_memory_region) -> io::Result<()> {
        // SAFETY: the memory is a mapping that `taken` keeps until the slot is deleted, and nothing
        // in this process takes references into it.
        unsafe { self.vm.set_user_memory_region(region) }.map_err(Into::into)
    }
}

fn refused(object: String, source: io::Error) -> AttachError {
    AttachError { action: "show the guest a device's memory", object, source }
}

impl MemorySlots for KvmSlots {
    fn add(&self, at: Gpa, memory: Arc<DeviceMemory>) -> Result<SlotId, AttachError> {
        let mut taken = self.taken.lock().unwrap_or_else(PoisonError::into_inner);
        let free = (FIRST..self.most).find(|slot| !taken.contains_key(slot));
        let full = || refused("all memory slots are taken".to_owned(), io::ErrorKind::StorageFull.into());
        let slot = free.ok_or_else(full)?;
        let region = kvm_userspace_memory_region {
            slot,
            flags: 0,
            guest_phys_addr: at.0,
            memory_size: memory.bytes(),
            userspace_addr: memory.start().0,
        };
        self.set(region).map_err(|e| refused(format!("{:#x} bytes at {at}", memory.bytes()), e))?;
        taken.insert(slot, memory);
        Ok(SlotId(slot))
    }

    fn remove(&self, slot: SlotId) -> Result<(), AttachError> {
        let mut taken = self.taken.lock().unwrap_or_else(PoisonError::into_inner);
        if !taken.contains_key(&slot.0) {
            return Err(refused(format!("slot {}", slot.0), io::ErrorKind::NotFound.into()));
        }
        let empty = kvm_userspace_memory_region { slot: slot.0, ..kvm_userspace_memory_region::default() };
        self.set(empty).map_err(|e| refused(format!("slot {}", slot.0), e))?;
        taken.remove(&slot.0);
        Ok(())
    }
}

impl Drop for KvmSlots {
    /// The VM's file may live longer than the mappings.
    fn drop(&mut self) {
        let taken = std::mem::take(&mut *self.taken.lock().unwrap_or_else(PoisonError::into_inner));
        for slot in taken.keys() {
            let empty = kvm_userspace_memory_region { slot: *slot, ..kvm_userspace_memory_region::default() };
            let _ = self.set(empty);
        }
    }
}

#[cfg(test)]
mod tests {
    use std::os::fd::AsFd;

    use vmm_memory::DeviceAccess;

    use super::*;
    use crate::{ApicId, Hints, KvmVm};

    #[test]
    fn slots_are_taken_and_given_back() {
        let vm = match KvmVm::new(1, ApicId(0), Hints::None) {
            Ok(vm) => vm,
            Err(e) => return println!("skipped: no KVM here: {e}"),
        };
        let file = tempfile::tempfile().unwrap();
        file.set_len(8192).unwrap();
        let memory = || Arc::new(DeviceMemory::map(file.as_fd(), 0, 8192, DeviceAccess::ReadWrite).unwrap());
        let slots = vm.slots();
        let first = slots.add(Gpa(0xc000_0000), memory()).unwrap();
        assert!(slots.add(Gpa(0xc000_1000), memory()).is_err(), "slots do not overlap");
        let second = slots.add(Gpa(0xc000_2000), memory()).unwrap();
        slots.remove(first).unwrap();
        assert!(slots.remove(first).is_err());
        assert_eq!(slots.add(Gpa(0xc000_0000), memory()).unwrap(), first);
        slots.remove(second).unwrap();
    }
}
