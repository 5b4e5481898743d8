//! The guest's side, for tests and fuzz targets: a driver that sets a device up and puts
//! requests into its queues, and kernel mocks that record what the device asks for.
//!
//! Single-threaded: the caller serves the device's event loop between steps. Panics on
//! anything that only a wrong test can cause.

#![expect(clippy::unwrap_used, reason = "a test that cannot be set up has failed")]

use std::collections::BTreeMap;
use std::sync::{Arc, Mutex};

use vm_memory::{Bytes, GuestAddress, GuestMemoryMmap};
use vmm_bus::{AttachError, DoorbellAddress, Doorbells, Gpa, Gsi, MsiMessage, MsiRouter};
use vmm_pci::{BarIndex, PciDevice};
use vmm_sys_util::eventfd::EventFd;

use crate::features::VERSION_1;
use crate::{VirtioDevice, VirtioPciDevice};

/// Guest memory: two regions of 4 MiB that touch.
pub const MEMORY: u64 = 8 << 20;
/// Where a driver puts its data.
pub const DATA: u64 = 1 << 20;
/// Where rings are: 64 KiB for each queue.
const RINGS: u64 = 0x4_0000;
const NEXT: u16 = 1;
const WRITE: u16 = 2;
const INDIRECT: u16 = 4;

/// Records routes; an unmasked vector's event can be asked for by its message data.
#[derive(Debug, Default)]
pub struct MockRouter {
    routes: Mutex<BTreeMap<u32, (MsiMessage, Option<EventFd>)>>,
}

impl MockRouter {
    /// Interrupts with this message data since the last time; only unmasked ones count.
    #[must_use]
    pub fn take(&self, data: u32) -> u64 {
        let routes = self.routes.lock().unwrap();
        let live = routes.values().filter(|(message, _)| message.data == data);
        live.filter_map(|(_, event)| event.as_ref()?.read().ok()).sum()
    }

    /// GSIs that are taken, and those of them that are unmasked.
    #[must_use]
    pub fn counts(&self) -> (usize, usize) {
        let routes = self.routes.lock().unwrap();
        (routes.len(), routes.values().filter(|(_, event)| event.is_some()).count())
    }
}

impl MsiRouter for MockRouter {
    fn allocate(&self) -> Result<Gsi, AttachError> {
        let mut routes = self.routes.lock().unwrap();
        let gsi = (24..).find(|gsi| !routes.contains_key(gsi)).unwrap();
        routes.insert(gsi, (MsiMessage::default(), None));
        Ok(Gsi(gsi))
    }

    fn release(&self, gsi: Gsi) {
        let released = self.routes.lock().unwrap().remove(&gsi.0);
        assert!(matches!(released, Some((_, None))), "{gsi} was released while unmasked or not taken");
    }

    fn unmask(&self, gsi: Gsi, message: MsiMessage, event: &EventFd) -> Result<(), AttachError> {
        let old = self.routes.lock().unwrap().insert(gsi.0, (message, Some(event.try_clone().unwrap())));
        assert!(matches!(old, Some((_, None))), "{gsi} was unmasked twice or not taken");
        Ok(())
    }

    fn mask(&self, gsi: Gsi, _event: &EventFd) -> Result<(), AttachError> {
        let mut routes = self.routes.lock().unwrap();
        let route = routes.get_mut(&gsi.0).unwrap();
        assert!(route.1.take().is_some(), "{gsi} was masked twice");
        Ok(())
    }

    fn send(&self, _message: MsiMessage) -> Result<(), AttachError> {
        Ok(())
    }
}

/// Records doorbells; kicks go the slow way, through the BAR.
#[derive(Debug, Default)]
pub struct MockDoorbells {
    attached: Mutex<Vec<Gpa>>,
}

impl MockDoorbells {
    /// Where doorbells are attached now.
    #[must_use]
    pub fn attached(&self) -> Vec<Gpa> {
        self.attached.lock().unwrap().clone()
    }
}

impl Doorbells for MockDoorbells {
    fn attach(
        &self,
        address: DoorbellAddress,
        _value: Option<u16>,
        _event: &EventFd,
    ) -> Result<(), AttachError> {
        if let DoorbellAddress::Mmio(at) = address {
            let mut attached = self.attached.lock().unwrap();
            assert!(!attached.contains(&at), "{at} was attached twice");
            attached.push(at);
        }
        Ok(())
    }

    fn detach(
        &self,
        address: DoorbellAddress,
        _value: Option<u16>,
        _event: &EventFd,
    ) -> Result<(), AttachError> {
        let mut attached = self.attached.lock().unwrap();
        let before = attached.len();
        attached.retain(|&at| DoorbellAddress::Mmio(at) != address);
        assert_eq!(attached.len() + 1, before, "detached what was not attached");
        Ok(())
    }
}

/// A buffer of a request.
#[derive(Clone, Copy, Debug)]
pub struct Buffer {
    /// Guest physical address.
    pub address: u64,
    /// Bytes.
    pub len: u32,
    /// The device writes it.
    pub device_writes: bool,
}

