//! The segment: root buses behind two doors, the config ports and ECAM.
//!
//! Both doors lead to the same registers. Called on vCPU threads.

use std::sync::atomic::{AtomicU32, Ordering};
use std::sync::{Arc, Mutex};

use vmm_bus::{Bus, BusRange, SharedBusDevice};

use crate::bus::RootBus;
use crate::{Bdf, PciDevice, PciError, RegisterOffset, RootBusConfig};

/// The ports of configuration mechanism 1, for the port bus.
pub const CONFIG_PORTS: BusRange = BusRange { base: 0xcf8, len: 8 };

/// Size of one bus in the ECAM window.
pub const ECAM_BYTES_PER_BUS: u64 = 1 << 20;

const ENABLE: u32 = 1 << 31;
/// Enable, bus, device, function and register.
const ADDRESS_MASK: u32 = 0x80ff_fffc;

/// A PCI segment with its root buses.
#[derive(Debug)]
pub struct PciSegment {
    buses: Vec<RootBus>,
    mmio: Arc<Bus>,
}

impl PciSegment {
    /// A segment whose BARs are mapped on `mmio`.
    ///
    /// # Errors
    /// [`PciError::BadRootBus`] when two buses have one number or a window is impossible.
    pub fn new(mmio: Arc<Bus>, root_buses: Vec<RootBusConfig>) -> Result<Arc<Self>, PciError> {
        let mut buses: Vec<RootBus> = Vec::new();
        for config in root_buses {
            if buses.iter().any(|bus| bus.number() == config.number) {
                return Err(PciError::BadRootBus { bus: config.number });
            }
            buses.push(RootBus::new(config)?);
        }
        Ok(Arc::new(Self { buses, mmio }))
    }

    /// Puts a device at the first free device number of a root bus and gives its BARs
    /// addresses. They are mapped when the guest turns memory decode on.
    ///
    /// # Errors
    /// [`PciError`] when the bus does not exist or is full, or a window is.
    pub fn add(&self, bus: u8, device: Arc<Mutex<dyn PciDevice>>) -> Result<Bdf, PciError> {
        self.bus(bus).ok_or(PciError::NoBus { bus })?.add(device)
    }

    /// The same, at an exact address.
    ///
    /// # Errors
    /// As [`PciSegment::add`], and [`PciError::Taken`].
    pub fn add_at(&self, bdf: Bdf, device: Arc<Mutex<dyn PciDevice>>) -> Result<(), PciError> {
        self.bus(bdf.bus()).ok_or(PciError::NoBus { bus: bdf.bus() })?.add_at(bdf, device)
    }

    /// The device at an address.
    #[must_use]
    pub fn device(&self, bdf: Bdf) -> Option<Arc<Mutex<dyn PciDevice>>> {
        self.bus(bdf.bus())?.device(bdf.slot())
    }

    /// Takes a device's BARs off the bus, whatever its registers say: it is about to be gone.
    pub fn unplug(&self, bdf: Bdf) {
        if let Some(bus) = self.bus(bdf.bus()) {
            bus.unplug(&self.mmio, bdf.slot());
        }
    }

    /// Resets all devices and puts their config spaces and BARs back to the state before
    /// boot. No vCPU may run.
    pub fn reset(&self) {
        for bus in &self.buses {
            bus.reset(&self.mmio);
        }
    }

    /// Reads a register: all ones when nothing is there or the access crosses a register.
    pub fn config_read(&self, bdf: Bdf, offset: RegisterOffset, data: &mut [u8]) {
        match self.bus(bdf.bus()) {
            Some(bus) if offset.is_access(data.len()) => bus.read(bdf.slot(), offset, data),
            _ => data.fill(0xff),
        }
    }

    /// Writes a register and maps, moves or unmaps BARs as it says.
    pub fn config_write(&self, bdf: Bdf, offset: RegisterOffset, data: &[u8]) {
        if let Some(bus) = self.bus(bdf.bus())
            && offset.is_access(data.len())
        {
            bus.write(&self.mmio, bdf.slot(), offset, data);
        }
    }

    /// The door at [`CONFIG_PORTS`]. One per machine: it holds the address register.
    #[must_use]
    pub fn config_ports(self: &Arc<Self>) -> Arc<dyn SharedBusDevice> {
        Arc::new(ConfigPorts { segment: Arc::clone(self), address: AtomicU32::new(0) })
    }

    /// The ECAM door: [`ECAM_BYTES_PER_BUS`] per bus number from 0.
    #[must_use]
    pub fn ecam(self: &Arc<Self>) -> Arc<dyn SharedBusDevice> {
        Arc::new(Ecam { segment: Arc::clone(self) })
    }

    fn bus(&self, number: u8) -> Option<&RootBus> {
        self.buses.iter().find(|bus| bus.number() == number)
    }
}

/// Ports 0xcf8 (address) and 0xcfc (data).
#[derive(Debug)]
struct ConfigPorts {
    segment: Arc<PciSegment>,
    address: AtomicU32,
}

impl ConfigPorts {
    /// The register that the data ports stand for now; `None` while disabled.
    fn target(&self, offset: u64) -> Option<(Bdf, RegisterOffset)> {
        let address = self.address.load(Ordering::Relaxed);
        let byte = u16::try_from(offset.checked_sub(4)?).ok()?;
        if address & ENABLE == 0 {
            return None;
        }
        let [register, slot, bus, _] = address.to_le_bytes();
        Some((Bdf::from_bus_and_slot(bus, slot), RegisterOffset(u16::from(register & 0xfc) + byte)))
    }
}

impl SharedBusDevice for ConfigPorts {
    fn read(&self, offset: u64, data: &mut [u8]) {
        match self.target(offset) {
            Some((bdf, register)) => self.segment.config_read(bdf, register, data),
            None if offset == 0 && data.len() == 4 => {
                data.copy_from_slice(&self.address.load(Ordering::Relaxed).to_le_bytes());
            }
            None => data.fill(0xff),
        }
    }

    fn write(&self, offset: u64, data: &[u8]) {
        if let Some((bdf, register)) = self.target(offset) {
            self.segment.config_write(bdf, register, data);
        } else if let (0, Ok(bytes)) = (offset, <[u8; 4]>::try_from(data)) {
            self.address.store(u32::from_le_bytes(bytes) & ADDRESS_MASK, Ordering::Relaxed);
        }
    }
}

#[derive(Debug)]
struct Ecam {
    segment: Arc<PciSegment>,
}

impl Ecam {
    fn target(offset: u64) -> Option<(Bdf, RegisterOffset)> {
        let [register_low, slot_and_register, bus_and_slot, bus_high] =
            u32::try_from(offset).ok()?.to_le_bytes();
        if bus_high & 0xf0 != 0 {
            return None;
        }
        let register = u16::from_le_bytes([register_low, slot_and_register & 0x0f]);
        let slot = (slot_and_register >> 4) | (bus_and_slot << 4);
        let bus = (bus_and_slot >> 4) | (bus_high << 4);
        Some((Bdf::from_bus_and_slot(bus, slot), RegisterOffset(register)))
    }
}

impl SharedBusDevice for Ecam {
    fn read(&self, offset: u64, data: &mut [u8]) {
        match Self::target(offset) {
            Some((bdf, register)) => self.segment.config_read(bdf, register, data),
            None => data.fill(0xff),
        }
    }

    fn write(&self, offset: u64, data: &[u8]) {
        if let Some((bdf, register)) = Self::target(offset) {
            self.segment.config_write(bdf, register, data);
        }
    }
}
