//! Master boot records, with extended partitions. Source: UEFI 2.10, section 5.2; Linux, `block/partitions/msdos.c`.

use super::{Partition, PartitionKind, SECTOR, number};
use crate::BootError;
use crate::limits;
use crate::media::Window;

const TABLE: usize = 446;
const ENTRY: usize = 16;
const ESP: u8 = 0xef;
const XBOOTLDR: u8 = 0xea;
/// Types of extended partitions.
const EXTENDED: [u8; 3] = [0x05, 0x0f, 0x85];
/// Of a disk that has a GPT.
const PROTECTIVE: u8 = 0xee;

/// The partitions; `None` where there is no such table.
pub(super) fn read(disk: &Window) -> Result<Option<Vec<Partition>>, BootError> {
    let Ok(sector) = disk.bytes::<512>(0) else { return Ok(None) };
    if !sector.ends_with(&[0x55, 0xaa]) {
        return Ok(None);
    }
    let entries = entries(&sector);
    // A file system's first sector has the same last bytes: its code is no table.
    let plausible = |e: &Entry| [0, 0x80].contains(&e.status) && (e.kind == 0 || e.sectors > 0);
    if !entries.iter().all(plausible) || entries.iter().all(|e| e.kind == 0) {
        return Ok(None);
    }
    if entries.iter().any(|e| e.kind == PROTECTIVE) {
        return Err(BootError::Table("its MBR says that it has a GPT, and it has none".to_owned()));
    }
    let signature = number(&sector, 440, 4);
    let mut partitions = Vec::new();
    for (number, entry) in (1u32..).zip(&entries) {
        if EXTENDED.contains(&entry.kind) {
            continue;
        }
        partitions.extend(entry.partition(number, 0, signature));
    }
    for extended in entries.iter().filter(|e| EXTENDED.contains(&e.kind)) {
        logical(disk, u64::from(extended.start), signature, &mut partitions);
    }
    Ok(Some(partitions))
}

/// Logical partitions: a chain of tables, each with a partition and the place of the next. A chain that leads
/// outside, or on for ever, ends there.
fn logical(disk: &Window, first: u64, signature: u64, partitions: &mut Vec<Partition>) {
    let mut at = first;
    for number in (5u32..).take(limits::PARTITIONS) {
        let Ok(sector) = disk.bytes::<512>(at.saturating_mul(SECTOR)) else { return };
        if !sector.ends_with(&[0x55, 0xaa]) {
            return;
        }
        let entries = entries(&sector);
        let own = entries.iter().find(|e| e.kind != 0 && !EXTENDED.contains(&e.kind));
        partitions.extend(own.and_then(|e| e.partition(number, at, signature)));
        match entries.iter().find(|e| EXTENDED.contains(&e.kind)) {
            Some(next) => at = first.saturating_add(u64::from(next.start)),
            None => return,
        }
    }
}

struct Entry {
    status: u8,
    kind: u8,
    start: u32,
    sectors: u32,
}

impl Entry {
    fn partition(&self, number: u32, base: u64, signature: u64) -> Option<Partition> {
        (self.kind != 0 && self.sectors > 0).then(|| Partition {
            number,
            start: base.saturating_add(u64::from(self.start)).saturating_mul(SECTOR),
            length: u64::from(self.sectors) * SECTOR,
            kind: match self.kind {
                ESP => PartitionKind::Esp,
                XBOOTLDR => PartitionKind::ExtendedBoot,
                _ => PartitionKind::Data,
            },
            uuid: format!("{signature:08x}-{number:02x}"),
            name: String::new(),
        })
    }
}

fn entries(sector: &[u8]) -> Vec<Entry> {
    let table = sector.get(TABLE..TABLE + 4 * ENTRY).unwrap_or_default();
    let number = |bytes: &[u8], at| u32::try_from(number(bytes, at, 4)).unwrap_or(0);
    let entry = |bytes: &[u8]| Entry {
        status: bytes.first().copied().unwrap_or(0),
        kind: bytes.get(4).copied().unwrap_or(0),
        start: number(bytes, 8),
        sectors: number(bytes, 12),
    };
    table.chunks(ENTRY).map(entry).collect()
}
