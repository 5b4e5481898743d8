//! MSI routes and irqfds.
//!
//! Called on vCPU threads (a guest unmasks a vector) and I/O threads never: those only signal
//! their eventfds. KVM takes the whole table at each change.

use std::collections::BTreeMap;
use std::fmt;
use std::sync::{Arc, Mutex, PoisonError};

use kvm_bindings::{KVM_IRQ_ROUTING_MSI, KvmIrqRouting, kvm_irq_routing_entry, kvm_msi};
use kvm_ioctls::VmFd;
use vmm_bus::{AttachError, Gsi, MsiMessage, MsiRouter};
use vmm_sys_util::eventfd::EventFd;

/// Routes that KVM takes (`KVM_MAX_IRQ_ROUTES`).
const MOST_ROUTES: u32 = 4096;

/// The table of one VM.
pub struct KvmRouter {
    pub(crate) vm: Arc<VmFd>,
    first: u32,
    table: Mutex<Table>,
}

#[derive(Debug, Default)]
struct Table {
    /// Given out, with a route once unmasked.
    routes: BTreeMap<u32, Option<MsiMessage>>,
}

impl fmt::Debug for KvmRouter {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("KvmRouter")
            .field("first", &self.first)
            .field("table", &self.table)
            .finish_non_exhaustive()
    }
}

impl KvmRouter {
    /// An empty table whose GSIs start at `first`.
    pub(crate) fn new(vm: Arc<VmFd>, first: u32) -> Self {
        Self { vm, first, table: Mutex::default() }
    }

    fn install(&self, table: &Table, gsi: Gsi) -> Result<(), AttachError> {
        let entries: Vec<_> =
            table.routes.iter().filter_map(|(&gsi, message)| message.map(|m| entry(gsi, m))).collect();
        let refused =
            |source| AttachError { action: "set interrupt routes", object: format!("GSI {gsi}"), source };
        let routing = KvmIrqRouting::from_entries(&entries)
            .map_err(|e| refused(std::io::Error::other(format!("{e:?}"))))?;
        self.vm.set_gsi_routing(&routing).map_err(|e| refused(e.into()))
    }
}

fn halves(address: u64) -> (u32, u32) {
    let bytes = address.to_le_bytes();
    let [a, b, c, d, e, f, g, h] = bytes;
    (u32::from_le_bytes([a, b, c, d]), u32::from_le_bytes([e, f, g, h]))
}

fn entry(gsi: u32, message: MsiMessage) -> kvm_irq_routing_entry {
    let (low, high) = halves(message.address);
    let mut entry =
        kvm_irq_routing_entry { gsi, type_: KVM_IRQ_ROUTING_MSI, ..kvm_irq_routing_entry::default() };
    entry.u.msi.address_lo = low;
    entry.u.msi.address_hi = high;
    entry.u.msi.data = message.data;
    entry
}

impl MsiRouter for KvmRouter {
    fn allocate(&self) -> Result<Gsi, AttachError> {
        let mut table = self.table.lock().unwrap_or_else(PoisonError::into_inner);
        let free = (self.first..MOST_ROUTES).find(|gsi| !table.routes.contains_key(gsi));
        let gsi = free.ok_or_else(|| AttachError {
            action: "allocate an interrupt route",
            object: format!("all {MOST_ROUTES} are taken"),
            source: std::io::ErrorKind::StorageFull.into(),
        })?;
        table.routes.insert(gsi, None);
        Ok(Gsi(gsi))
    }

    fn release(&self, gsi: Gsi) {
        self.table.lock().unwrap_or_else(PoisonError::into_inner).routes.remove(&gsi.0);
    }

    fn unmask(&self, gsi: Gsi, message: MsiMessage, event: &EventFd) -> Result<(), AttachError> {
        let mut table = self.table.lock().unwrap_or_else(PoisonError::into_inner);
        let previous = table.routes.insert(gsi.0, Some(message));
        if previous != Some(Some(message)) {
            self.install(&table, gsi)?;
        }
        self.vm.register_irqfd(event, gsi.0).map_err(|e| AttachError {
            action: "attach an eventfd to an interrupt",
            object: format!("GSI {gsi}"),
            source: e.into(),
        })
    }

    fn mask(&self, gsi: Gsi, event: &EventFd) -> Result<(), AttachError> {
        self.vm.unregister_irqfd(event, gsi.0).map_err(|e| AttachError {
            action: "detach an eventfd from an interrupt",
            object: format!("GSI {gsi}"),
            source: e.into(),
        })
    }

    fn send(&self, message: MsiMessage) -> Result<(), AttachError> {
        let (address_lo, address_hi) = halves(message.address);
        let msi = kvm_msi { address_lo, address_hi, data: message.data, ..kvm_msi::default() };
        let sent = self.vm.signal_msi(msi).map_err(|e| AttachError {
            action: "send an interrupt",
            object: format!("{:#x} to {:#x}", message.data, message.address),
            source: e.into(),
        });
        // 0 means that the guest blocked it: its business.
        sent.map(drop)
    }
}

#[cfg(test)]
mod tests {
    use vmm_sys_util::eventfd::EFD_NONBLOCK;

    use super::*;
    use crate::{ApicId, Hints, KvmVm};

    fn vm() -> Option<KvmVm> {
        KvmVm::new(1, ApicId(0), Hints::None).map_err(|e| println!("skipped: no KVM here: {e}")).ok()
    }

    fn message(data: u32) -> MsiMessage {
        MsiMessage { address: 0xfee0_0000, data }
    }

    #[test]
    fn every_route_of_kvm_can_be_taken_and_not_one_more() {
        let Some(vm) = vm() else { return };
        let router = vm.router();
        let taken: Vec<_> = (24..MOST_ROUTES).map(|_| router.allocate().unwrap()).collect();
        assert_eq!((taken.first(), taken.last()), (Some(&Gsi(24)), Some(&Gsi(MOST_ROUTES - 1))));
        assert!(router.allocate().is_err());
        router.release(Gsi(700));
        assert_eq!(router.allocate().unwrap(), Gsi(700));
    }

    #[test]
    fn a_vector_is_masked_and_unmasked_again_and_again() {
        let Some(vm) = vm() else { return };
        let (router, event) = (vm.router(), EventFd::new(EFD_NONBLOCK).unwrap());
        let gsi = router.allocate().unwrap();
        for data in [0x30, 0x30, 0x31] {
            router.unmask(gsi, message(data), &event).unwrap();
            assert!(router.unmask(gsi, message(data), &event).is_err(), "the eventfd was not attached");
            router.mask(gsi, &event).unwrap();
            event.write(1).unwrap();
            assert_eq!(event.read().unwrap(), 1, "a signal while masked stays");
        }
        router.release(gsi);
    }
}
