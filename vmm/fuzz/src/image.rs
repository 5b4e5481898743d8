//! Disk images: what the targets that read them share.

use std::io;

use arbitrary::Arbitrary;
use vmm_image::{Media, examine};

/// A byte of an image that is another.
#[derive(Arbitrary, Clone, Copy, Debug)]
pub struct Patch {
    at: u32,
    byte: u8,
}

impl Patch {
    /// Changes the byte; beyond the end, it wraps around.
    pub fn apply(self, disk: &mut [u8]) {
        let at = self.at as usize % disk.len().max(1);
        if let Some(byte) = disk.get_mut(at) {
            *byte = self.byte;
        }
    }
}

struct Bytes(Vec<u8>);

impl Media for Bytes {
    fn size(&self) -> u64 {
        self.0.len() as u64
    }

    fn read_at(&mut self, to: &mut [u8], offset: u64) -> io::Result<()> {
        let from = usize::try_from(offset).ok().and_then(|at| self.0.get(at..)?.get(..to.len()));
        to.copy_from_slice(from.ok_or(io::ErrorKind::UnexpectedEof)?);
        Ok(())
    }
}

/// Looks at a disk and reads what would boot.
pub fn boot(disk: Vec<u8>) {
    let Ok(examined) = examine(Box::new(Bytes(disk))) else { return };
    let report = examined.report();
    let booted = examined.boot(&mut io::sink(), &mut io::sink());
    assert!(booted.is_err() || report.refusal.is_none(), "what is refused boots: {report:?}");
}

/// The disk with a GPT header in its second sector whose checksums are right.
pub fn with_checksums(input: &[u8]) -> Vec<u8> {
    let mut disk = input.to_vec();
    disk.resize(disk.len().max(3 * 512), 0);
    disk[512..520].copy_from_slice(b"EFI PART");
    disk[524..528].copy_from_slice(&92_u32.to_le_bytes());
    let number =
        |at: usize, length: usize| disk[at..at + length].iter().rev().fold(0, |n, b| n << 8 | *b as usize);
    let (start, bytes) = (number(512 + 72, 2) * 512, number(512 + 80, 1) * number(512 + 84, 2));
    let entries = disk.get(start..).and_then(|d| d.get(..bytes)).map(crc32fast::hash).unwrap_or(0);
    disk[512 + 88..512 + 92].copy_from_slice(&entries.to_le_bytes());
    disk[528..532].fill(0);
    let header = crc32fast::hash(&disk[512..512 + 92]);
    disk[528..532].copy_from_slice(&header.to_le_bytes());
    disk
}