impl Buffer {
    /// For the device to read.
    #[must_use]
    pub fn readable(address: u64, len: u32) -> Self {
        Self { address, len, device_writes: false }
    }

    /// For the device to write.
    #[must_use]
    pub fn writable(address: u64, len: u32) -> Self {
        Self { address, len, device_writes: true }
    }
}

/// The driver's view of a queue.
#[derive(Clone, Debug)]
pub struct DriverQueue {
    memory: Arc<GuestMemoryMmap>,
    base: u64,
    size: u16,
    next_descriptor: u16,
    available: u16,
    used_seen: u16,
}

impl DriverQueue {
    /// Where its descriptor table, available ring and used ring are.
    #[must_use]
    pub fn addresses(&self) -> [u64; 3] {
        [self.base, self.base + 0x4000, self.base + 0x8000]
    }

    /// Writes a descriptor by hand.
    pub fn descriptor(&self, index: u16, buffer: Buffer, flags: u16, next: u16) {
        let at = self.addresses()[0] + u64::from(index) * 16;
        self.write_descriptor(at, buffer, flags, next);
    }

    fn write_descriptor(&self, at: u64, buffer: Buffer, flags: u16, next: u16) {
        let flags = flags | if buffer.device_writes { WRITE } else { 0 };
        let mut bytes = [0_u8; 16];
        bytes[..8].copy_from_slice(&buffer.address.to_le_bytes());
        bytes[8..12].copy_from_slice(&buffer.len.to_le_bytes());
        bytes[12..14].copy_from_slice(&flags.to_le_bytes());
        bytes[14..].copy_from_slice(&next.to_le_bytes());
        self.memory.write_slice(&bytes, GuestAddress(at)).unwrap();
    }

    /// Adds a chain and makes it available; gives its head.
    pub fn add(&mut self, buffers: &[Buffer]) -> u16 {
        let head = self.next_descriptor;
        for (position, buffer) in buffers.iter().enumerate() {
            let index = self.next_descriptor;
            self.next_descriptor = (index + 1) % self.size;
            let more = if position + 1 < buffers.len() { NEXT } else { 0 };
            self.descriptor(index, *buffer, more, self.next_descriptor);
        }
        self.offer(head);
        head
    }

    /// Adds a chain through an indirect table at `table`.
    pub fn add_indirect(&mut self, table: u64, buffers: &[Buffer]) -> u16 {
        for (index, buffer) in (0_u16..).zip(buffers) {
            let more = if usize::from(index) + 1 < buffers.len() { NEXT } else { 0 };
            self.write_descriptor(table + u64::from(index) * 16, *buffer, more, index + 1);
        }
        let head = self.next_descriptor;
        self.next_descriptor = (head + 1) % self.size;
        let len = u32::try_from(buffers.len() * 16).unwrap();
        self.descriptor(head, Buffer::readable(table, len), INDIRECT, 0);
        self.offer(head);
        head
    }

    /// Makes a head available, whatever it is.
    pub fn offer(&mut self, head: u16) {
        let slot = self.addresses()[1] + 4 + u64::from(self.available % self.size) * 2;
        self.memory.write_obj(head.to_le(), GuestAddress(slot)).unwrap();
        self.available = self.available.wrapping_add(1);
        self.set_available(self.available);
    }

    /// Sets the available index by hand.
    pub fn set_available(&self, index: u16) {
        self.memory.write_obj(index.to_le(), GuestAddress(self.addresses()[1] + 2)).unwrap();
    }

    /// Sets the index after which the driver wants an interrupt.
    pub fn set_used_event(&self, index: u16) {
        let at = self.addresses()[1] + 4 + u64::from(self.size) * 2;
        self.memory.write_obj(index.to_le(), GuestAddress(at)).unwrap();
    }

    /// The index at which the device wants a kick.
    #[must_use]
    pub fn available_event(&self) -> u16 {
        let at = self.addresses()[2] + 4 + u64::from(self.size) * 8;
        u16::from_le(self.memory.read_obj(GuestAddress(at)).unwrap())
    }

    /// How many chains the device has handed back in all.
    #[must_use]
    pub fn used_index(&self) -> u16 {
        u16::from_le(self.memory.read_obj(GuestAddress(self.addresses()[2] + 2)).unwrap())
    }

    /// The next chain that the device has handed back: its head and the bytes written.
    pub fn take_used(&mut self) -> Option<(u32, u32)> {
        if self.used_seen == self.used_index() {
            return None;
        }
        let at = self.addresses()[2] + 4 + u64::from(self.used_seen % self.size) * 8;
        self.used_seen = self.used_seen.wrapping_add(1);
        let [head, len]: [u32; 2] = self.memory.read_obj(GuestAddress(at)).unwrap();
        Some((u32::from_le(head), u32::from_le(len)))
    }
}

