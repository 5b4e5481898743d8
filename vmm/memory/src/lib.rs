//! Guest memory: the guest-physical layout, and RAM on exact host NUMA nodes and page
//! sizes, populated before boot.
//!
//! Called by the machine's builder on the main thread; populating uses threads of its own.
//! It must never leave a page to be faulted in while the guest runs.

mod bind;
mod device_memory;
pub mod layout;
mod mapping;
mod ram;

pub use device_memory::{DeviceAccess, DeviceMemory, MemorySlots, SlotId};
pub use mapping::MappingError;
pub use ram::{CellRam, GuestRam, RamConfig, RamError, RamRegion};
