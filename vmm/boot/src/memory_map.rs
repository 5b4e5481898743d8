//! The memory map as the guest is told it (e820).

use vm_memory::{GuestMemoryBackend, GuestMemoryMmap, GuestMemoryRegion};
use vmm_bus::Gpa;
use vmm_memory::layout;

/// What a stretch of addresses is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Kind {
    /// Memory to use.
    Ram,
    /// Not to be touched.
    Reserved,
}

/// A stretch of addresses.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct MapEntry {
    /// First address.
    pub start: Gpa,
    /// Length, bytes.
    pub len: u64,
    /// What it is.
    pub kind: Kind,
}

/// The map of a guest: conventional memory, the firmware area, RAM from 1 MiB, and ECAM,
/// which Linux only believes in when it is reserved here and in the DSDT.
#[must_use]
pub fn memory_map(memory: &GuestMemoryMmap) -> Vec<MapEntry> {
    let entry = |start: Gpa, end: u64, kind| MapEntry { start, len: end - start.0, kind };
    let mut map = vec![
        entry(Gpa(0), layout::LOW_RAM_END.0, Kind::Ram),
        entry(layout::LOW_RAM_END, layout::HIGH_RAM.0, Kind::Reserved),
    ];
    let mut ram: Vec<(u64, u64)> = Vec::new();
    for region in memory.iter() {
        let (start, end) =
            (region.start_addr().0.max(layout::HIGH_RAM.0), region.start_addr().0 + region.len());
        match ram.last_mut() {
            Some(last) if last.1 == start => last.1 = end,
            _ if end > start => ram.push((start, end)),
            _ => {}
        }
    }
    map.extend(ram.into_iter().map(|(start, end)| entry(Gpa(start), end, Kind::Ram)));
    map.push(MapEntry { start: layout::ECAM_START, len: layout::ECAM_LEN, kind: Kind::Reserved });
    map.sort_by_key(|e| e.start);
    map
}

/// End of the memory that starts at 0, which is below the hole.
pub(crate) fn low_ram_end(memory: &GuestMemoryMmap) -> Gpa {
    let mut end = 0;
    for region in memory.iter() {
        if region.start_addr().0 != end {
            break;
        }
        end += region.len();
    }
    Gpa(end.min(layout::HOLE_START.0))
}
