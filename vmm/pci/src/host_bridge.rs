//! The host bridge: a function without registers of its own that says "here is a PCI bus".

use crate::{BarIndex, ClassCode, ConfigSpace, DeviceIds, PciDevice};

/// Host bridge, for function 0 of device 0 of a root bus.
#[derive(Debug)]
pub struct HostBridge {
    config: ConfigSpace,
}

impl HostBridge {
    /// Known to guests as a generic PCIe host bridge that needs no driver.
    #[must_use]
    pub fn new() -> Self {
        let ids = DeviceIds {
            vendor: 0x1b36,
            device: 0x0008,
            revision: 0,
            subsystem_vendor: 0x1af4,
            subsystem: 0x1100,
        };
        Self { config: ConfigSpace::new(ids, ClassCode { class: 6, subclass: 0, interface: 0 }) }
    }
}

impl Default for HostBridge {
    fn default() -> Self {
        Self::new()
    }
}

impl PciDevice for HostBridge {
    fn config(&self) -> &ConfigSpace {
        &self.config
    }

    fn config_mut(&mut self) -> &mut ConfigSpace {
        &mut self.config
    }

    fn bar_read(&mut self, _bar: BarIndex, _offset: u64, data: &mut [u8]) {
        data.fill(0xff);
    }

    fn bar_write(&mut self, _bar: BarIndex, _offset: u64, _data: &[u8]) {}

    fn reset(&mut self) {}
}
