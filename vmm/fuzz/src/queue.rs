//! Steps on the queues of a device that was set up well: what is hostile is what they hold.

use arbitrary::Arbitrary;
use vmm_event_loop::EventLoop;
use vmm_virtio::VirtioDevice;
use vmm_virtio::driver::{Buffer, DATA, Driver, DriverQueue, MEMORY};

/// Descriptors of each queue.
const SIZE: u16 = 16;

/// An address that is more often interesting than not.
#[derive(Arbitrary, Clone, Copy, Debug)]
pub enum Address {
    /// In a few pages of data.
    Data(u16),
    /// In the rings.
    Rings(u16),
    /// Around the border of the two memory regions.
    Border(i8),
    /// Around the end of memory.
    End(i8),
    /// Anywhere.
    Any(u64),
}

impl Address {
    /// As the device sees it.
    pub fn get(self) -> u64 {
        match self {
            Self::Data(offset) => DATA + u64::from(offset),
            Self::Rings(offset) => 0x4_0000 + u64::from(offset),
            Self::Border(offset) => (MEMORY / 2).wrapping_add_signed(offset.into()),
            Self::End(offset) => MEMORY.wrapping_add_signed(offset.into()),
            Self::Any(address) => address,
        }
    }
}

/// A length that is more often possible than not.
#[derive(Arbitrary, Clone, Copy, Debug)]
pub enum Length {
    /// Up to 255 bytes.
    Short(u8),
    /// Sectors.
    Sectors(u8),
    /// Any.
    Any(u32),
}

impl Length {
    fn get(self) -> u32 {
        match self {
            Self::Short(len) => len.into(),
            Self::Sectors(count) => u32::from(count) * 512,
            Self::Any(len) => len,
        }
    }
}

/// One thing that a driver does.
#[derive(Arbitrary, Clone, Debug)]
pub enum Step {
    /// A chain as drivers make it.
    Chain { queue: u8, buffers: Vec<(Address, Length, bool)> },
    /// The same through an indirect table.
    Indirect { queue: u8, table: Address, buffers: Vec<(Address, Length, bool)> },
    /// A descriptor of any kind.
    Descriptor { queue: u8, index: u8, address: Address, length: Length, flags: u16, next: u16 },
    /// A head of any kind.
    Offer { queue: u8, head: u16 },
    /// An available index of any kind.
    Available { queue: u8, index: u16 },
    /// When to be interrupted.
    UsedEvent { queue: u8, index: u16 },
    /// Bytes in memory.
    Put { address: Address, bytes: Vec<u8> },
    /// The header of a block request.
    BlockHeader { offset: u16, kind: u8, sector: u64 },
    /// A kick, and what comes of it.
    Kick { queue: u8 },
    /// Anything into the BAR.
    Register { offset: u16, value: u32, width: u8 },
    /// A reset, and all from the start with these features.
    Restart { features: u64 },
}

/// A device whose queues are set up.
pub struct Rig {
    driver: Driver,
    queues: Vec<DriverQueue>,
    count: u16,
}

impl Rig {
    /// Sets up all queues of a device.
    pub fn new(device: Box<dyn VirtioDevice>, features: u64) -> Self {
        let count = u16::try_from(device.queue_sizes().len()).unwrap_or(1);
        let mut rig = Self { driver: Driver::new(device), queues: Vec::new(), count };
        rig.start(features);
        rig
    }

    fn start(&mut self, features: u64) {
        self.driver.write(20, 1, 0);
        let features = features & self.driver.offered();
        self.driver.negotiate(features);
        self.driver.enable_interrupts(self.count);
        self.queues = (0..self.count).map(|index| self.driver.queue(index, SIZE)).collect();
        self.driver.start();
    }

    /// Does one step.
    pub fn step(&mut self, step: Step, event_loop: &EventLoop) {
        let pick = |queue: u8| usize::from(queue) % usize::from(self.count);
        match step {
            Step::Chain { queue, buffers } => {
                let buffers = chain(&buffers);
                self.queues[pick(queue)].add(&buffers);
            }
            Step::Indirect { queue, table, buffers } => {
                let buffers = chain(&buffers);
                let table = table.get();
                if table < MEMORY - 0x1000 {
                    self.queues[pick(queue)].add_indirect(table, &buffers);
                }
            }
            Step::Descriptor { queue, index, address, length, flags, next } => {
                let buffer = Buffer::readable(address.get(), length.get());
                self.queues[pick(queue)].descriptor(u16::from(index) % SIZE, buffer, flags, next);
            }
            Step::Offer { queue, head } => self.queues[pick(queue)].offer(head),
            Step::Available { queue, index } => self.queues[pick(queue)].set_available(index),
            Step::UsedEvent { queue, index } => self.queues[pick(queue)].set_used_event(index),
            Step::Put { address, bytes } => self.put(address.get(), &bytes),
            Step::BlockHeader { offset, kind, sector } => {
                let mut header = [0; 16];
                header[0] = kind;
                header[8..].copy_from_slice(&sector.to_le_bytes());
                self.put(DATA + u64::from(offset), &header);
            }
            Step::Kick { queue } => {
                self.driver.kick(queue.into());
                crate::serve(event_loop);
            }
            Step::Register { offset, value, width } => {
                self.driver.write(offset.into(), 1 << (width % 3), value.into());
                crate::serve(event_loop);
            }
            Step::Restart { features } => self.start(features),
        }
    }

    fn put(&self, address: u64, bytes: &[u8]) {
        if address.checked_add(bytes.len() as u64).is_some_and(|end| end <= MEMORY) {
            self.driver.put(address, bytes);
        }
    }

    /// The guest reboots: nothing may be left.
    pub fn finish(mut self) {
        vmm_pci::PciDevice::reset(&mut self.driver.function);
        assert_eq!(self.driver.router.counts(), (0, 0));
        assert!(self.driver.doorbells.attached().is_empty());
        assert_eq!(self.driver.status(), 0);
    }
}

fn chain(buffers: &[(Address, Length, bool)]) -> Vec<Buffer> {
    let buffer = |&(address, length, device_writes): &(Address, Length, bool)| Buffer {
        address: address.get(),
        len: length.get(),
        device_writes,
    };
    buffers.iter().take(SIZE.into()).map(buffer).collect()
}