/// A device with a driver.
#[derive(Debug)]
pub struct Driver {
    /// The function; not on a bus.
    pub function: VirtioPciDevice,
    /// Guest memory.
    pub memory: Arc<GuestMemoryMmap>,
    /// What the function asked of the interrupt controller.
    pub router: Arc<MockRouter>,
    /// What the function asked of the kernel's doorbells.
    pub doorbells: Arc<MockDoorbells>,
}

impl Driver {
    /// A function that the driver has not touched.
    #[must_use]
    pub fn new(device: Box<dyn VirtioDevice>) -> Self {
        let half = usize::try_from(MEMORY / 2).unwrap();
        let regions = [(GuestAddress(0), half), (GuestAddress(MEMORY / 2), half)];
        let memory = Arc::new(GuestMemoryMmap::from_ranges(&regions).unwrap());
        let (router, doorbells) = (Arc::new(MockRouter::default()), Arc::new(MockDoorbells::default()));
        let kernel: (Arc<dyn MsiRouter>, Arc<dyn Doorbells>) = (router.clone(), doorbells.clone());
        let function = VirtioPciDevice::new(device, Arc::clone(&memory), kernel.0, kernel.1).unwrap();
        Self { function, memory, router, doorbells }
    }

    /// Reads a register of the common configuration.
    pub fn read(&mut self, offset: u64, len: usize) -> u64 {
        let mut bytes = [0; 8];
        self.function.bar_read(BarIndex::FIRST, offset, &mut bytes[..len]);
        u64::from_le_bytes(bytes)
    }

    /// Writes a register of the common configuration.
    pub fn write(&mut self, offset: u64, len: usize, value: u64) {
        self.function.bar_write(BarIndex::FIRST, offset, &value.to_le_bytes()[..len]);
    }

    /// What the device offers.
    pub fn offered(&mut self) -> u64 {
        self.write(0, 4, 0);
        let low = self.read(4, 4);
        self.write(0, 4, 1);
        low | (self.read(4, 4) << 32)
    }

    /// The status register.
    pub fn status(&mut self) -> u8 {
        self.read(20, 1).to_le_bytes()[0]
    }

    /// Status up to features; says whether the device accepted `features` with version 1.
    pub fn negotiate(&mut self, features: u64) -> bool {
        self.write(20, 1, 1);
        self.write(20, 1, 3);
        let features = features | VERSION_1;
        for half in 0..2 {
            self.write(8, 4, half);
            self.write(12, 4, (features >> (32 * half)) & 0xffff_ffff);
        }
        self.write(20, 1, 11);
        self.status() & 8 != 0
    }

    /// Turns MSI-X on with an unmasked vector for each queue and one for changes; the message
    /// data of a vector is its number. In a BAR of its own, as drivers do.
    pub fn enable_interrupts(&mut self, queues: u16) {
        let control = self.msix_control();
        self.function.config_write(vmm_pci::RegisterOffset(control), &0x8000_u16.to_le_bytes());
        for vector in 0..=u64::from(queues) {
            let entry = 0x4000 + vector * 16;
            self.write(entry, 4, 0xfee0_0000);
            self.write(entry + 8, 4, vector);
            self.write(entry + 12, 4, 0);
        }
        self.write(16, 2, u64::from(queues));
        for queue in 0..u64::from(queues) {
            self.write(22, 2, queue);
            self.write(26, 2, queue);
        }
    }

    fn msix_control(&mut self) -> u16 {
        let config = self.function.config();
        let mut at = config.word(0x34) & 0xff;
        while config.word(at) & 0xff != 0x11 {
            at = config.word(at) >> 8;
        }
        at + 2
    }

    /// Sets a queue up and enables it.
    pub fn queue(&mut self, index: u16, size: u16) -> DriverQueue {
        let base = RINGS + u64::from(index) * 0x1_0000;
        let memory = Arc::clone(&self.memory);
        self.memory.write_slice(&[0; 0x1_0000], GuestAddress(base)).unwrap();
        let queue = DriverQueue { memory, base, size, next_descriptor: 0, available: 0, used_seen: 0 };
        self.write(22, 2, index.into());
        self.write(24, 2, size.into());
        for (register, address) in [32, 40, 48].into_iter().zip(queue.addresses()) {
            self.write(register, 4, address & 0xffff_ffff);
            self.write(register + 4, 4, address >> 32);
        }
        self.write(28, 2, 1);
        queue
    }

    /// The driver is ready; says whether the device is, too.
    pub fn start(&mut self) -> bool {
        self.write(20, 1, 15);
        self.status() == 15
    }

    /// Kicks a queue.
    pub fn kick(&mut self, queue: u16) {
        self.write(0x3000 + u64::from(queue) * 4, 2, queue.into());
    }

    /// Writes guest memory.
    pub fn put(&self, address: u64, bytes: &[u8]) {
        self.memory.write_slice(bytes, GuestAddress(address)).unwrap();
    }

    /// Reads guest memory.
    #[must_use]
    pub fn get(&self, address: u64, len: usize) -> Vec<u8> {
        let mut bytes = vec![0; len];
        self.memory.read_slice(&mut bytes, GuestAddress(address)).unwrap();
        bytes
    }
}
