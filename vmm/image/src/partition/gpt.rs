//! GUID partition tables. Source: UEFI 2.10, section 5.3.
//!
//! Not by the `gpt` crate: it asserts that entries have 128 bytes, and takes as much memory as a header asks for.

use super::{Partition, PartitionKind, SECTOR, number};
use crate::BootError;
use crate::limits;
use crate::media::Window;

const SIGNATURE: &[u8] = b"EFI PART";
const HEADER: usize = 92;
/// Entries of a table that are looked at, and bytes of one.
const MOST_ENTRIES: u64 = 1024;
const ENTRY: u64 = 128;
const MOST_ENTRY: u64 = 4096;

const ESP: &str = "c12a7328-f81f-11d2-ba4b-00a0c93ec93b";
const EXTENDED_BOOT: &str = "bc13c2ff-59e6-4262-a352-b275fd6f7172";
const BIOS_BOOT: &str = "21686148-6449-6e6f-744e-656564454649";

/// The partitions; `None` where there is no such table.
///
/// 1. The header in the second sector counts if it is whole.
/// 2. Else the one in the last sector: the first may have been overwritten.
/// 3. A first header that is there, damaged, without a second one that is whole, is an error.
pub(super) fn read(disk: &Window) -> Result<Option<Vec<Partition>>, BootError> {
    let first = header(disk, SECTOR);
    if let Found::Whole(partitions) = first {
        return Ok(Some(partitions));
    }
    let last = (disk.length() / SECTOR).saturating_sub(1) * SECTOR;
    match (first, header(disk, last)) {
        (_, Found::Whole(partitions)) => Ok(Some(partitions)),
        (Found::Damaged(why), _) => Err(BootError::Table(format!("GPT: {why}"))),
        _ => Ok(None),
    }
}

enum Found {
    Absent,
    Damaged(&'static str),
    Whole(Vec<Partition>),
}

fn header(disk: &Window, at: u64) -> Found {
    let Ok(header) = disk.bytes::<HEADER>(at) else { return Found::Absent };
    if !header.starts_with(SIGNATURE) {
        return Found::Absent;
    }
    if number(&header, 12, 4) != HEADER as u64 {
        return Found::Damaged("its header has an unknown size");
    }
    let mut zeroed = header;
    zeroed.iter_mut().skip(16).take(4).for_each(|b| *b = 0);
    if u64::from(crc32fast::hash(&zeroed)) != number(&header, 16, 4) {
        return Found::Damaged("the checksum of its header is wrong");
    }
    let (start, count, size) = (number(&header, 72, 8), number(&header, 80, 4), number(&header, 84, 4));
    if count > MOST_ENTRIES || !(ENTRY..=MOST_ENTRY).contains(&size) {
        return Found::Damaged("it has more entries, or larger ones, than any disk needs");
    }
    let Some(start) = start.checked_mul(SECTOR) else { return Found::Damaged("its entries lie outside") };
    let mut entries = vec![0; usize::try_from(count * size).unwrap_or(0)];
    if disk.read_exact_at(&mut entries, start).is_err() {
        return Found::Damaged("its entries lie outside");
    }
    if u64::from(crc32fast::hash(&entries)) != number(&header, 88, 4) {
        return Found::Damaged("the checksum of its entries is wrong");
    }
    let size = usize::try_from(size).unwrap_or(1);
    let partitions = (1u32..).zip(entries.chunks(size)).filter_map(|(number, bytes)| entry(number, bytes));
    Found::Whole(partitions.take(limits::PARTITIONS).collect())
}

/// Empty entries, and such that end before they start, are none.
fn entry(index: u32, bytes: &[u8]) -> Option<Partition> {
    let kind = guid(bytes.get(..16)?);
    if bytes.iter().take(16).all(|b| *b == 0) {
        return None;
    }
    let (first, last) = (number(bytes, 32, 8), number(bytes, 40, 8));
    let sectors = last.checked_sub(first)?.checked_add(1)?;
    let name: Vec<u16> = bytes.get(56..128)?.as_chunks().0.iter().map(|b| u16::from_le_bytes(*b)).collect();
    let name = name.split(|c| *c == 0).next().unwrap_or_default();
    Some(Partition {
        number: index,
        start: first.checked_mul(SECTOR)?,
        length: sectors.checked_mul(SECTOR)?,
        kind: match kind.as_str() {
            ESP => PartitionKind::Esp,
            EXTENDED_BOOT => PartitionKind::ExtendedBoot,
            BIOS_BOOT => PartitionKind::BiosBoot,
            _ => PartitionKind::Data,
        },
        uuid: guid(bytes.get(16..32)?),
        name: String::from_utf16_lossy(name),
    })
}

/// A GUID as it is written: its first three parts are little-endian.
fn guid(bytes: &[u8]) -> String {
    let part = |range: std::ops::Range<usize>| -> String {
        bytes.get(range).unwrap_or_default().iter().map(|b| format!("{b:02x}")).collect()
    };
    let (a, b, c) = (number(bytes, 0, 4), number(bytes, 4, 2), number(bytes, 6, 2));
    format!("{a:08x}-{b:04x}-{c:04x}-{}-{}", part(8..10), part(10..16))
}
