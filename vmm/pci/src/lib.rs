//! PCI: root buses, config space, BARs and MSI-X.
//!
//! `vmm-machine` builds one [`PciSegment`], adds devices to it and puts its two doors (the
//! config ports and the ECAM window) on its buses. Afterwards vCPU threads come in through
//! those doors and through BARs. Nothing here knows what a device does: emulated devices and
//! passed-through ones both implement [`PciDevice`].
//!
//! Lock order: a device, then the MMIO bus. Absent devices are answered without any lock.

#![forbid(unsafe_code)]

mod address;
mod bar;
mod bus;
mod config;
mod device;
mod host_bridge;
mod mapping;
mod msix;
mod segment;

pub use address::{Bdf, RegisterOffset};
pub use bar::{Bar, BarIndex, BarKind};
pub use bus::{PciError, RootBusConfig};
pub use config::{ClassCode, ConfigSpace, DeviceIds};
pub use device::PciDevice;
pub use host_bridge::HostBridge;
pub use msix::{MsixTable, VectorIndex};
pub use segment::{CONFIG_PORTS, ECAM_BYTES_PER_BUS, PciSegment};

#[cfg(test)]
mod tests;
