//! One root bus: 256 functions and the address windows their BARs live in.

use std::ops::Range;
use std::sync::{Arc, Mutex, MutexGuard, OnceLock, PoisonError};

use vm_allocator::{AddressAllocator, AllocPolicy};
use vmm_bus::{AttachError, Bus, BusError, Gpa};

use crate::mapping::{DeviceHandle, Mapper};
use crate::{Bdf, PciDevice, RegisterOffset};

/// Why a device or BAR could not be placed.
#[derive(Debug, thiserror::Error)]
pub enum PciError {
    /// A BAR that PCI cannot express.
    #[error("BAR {index} of {size:#x} bytes is not possible: sizes are powers of two from 16")]
    BadBar {
        /// Register.
        index: u8,
        /// Bytes.
        size: u64,
    },
    /// No room in config space.
    #[error("Capability {id:#x} does not fit into the config space")]
    CapabilitiesFull {
        /// Capability id.
        id: u8,
    },
    /// The segment has no such root bus.
    #[error("There is no root bus {bus:#x}")]
    NoBus {
        /// Bus number.
        bus: u8,
    },
    /// Two root buses of one number, or a window that ends before it starts.
    #[error("Root bus {bus:#x} is there twice or has an impossible window")]
    BadRootBus {
        /// Bus number.
        bus: u8,
    },
    /// All 32 device numbers are in use.
    #[error("PCI bus {bus:#x} is full: a bus has 32 devices; use fewer disks and interfaces")]
    BusFull {
        /// Bus number.
        bus: u8,
    },
    /// Somebody is there.
    #[error("PCI address {0} is taken")]
    Taken(Bdf),
    /// A window is full.
    #[error(
        "No room for a BAR of {size:#x} bytes of {bdf} in window {start:#x}..{end:#x}; enlarge the window"
    )]
    WindowFull {
        /// Whose BAR.
        bdf: Bdf,
        /// Bytes.
        size: u64,
        /// First address of the window.
        start: u64,
        /// End of the window.
        end: u64,
    },
    /// An address that is not for BARs.
    #[error("A BAR of {size:#x} bytes at {address} lies outside the windows of its root bus")]
    OutsideWindows {
        /// First address.
        address: Gpa,
        /// Bytes.
        size: u64,
    },
    /// The address is in use.
    #[error("Cannot map a BAR")]
    Map(#[from] BusError),
    /// The kernel refused a doorbell or slot in the BAR.
    #[error("Cannot attach what a BAR needs")]
    Attach(#[from] AttachError),
}

/// A root bus and its windows, as the host bridge's `_CRS` announces them.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct RootBusConfig {
    /// Bus number.
    pub number: u8,
    /// Window under 4 GiB; may be empty.
    pub memory_32: Range<u64>,
    /// Window for 64-bit BARs; may be empty, then they go under 4 GiB.
    pub memory_64: Range<u64>,
}

impl RootBusConfig {
    pub(crate) fn contains(&self, address: u64, size: u64) -> bool {
        let Some(end) = address.checked_add(size) else { return false };
        [&self.memory_32, &self.memory_64].iter().any(|window| window.start <= address && end <= window.end)
    }
}

#[derive(Debug)]
struct Windows {
    memory_32: Option<AddressAllocator>,
    memory_64: Option<AddressAllocator>,
}

#[derive(Debug)]
pub(crate) struct RootBus {
    config: RootBusConfig,
    slots: Box<[OnceLock<DeviceHandle>]>,
    free: Mutex<Windows>,
}

impl RootBus {
    pub(crate) fn new(config: RootBusConfig) -> Result<Self, PciError> {
        let bad = || PciError::BadRootBus { bus: config.number };
        let window = |range: &Range<u64>| match range.end.checked_sub(range.start) {
            None => Err(bad()),
            Some(0) => Ok(None),
            Some(len) => AddressAllocator::new(range.start, len).map(Some).map_err(|_| bad()),
        };
        let (memory_32, memory_64) = (window(&config.memory_32)?, window(&config.memory_64)?);
        if config.memory_32.end > 1 << 32 {
            return Err(bad());
        }
        let free = Mutex::new(Windows { memory_32, memory_64 });
        Ok(Self { config, slots: (0..256).map(|_| OnceLock::new()).collect(), free })
    }

