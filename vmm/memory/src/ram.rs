//! The guest's RAM: a mapping for each stretch of each cell.

use std::sync::Arc;

use vm_memory::{GuestAddress, GuestMemoryMmap, GuestRegionMmap};
use vmm_bus::{Gpa, Hva};

use crate::layout::{self, Stretch};
use crate::mapping::{self, MappingError};

/// What RAM to build.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct RamConfig {
    /// Cells in guest order; their RAM follows one another.
    pub cells: Vec<CellRam>,
}

/// RAM of one guest NUMA cell.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct CellRam {
    /// Its number.
    pub cell: u32,
    /// Bytes; a multiple of the page size.
    pub bytes: u64,
    /// Page size, bytes: 4096, 2 MiB or 1 GiB.
    pub page_size: u64,
    /// Host node, by OS index; `None` leaves it to the kernel.
    pub host_node: Option<u32>,
}

/// A stretch of guest RAM and where it lies in this process.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct RamRegion {
    /// Guest-physical start.
    pub gpa: Gpa,
    /// Start in this process.
    pub hva: Hva,
    /// Length, bytes.
    pub bytes: u64,
    /// Its cell.
    pub cell: u32,
    /// Page size, bytes.
    pub page_size: u64,
    /// Host node it is bound to.
    pub host_node: Option<u32>,
}

/// Why RAM was not built.
#[derive(Debug, thiserror::Error)]
pub enum RamError {
    /// No cells, or no bytes.
    #[error("The guest has no memory")]
    Empty,
    /// More than any machine can address.
    #[error("The cells' memory adds up to more than an address can hold")]
    TooLarge,
    /// A cell's memory could not be had.
    #[error("Cannot get the memory of cell {cell}")]
    Cell {
        /// The cell.
        cell: u32,
        /// Why.
        #[source]
        source: MappingError,
    },
    /// The pieces do not form a memory map.
    #[error("Cannot form the guest's memory map")]
    Map(#[source] Box<dyn std::error::Error + Send + Sync>),
}

/// The guest's RAM. Pages go back to the host when this and all clones of the map are dropped.
#[derive(Debug)]
pub struct GuestRam {
    memory: Arc<GuestMemoryMmap>,
    regions: Vec<RamRegion>,
}

impl GuestRam {
    /// Maps, binds and populates all cells.
    ///
    /// # Errors
    /// [`RamError`]; nothing stays mapped then.
    pub fn build(config: &RamConfig) -> Result<Self, RamError> {
        let sizes: Vec<u64> = config.cells.iter().map(|c| c.bytes).collect();
        let stretches = layout::ram_stretches(&sizes).ok_or(RamError::TooLarge)?;
        if stretches.is_empty() {
            return Err(RamError::Empty);
        }
        let (mut regions, mut pieces) = (Vec::new(), Vec::new());
        for (index, Stretch { start, len }) in stretches {
            let Some(&CellRam { cell, page_size, host_node, .. }) = config.cells.get(index) else { continue };
            let mapped =
                mapping::map(len, page_size, host_node).map_err(|source| RamError::Cell { cell, source })?;
            let hva = Hva(mapped.as_ptr() as u64);
            regions.push(RamRegion { gpa: start, hva, bytes: len, cell, page_size, host_node });
            pieces.push(GuestRegionMmap::new(mapped, GuestAddress(start.0)).ok_or(RamError::TooLarge)?);
        }
        let memory =
            GuestMemoryMmap::from_regions(pieces).map_err(|e| RamError::Map(e.to_string().into()))?;
        Ok(Self { memory: Arc::new(memory), regions })
    }

    /// The memory map, for whoever reads and writes guest memory.
    #[must_use]
    pub fn memory(&self) -> &Arc<GuestMemoryMmap> {
        &self.memory
    }

    /// Its stretches, in guest-physical order.
    #[must_use]
    pub fn regions(&self) -> &[RamRegion] {
        &self.regions
    }

    /// First guest-physical address after RAM.
    #[must_use]
    pub fn end(&self) -> Gpa {
        Gpa(self.regions.last().map_or(0, |r| r.gpa.0 + r.bytes))
    }
}

#[cfg(test)]
mod tests {
    use vm_memory::Bytes;

    use super::*;

    fn cell(cell: u32, bytes: u64, page_size: u64) -> CellRam {
        CellRam { cell, bytes, page_size, host_node: None }
    }

