//! The guest's ACPI tables: CPUs, NUMA cells, PCI host bridges, power.
//!
//! Called by the machine's builder, and again at each reboot. The platform is hardware-reduced
//! (no legacy power blocks). Numbers that devices must agree with are in [`platform`].

#![forbid(unsafe_code)]

mod dsdt;
pub mod platform;
mod tables;

use vm_memory::{Bytes, GuestAddress, GuestMemoryMmap};
use vmm_bus::Gpa;
use vmm_memory::layout::{self, Stretch};

/// What the tables say.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct AcpiConfig {
    /// vCPUs, by index.
    pub cpus: Vec<Cpu>,
    /// NUMA cells, by number. With one cell no NUMA tables are written.
    pub cells: Vec<Cell>,
    /// PCI host bridges.
    pub host_bridges: Vec<HostBridge>,
}

/// A vCPU.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Cpu {
    /// Its APIC id, as CPUID says it.
    pub apic_id: u32,
    /// Its cell.
    pub cell: u32,
}

/// A NUMA cell.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Cell {
    /// Its memory.
    pub memory: Vec<Stretch>,
    /// Distances to cells 0, 1, …; 10 to itself. Where two cells disagree, the later one is right:
    /// guests are told one distance for both directions. Above 255 is out of reach.
    pub distances: Vec<u32>,
}

/// A PCI host bridge. Its windows are exactly what BARs are allocated from: Linux moves
/// BARs that lie elsewhere.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct HostBridge {
    /// First bus.
    pub first_bus: u8,
    /// Last bus.
    pub last_bus: u8,
    /// 32-bit memory window.
    pub window32: Option<Stretch>,
    /// 64-bit memory window.
    pub window64: Option<Stretch>,
    /// The cell it belongs to.
    pub cell: Option<u32>,
}

/// Why the tables were not written.
#[derive(Debug, thiserror::Error)]
pub enum AcpiError {
    /// They do not fit.
    #[error(
        "The ACPI tables take {needed} bytes, {room} are reserved: the guest has too many vCPUs or cells"
    )]
    TooLarge {
        /// Bytes needed.
        needed: u64,
        /// Bytes reserved.
        room: u64,
    },
    /// Guest memory could not be written.
    #[error("Cannot write the ACPI tables to guest memory")]
    Write(#[source] vm_memory::GuestMemoryError),
}

/// Where the tables start: what the kernel is told.
pub const RSDP: Gpa = layout::ACPI;

/// Writes all tables into guest memory at [`RSDP`].
///
/// # Errors
/// [`AcpiError`]; guest memory may have been written to.
pub fn write(memory: &GuestMemoryMmap, config: &AcpiConfig) -> Result<(), AcpiError> {
    let image = tables::image(config, RSDP);
    let (needed, room) = (image.len() as u64, layout::ACPI_LEN);
    if needed > room {
        return Err(AcpiError::TooLarge { needed, room });
    }
    memory.write_slice(&image, GuestAddress(RSDP.0)).map_err(AcpiError::Write)
}
