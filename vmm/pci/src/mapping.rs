//! Keeps BAR registers and the MMIO bus in agreement.
//!
//! Runs under the device's lock after each config write. A BAR is mapped when memory decode
//! is on, at an address inside the windows of its root bus. What is impossible is undone in
//! the register, so that the guest reads what is true.

use std::fmt;
use std::sync::{Arc, Mutex, PoisonError};

use vmm_bus::{Bus, BusRange, Gpa, SharedBusDevice};

use crate::bar::{Bar, BarIndex};
use crate::{PciDevice, PciError, RegisterOffset, RootBusConfig};

pub(crate) type DeviceHandle = Arc<Mutex<dyn PciDevice>>;

/// A BAR's range on the MMIO bus.
struct BarWindow {
    device: DeviceHandle,
    index: BarIndex,
}

impl fmt::Debug for BarWindow {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("BarWindow").field("index", &self.index).finish_non_exhaustive()
    }
}

impl SharedBusDevice for BarWindow {
    fn read(&self, offset: u64, data: &mut [u8]) {
        let mut device = self.device.lock().unwrap_or_else(PoisonError::into_inner);
        device.bar_read(self.index, offset, data);
    }

    fn write(&self, offset: u64, data: &[u8]) {
        let mut device = self.device.lock().unwrap_or_else(PoisonError::into_inner);
        device.bar_write(self.index, offset, data);
    }
}

/// Where and for whom mappings are made.
#[derive(Debug)]
pub(crate) struct Mapper<'a> {
    pub(crate) mmio: &'a Bus,
    pub(crate) windows: &'a RootBusConfig,
    pub(crate) handle: &'a DeviceHandle,
}

impl Mapper<'_> {
    /// After a config write of `device` at `offset`: maps, moves and unmaps.
    pub(crate) fn follow(&self, device: &mut dyn PciDevice, offset: RegisterOffset) {
        if !device.config().memory_decode() {
            self.unmap_all(device);
            return;
        }
        for position in 0..device.config().bars().len() {
            let Some(bar) = device.config().bars().get(position).copied() else { return };
            // 1. A write to another register leaves a mapped BAR alone.
            // 2. The low half of a 64-bit address is not an address yet.
            // 3. A size probe is not an address at all.
            let dword = offset.dword();
            let decides = dword == bar.deciding_register() && !device.config().is_size_probe(dword);
            if bar.mapped.is_some() && !decides {
                continue;
            }
            if self.place(device, position, &bar).is_err() {
                // Not even the old address is free any more: the device answers nowhere.
                device.config_mut().turn_memory_decode_off();
                self.unmap_all(device);
                return;
            }
        }
    }

    pub(crate) fn unmap_all(&self, device: &mut dyn PciDevice) {
        for position in 0..device.config().bars().len() {
            self.unmap(device, position);
        }
    }

    /// Brings one BAR to the address in its register, or back to the last that worked.
    fn place(&self, device: &mut dyn PciDevice, position: usize, bar: &Bar) -> Result<(), PciError> {
        let wanted = device.config().bar_address(bar);
        if bar.mapped == Some(wanted) {
            return Ok(());
        }
        self.unmap(device, position);
        if self.map(device, position, bar, wanted).is_ok() {
            return Ok(());
        }
        device.config_mut().set_bar_address(bar, bar.fallback);
        self.map(device, position, bar, bar.fallback)
    }

    fn map(&self, device: &mut dyn PciDevice, position: usize, bar: &Bar, at: Gpa) -> Result<(), PciError> {
        if !self.windows.contains(at.0, bar.size) {
            return Err(PciError::OutsideWindows { address: at, size: bar.size });
        }
        let window = BarWindow { device: Arc::clone(self.handle), index: bar.index };
        self.mmio.register_shared(BusRange { base: at.0, len: bar.size }, Arc::new(window))?;
        if let Err(error) = device.bar_mapped(bar.index, at) {
            self.mmio.unregister(at.0);
            return Err(error.into());
        }
        if let Some(bar) = device.config_mut().bars_mut().get_mut(position) {
            bar.mapped = Some(at);
            bar.fallback = at;
        }
        Ok(())
    }

    fn unmap(&self, device: &mut dyn PciDevice, position: usize) {
        let Some(bar) = device.config_mut().bars_mut().get_mut(position) else { return };
        let index = bar.index;
        if let Some(at) = bar.mapped.take() {
            device.bar_unmapped(index, at);
            self.mmio.unregister(at.0);
        }
    }
}
