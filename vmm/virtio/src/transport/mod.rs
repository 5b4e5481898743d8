//! Virtio over PCI: the function that the guest's driver sees.
//!
//! One 64-bit BAR holds all structures and the MSI-X table. Calls come from vCPU threads under
//! the function's lock. Queue kicks are taken by the kernel (ioeventfd); if it refuses, they
//! arrive here and are passed on, slower.

mod common_config;
mod layout;
mod pci_access;

use std::io;
use std::sync::Arc;

use virtio_queue::{Queue, QueueT};
use vm_memory::GuestMemoryMmap;
use vmm_bus::{DoorbellAddress, Doorbells, Gpa, MsiRouter};
use vmm_pci::{
    BarIndex, BarKind, ClassCode, ConfigSpace, DeviceIds, MsixTable, PciDevice, PciError, RegisterOffset,
    VectorIndex,
};
use vmm_sys_util::eventfd::{EFD_CLOEXEC, EFD_NONBLOCK, EventFd};

use crate::device::{Activation, ActiveQueue};
use crate::features::{EVENT_IDX, INDIRECT_DESC, VERSION_1};
use crate::{DeviceType, VirtQueue, VirtioDevice, VirtioInterrupt};
use common_config::{CommonConfig, Effect};
use layout::Region;
use pci_access::PciAccess;

/// Queues for which the BAR has doorbells and vectors.
const MAX_QUEUES: usize = 255;