    #[test]
    fn cells_follow_one_another_and_hold_what_is_written() {
        let ram = GuestRam::build(&RamConfig { cells: vec![cell(0, 1 << 20, 4096), cell(1, 2 << 20, 4096)] })
            .unwrap();
        assert_eq!(ram.end(), Gpa(3 << 20));
        let starts: Vec<_> = ram.regions().iter().map(|r| (r.cell, r.gpa)).collect();
        assert_eq!(starts, [(0, Gpa(0)), (1, Gpa(1 << 20))]);
        let across = GuestAddress((1 << 20) - 4);
        ram.memory().write_slice(&[1, 2, 3, 4, 5, 6, 7, 8], across).unwrap();
        let mut back = [0; 8];
        ram.memory().read_slice(&mut back, across).unwrap();
        assert_eq!(back, [1, 2, 3, 4, 5, 6, 7, 8]);
    }

    /// How many pages of the first region the kernel says are there. Its own lists will not do: there, what other
    /// tests have mapped beside it may count as one with it.
    fn resident(ram: &GuestRam) -> usize {
        let region = &ram.regions()[0];
        let len = usize::try_from(region.bytes).unwrap();
        let mut pages = vec![0u8; len / 4096];
        // SAFETY: the range is mapped for as long as `ram` lives; the vector has a byte for each of its pages.
        let result = unsafe { libc::mincore(region.hva.0 as *mut libc::c_void, len, pages.as_mut_ptr()) };
        assert_eq!(result, 0);
        pages.iter().filter(|p| **p & 1 == 1).count()
    }

    #[test]
    fn every_page_is_present_before_anyone_touches_it() {
        // More than one thread's share, and not a multiple of it.
        for bytes in [8 << 20, (192 << 20) + 4096] {
            let ram = GuestRam::build(&RamConfig { cells: vec![cell(0, bytes, 4096)] }).unwrap();
            assert_eq!(resident(&ram) as u64, bytes / 4096);
        }
    }

    #[test]
    fn huge_pages_are_huge_or_the_missing_pool_is_named() {
        let huge = CellRam { host_node: Some(0), ..cell(1, 4 << 20, 2 << 20) };
        match GuestRam::build(&RamConfig { cells: vec![huge] }) {
            Ok(ram) => {
                let maps = std::fs::read_to_string("/proc/self/smaps").unwrap();
                let own = maps.split(&format!("{:x}-", ram.regions()[0].hva.0)).nth(1).unwrap();
                let size = own.lines().find_map(|l| l.strip_prefix("KernelPageSize:")).unwrap();
                assert_eq!(size.trim(), "2048 kB");
            }
            Err(RamError::Cell {
                cell: 1,
                source: e @ (MappingError::Map { .. } | MappingError::Populate { .. }),
            }) => {
                println!("skipped: {e}");
            }
            Err(e) => panic!("{e:?}"),
        }
    }

    #[test]
    fn memory_on_a_node_is_bound_to_it() {
        let bound = CellRam { host_node: Some(0), ..cell(0, 1 << 20, 4096) };
        let ram = GuestRam::build(&RamConfig { cells: vec![bound] }).unwrap();
        let Ok(maps) = std::fs::read_to_string("/proc/self/numa_maps") else {
            println!("skipped: this kernel has no /proc/self/numa_maps");
            return;
        };
        let start = format!("{:x} bind", ram.regions()[0].hva.0);
        assert!(maps.lines().any(|l| l.starts_with(&start)), "{maps}");
    }

    #[test]
    fn a_node_that_does_not_exist_is_named() {
        let absent = CellRam { host_node: Some(900), ..cell(3, 1 << 20, 4096) };
        let error = GuestRam::build(&RamConfig { cells: vec![absent] }).unwrap_err();
        assert!(
            matches!(&error, RamError::Cell { cell: 3, source: MappingError::Bind { node: 900, .. } }),
            "{error}"
        );
    }

    #[test]
    fn sizes_that_are_no_whole_pages_are_refused() {
        for (bytes, page_size) in [(4097, 4096), (1 << 20, 2 << 20), (4096, 3000)] {
            let error = GuestRam::build(&RamConfig { cells: vec![cell(0, bytes, page_size)] }).unwrap_err();
            assert!(matches!(error, RamError::Cell { source: MappingError::Size { .. }, .. }), "{bytes}");
        }
        assert!(matches!(GuestRam::build(&RamConfig { cells: vec![] }), Err(RamError::Empty)));
    }
}
