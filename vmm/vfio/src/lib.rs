//! Devices of the host given to the guest: VFIO.
//!
//! `vmm-machine` opens all devices of a guest in one IOMMU [`Domain`] while arming, makes a
//! [`VfioFunction`] of each and puts it on a PCI bus. Afterwards vCPU threads come in through config space
//! and BARs. Devices reach the guest's memory and nothing else.
//!
//! What it must never do: let a device do DMA before it was reset, or go back to the host unreset.

mod areas;
mod capabilities;
mod domain;
mod error;
#[cfg(any(test, feature = "fake"))]
pub mod fake;
mod function;
mod health;
mod host;
mod kernel;
mod msi;
mod msix;

pub use domain::{Domain, DomainKind, Opened, Source, Sources};
pub use error::PassthroughError;
pub use function::{Machine, VfioFunction};
pub use health::{Health, HealthReport};
pub use host::{Area, HostBar, HostFunction, Notice, Region, VectorKind};

#[cfg(test)]
mod tests;