/// Why a function could not be built.
#[derive(Debug, thiserror::Error)]
pub enum TransportError {
    /// A queue size that is no power of two, or too many queues.
    #[error("A virtio device has {count} queues of which one is not possible")]
    Queues {
        /// How many.
        count: usize,
    },
    /// Out of file descriptors.
    #[error("Cannot create the doorbells of a virtio device; raise the limit of open files")]
    Events(#[source] io::Error),
    /// The function does not fit.
    #[error("Cannot lay out a virtio function")]
    Pci(#[from] PciError),
}

/// A virtio device as a PCI function.
#[derive(Debug)]
pub struct VirtioPciDevice {
    config: ConfigSpace,
    msix: MsixTable,
    common: CommonConfig,
    pci_access: PciAccess,
    interrupt: Arc<VirtioInterrupt>,
    kicks: Vec<Kick>,
    bar: Option<Gpa>,
    device: Box<dyn VirtioDevice>,
    memory: Arc<GuestMemoryMmap>,
    doorbells: Arc<dyn Doorbells>,
    doorbell_faults: u64,
}

/// The doorbell of one queue.
#[derive(Debug)]
struct Kick {
    event: Arc<EventFd>,
    attached: Option<Gpa>,
}

impl VirtioPciDevice {
    /// Wraps `device`.
    ///
    /// # Errors
    /// [`TransportError`].
    pub fn new(
        device: Box<dyn VirtioDevice>,
        memory: Arc<GuestMemoryMmap>,
        router: Arc<dyn MsiRouter>,
        doorbells: Arc<dyn Doorbells>,
    ) -> Result<Self, TransportError> {
        let sizes = device.queue_sizes();
        let count = sizes.len();
        if count > MAX_QUEUES || sizes.iter().any(|&size| Queue::new(size).is_err()) {
            return Err(TransportError::Queues { count });
        }
        let kick = |_: &u16| {
            let event = EventFd::new(EFD_NONBLOCK | EFD_CLOEXEC)?;
            Ok(Kick { event: Arc::new(event), attached: None })
        };
        let kicks = sizes.iter().map(kick).collect::<Result<Vec<_>, _>>().map_err(TransportError::Events)?;
        let vectors = u16::try_from(count + 1).map_err(|_| TransportError::Queues { count })?;
        let mut msix = MsixTable::new(router, vectors).map_err(TransportError::Events)?;
        let events = (0..vectors).filter_map(|vector| msix.event(VectorIndex(vector))).collect();
        let interrupt = Arc::new(VirtioInterrupt::new(events, count));
        let mut config = ConfigSpace::new(ids(device.device_type()), class(device.device_type()));
        config.add_bar(BarIndex::FIRST, BarKind::Memory64, layout::BAR_LEN)?;
        layout::announce(&mut config)?;
        let pci_access = PciAccess::announce(&mut config)?;
        msix.announce(&mut config, BarIndex::FIRST, layout::MSIX_TABLE, layout::MSIX_PENDING)?;
        let offered = device.features() | VERSION_1 | EVENT_IDX | INDIRECT_DESC;
        let common = CommonConfig::new(offered, sizes);
        Ok(Self {
            config,
            msix,
            common,
            pci_access,
            interrupt,
            kicks,
            bar: None,
            device,
            memory,
            doorbells,
            doorbell_faults: 0,
        })
    }

    /// How often the kernel refused a doorbell or an interrupt route.
    #[must_use]
    pub fn faults(&self) -> u64 {
        self.doorbell_faults + self.msix.faults()
    }

    /// The driver broke the rules and has not reset the device since.
    #[must_use]
    pub fn is_broken(&self) -> bool {
        self.interrupt.is_broken()
    }

    fn apply(&mut self, effect: Effect) {
        match effect {
            Effect::None => {}
            Effect::Reset => self.reset_device(),
            Effect::Activate => {
                if !self.activate() {
                    self.interrupt.needs_reset();
                }
            }
        }
    }

    fn activate(&mut self) -> bool {
        let Some(queues) = self.common.build_queues(&self.memory) else { return false };
        let queues = queues
            .into_iter()
            .filter_map(|(index, queue)| {
                let kick = Arc::clone(&self.kicks.get(usize::from(index))?.event);
                let (memory, interrupt) = (Arc::clone(&self.memory), Arc::clone(&self.interrupt));
                Some(ActiveQueue { index, queue: VirtQueue::new(queue, index, memory, interrupt), kick })
            })
            .collect();
        let features = self.common.negotiated();
        let interrupt = Arc::clone(&self.interrupt);
        if self.device.activate(Activation { features, queues, interrupt }).is_err() {
            return false;
        }
        self.attach_doorbells();
        true
    }

    /// 1. The device stops: nothing touches queues, memory or interrupts after it.
    /// 2. Doorbells go, and what they still hold.
    /// 3. Registers go back.
    fn reset_device(&mut self) {
        self.device.reset();
        self.detach_doorbells();
        for kick in &self.kicks {
            let _ = kick.event.read();
        }
        self.interrupt.reset();
        self.common.reset();
    }

    fn attach_doorbells(&mut self) {
        let Some(bar) = self.bar.filter(|_| self.common.is_active()) else { return };
        for (index, kick) in (0..).zip(&mut self.kicks) {
            let Some(at) = bar.checked_add(layout::doorbell(index)) else { continue };
            if kick.attached.is_some() {
                continue;
            }
            match self.doorbells.attach(DoorbellAddress::Mmio(at), None, &kick.event) {
                Ok(()) => kick.attached = Some(at),
                Err(_) => self.doorbell_faults += 1,
            }
        }
    }

    fn detach_doorbells(&mut self) {
        for kick in &mut self.kicks {
            if let Some(at) = kick.attached.take()
                && self.doorbells.detach(DoorbellAddress::Mmio(at), None, &kick.event).is_err()
            {
                self.doorbell_faults += 1;
            }
        }
    }

    fn kick(&self, queue: u64) {
        if let Some(kick) = usize::try_from(queue).ok().and_then(|queue| self.kicks.get(queue)) {
            // Fails only when the counter is full: then the device is awake anyway.
            let _ = kick.event.write(1);
        }
    }

    fn structure_read(&mut self, offset: u64, data: &mut [u8]) {
        match layout::region(offset, data.len()) {
            Some((Region::Common, offset)) => self.common.read(offset, data, &self.interrupt),
            Some((Region::Isr, 0)) => {
                data.fill(0);
                if let Some(first) = data.first_mut() {
                    *first = self.interrupt.take_isr();
                }
            }
            Some((Region::Device, offset)) => self.device.config_read(offset, data),
            Some((Region::MsixTable, offset)) => self.msix.table_read(offset, data),
            Some((Region::MsixPending, offset)) => self.msix.pending_read(offset, data),
            Some((Region::Notify | Region::Isr, _)) => data.fill(0),
            None => data.fill(0xff),
        }
    }

    fn structure_write(&mut self, offset: u64, data: &[u8]) {
        match layout::region(offset, data.len()) {
            Some((Region::Common, offset)) => {
                let effect = self.common.write(offset, data, &self.interrupt);
                self.apply(effect);
            }
            Some((Region::Device, offset)) => self.device.config_write(offset, data),
            Some((Region::Notify, offset)) => self.kick(layout::rung(offset)),
            Some((Region::MsixTable, offset)) => self.msix.table_write(offset, data),
            Some((Region::MsixPending | Region::Isr, _)) | None => {}
        }
    }
}

impl PciDevice for VirtioPciDevice {
    fn config(&self) -> &ConfigSpace {
        &self.config
    }

    fn config_mut(&mut self) -> &mut ConfigSpace {
        &mut self.config
    }

    fn config_read(&mut self, offset: RegisterOffset, data: &mut [u8]) {
        if let Some((at, len)) = self.pci_access.window(&self.config, offset)
            && data.len() == len
        {
            self.structure_read(at, data);
        } else {
            self.config.read(offset, data);
        }
    }

    fn config_write(&mut self, offset: RegisterOffset, data: &[u8]) {
        self.config.write(offset, data);
        if let Some((at, len)) = self.pci_access.window(&self.config, offset)
            && data.len() == len
        {
            self.structure_write(at, data);
        }
        self.msix.follow_config(&self.config);
    }

    fn bar_read(&mut self, _bar: BarIndex, offset: u64, data: &mut [u8]) {
        self.structure_read(offset, data);
    }

    fn bar_write(&mut self, _bar: BarIndex, offset: u64, data: &[u8]) {
        self.structure_write(offset, data);
    }

    fn bar_mapped(&mut self, _bar: BarIndex, at: Gpa) -> Result<(), vmm_bus::AttachError> {
        self.bar = Some(at);
        self.attach_doorbells();
        Ok(())
    }

    fn bar_unmapped(&mut self, _bar: BarIndex, _at: Gpa) {
        self.detach_doorbells();
        self.bar = None;
    }

    fn reset(&mut self) {
        self.reset_device();
        self.msix.reset();
    }
}

impl Drop for VirtioPciDevice {
    fn drop(&mut self) {
        self.reset_device();
    }
}

fn ids(device: DeviceType) -> DeviceIds {
    let id = 0x1040 + device.id();
    DeviceIds { vendor: 0x1af4, device: id, revision: 1, subsystem_vendor: 0x1af4, subsystem: id }
}

fn class(device: DeviceType) -> ClassCode {
    let (class, subclass) = match device {
        DeviceType::Net => (0x02, 0x00),
        DeviceType::Block => (0x01, 0x80),
        DeviceType::Rng => (0x00, 0xff),
    };
    ClassCode { class, subclass, interface: 0 }
}

#[cfg(test)]
mod tests;
