//! Virtio devices: each built, wrapped in its transport and put on the PCI bus.

use std::sync::{Arc, Mutex};

use vmm_bus::{Doorbells, MsiRouter};
use vmm_event_loop::EventLoopHandle;
use vmm_memory::GuestRam;
use vmm_pci::PciSegment;
use vmm_virtio::block::{BlockDevice, BlockMetrics, BlockOptions, SerialNumber};
use vmm_virtio::net::{MacAddress, NetDevice, NetMetrics, NetOptions, TapPort};
use vmm_virtio::rng::RngDevice;
use vmm_virtio::{VirtioDevice, VirtioPciDevice};

use crate::config::{DiskConfig, NetConfig};
use crate::error::ArmError;

/// Root bus of all devices.
const BUS: u8 = 0;

/// What devices are built with.
pub(crate) struct Slots {
    pub(crate) pci: Arc<PciSegment>,
    pub(crate) ram: Arc<GuestRam>,
    pub(crate) router: Arc<dyn MsiRouter>,
    pub(crate) doorbells: Arc<dyn Doorbells>,
}

/// Counters of all devices, by name.
#[derive(Debug, Default)]
pub(crate) struct Counters {
    pub(crate) disks: Vec<(String, Arc<BlockMetrics>)>,
    pub(crate) nets: Vec<(String, Arc<NetMetrics>)>,
}

impl Slots {
    /// A disk, served by `on`.
    pub(crate) fn disk(&self, disk: DiskConfig, on: EventLoopHandle) -> Result<Arc<BlockMetrics>, ArmError> {
        let options = BlockOptions { serial: SerialNumber::new(&disk.serial), ..BlockOptions::default() };
        let device = BlockDevice::new(disk.image, options, on);
        let metrics = device.metrics();
        self.plug(format!("the disk {:?}", disk.name), Box::new(device))?;
        Ok(metrics)
    }

    /// A network interface, served by `on`.
    pub(crate) fn net(&self, net: NetConfig, on: EventLoopHandle) -> Result<Arc<NetMetrics>, ArmError> {
        let name = format!("the network interface {:?}", net.name);
        let options = NetOptions { mac: MacAddress(net.mac), mtu: None };
        let device = NetDevice::new(Box::new(TapPort::new(net.tap)), options, on);
        let metrics = device.metrics();
        self.plug(name, Box::new(device))?;
        Ok(metrics)
    }

    /// A source of random bytes, served by `on`.
    pub(crate) fn rng(&self, on: EventLoopHandle) -> Result<(), ArmError> {
        self.plug("the source of random bytes".to_owned(), Box::new(RngDevice::new(on)))
    }

    fn plug(&self, name: String, device: Box<dyn VirtioDevice>) -> Result<(), ArmError> {
        let (router, doorbells) = (Arc::clone(&self.router), Arc::clone(&self.doorbells));
        let transport = VirtioPciDevice::new(device, Arc::clone(self.ram.memory()), router, doorbells)
            .map_err(|source| ArmError::Device { device: name.clone(), source: source.into() })?;
        self.pci
            .add(BUS, Arc::new(Mutex::new(transport)))
            .map_err(|source| ArmError::Pci { device: name, source })
            .map(drop)
    }
}
