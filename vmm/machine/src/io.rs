//! Where exits of vCPUs go: the port bus and the MMIO bus.

use std::sync::Arc;

use vmm_bus::{Bus, Gpa, Port};
use vmm_kvm::IoHandler;

/// Both buses.
#[derive(Clone, Debug, Default)]
pub(crate) struct Buses {
    pub(crate) ports: Arc<Bus>,
    pub(crate) mmio: Arc<Bus>,
}

impl IoHandler for Buses {
    fn port_read(&self, port: Port, data: &mut [u8]) {
        self.ports.read(port.0.into(), data);
    }

    fn port_write(&self, port: Port, data: &[u8]) {
        self.ports.write(port.0.into(), data);
    }

    fn mmio_read(&self, address: Gpa, data: &mut [u8]) {
        self.mmio.read(address.0, data);
    }

    fn mmio_write(&self, address: Gpa, data: &[u8]) {
        self.mmio.write(address.0, data);
    }

    fn end_of_interrupt(&self, _vector: u8) {}
}