    pub(crate) fn number(&self) -> u8 {
        self.config.number
    }

    /// Adds a device at the first free device number.
    pub(crate) fn add(&self, device: DeviceHandle) -> Result<Bdf, PciError> {
        let full = PciError::BusFull { bus: self.config.number };
        let free = |number: &u8| self.slots.get(usize::from(*number) << 3).is_some_and(|s| s.get().is_none());
        let number = (0..32).find(free).ok_or(full)?;
        let bdf = Bdf::from_bus_and_slot(self.config.number, number << 3);
        self.add_at(bdf, device)?;
        Ok(bdf)
    }

    pub(crate) fn add_at(&self, bdf: Bdf, device: DeviceHandle) -> Result<(), PciError> {
        let slot = self.slots.get(bdf.slot()).filter(|slot| slot.get().is_none());
        let slot = slot.ok_or(PciError::Taken(bdf))?;
        self.assign_bars(bdf, &mut *lock(&device))?;
        slot.set(device).map_err(|_| PciError::Taken(bdf))
    }

    /// Gives each BAR its address before boot, largest first so that no room is lost.
    fn assign_bars(&self, bdf: Bdf, device: &mut dyn PciDevice) -> Result<(), PciError> {
        let mut free = self.free.lock().unwrap_or_else(PoisonError::into_inner);
        let mut order: Vec<usize> = (0..device.config().bars().len()).collect();
        order.sort_by_key(|&position| device.config().bars().get(position).map(|bar| !bar.size));
        for position in order {
            let Some(bar) = device.config().bars().get(position).copied() else { continue };
            let high = bar.kind.is_64_bit() && free.memory_64.is_some();
            let (allocator, window) = if high {
                (&mut free.memory_64, &self.config.memory_64)
            } else {
                (&mut free.memory_32, &self.config.memory_32)
            };
            let range = allocator
                .as_mut()
                .and_then(|free| free.allocate(bar.size, bar.size, AllocPolicy::FirstMatch).ok());
            let full = PciError::WindowFull { bdf, size: bar.size, start: window.start, end: window.end };
            let home = Gpa(range.ok_or(full)?.start());
            let config = device.config_mut();
            config.set_bar_address(&bar, home);
            if let Some(bar) = config.bars_mut().get_mut(position) {
                (bar.home, bar.fallback) = (home, home);
            }
        }
        device.config_mut().seal();
        Ok(())
    }

    pub(crate) fn read(&self, slot: usize, offset: RegisterOffset, data: &mut [u8]) {
        match self.slots.get(slot).and_then(OnceLock::get) {
            Some(device) => lock(device).config_read(offset, data),
            None => data.fill(0xff),
        }
    }

    pub(crate) fn write(&self, mmio: &Bus, slot: usize, offset: RegisterOffset, data: &[u8]) {
        let Some(handle) = self.slots.get(slot).and_then(OnceLock::get) else { return };
        let mut device = lock(handle);
        device.config_write(offset, data);
        Mapper { mmio, windows: &self.config, handle }.follow(&mut *device, offset);
    }

    pub(crate) fn unplug(&self, mmio: &Bus, slot: usize) {
        let Some(handle) = self.slots.get(slot).and_then(OnceLock::get) else { return };
        let mut device = lock(handle);
        device.config_mut().turn_memory_decode_off();
        Mapper { mmio, windows: &self.config, handle }.unmap_all(&mut *device);
    }

    pub(crate) fn reset(&self, mmio: &Bus) {
        for handle in self.slots.iter().filter_map(OnceLock::get) {
            let mut device = lock(handle);
            Mapper { mmio, windows: &self.config, handle }.unmap_all(&mut *device);
            device.reset();
            device.config_mut().reset();
        }
    }

    pub(crate) fn device(&self, slot: usize) -> Option<DeviceHandle> {
        self.slots.get(slot).and_then(OnceLock::get).map(Arc::clone)
    }
}

fn lock(device: &DeviceHandle) -> MutexGuard<'_, dyn PciDevice + 'static> {
    device.lock().unwrap_or_else(PoisonError::into_inner)
}
