//! What a folder of a FAT volume holds: short names, and long ones in the entries before them.

use super::ENTRY;
use crate::partition::number;

const LONG_NAME: u8 = 0x0f;
const VOLUME_LABEL: u8 = 0x08;
const FOLDER: u8 = 0x10;
const DELETED: u8 = 0xe5;
/// Flags of the byte that says that base or extension are in small letters.
const SMALL_BASE: u8 = 0x08;
const SMALL_EXTENSION: u8 = 0x10;
/// Where the letters of a long name lie in its entries.
const LETTERS: [usize; 13] = [1, 3, 5, 7, 9, 14, 16, 18, 20, 22, 24, 28, 30];
/// Parts of a long name.
const MOST_PARTS: u8 = 20;

/// A file or a folder.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct DirectoryEntry {
    pub(super) name: String,
    short: String,
    pub(super) is_folder: bool,
    /// First cluster.
    pub(super) cluster: u32,
    /// Bytes.
    pub(super) size: u32,
}

impl DirectoryEntry {
    /// By its long name or its short one; case does not matter.
    pub(super) fn is_called(&self, name: &str) -> bool {
        let same = |own: &str| own.to_lowercase() == name.to_lowercase();
        same(&self.name) || same(&self.short)
    }
}

/// The entries of a folder, up to its end.
pub(super) fn entries(raw: &[u8]) -> Vec<DirectoryEntry> {
    let mut found = Vec::new();
    let mut long = LongName::default();
    for bytes in raw.chunks_exact(ENTRY) {
        let (first, attributes) = (number(bytes, 0, 1), number(bytes, 11, 1).to_le_bytes()[0]);
        match first.to_le_bytes()[0] {
            0 => break,
            DELETED => long = LongName::default(),
            _ if attributes & LONG_NAME == LONG_NAME => long.add(bytes),
            _ if attributes & VOLUME_LABEL != 0 => long = LongName::default(),
            _ => {
                let short = short_name(bytes);
                let name = std::mem::take(&mut long).finish(bytes).unwrap_or_else(|| short.clone());
                let half = |at| u32::try_from(number(bytes, at, 2)).unwrap_or(0);
                found.push(DirectoryEntry {
                    name,
                    short,
                    is_folder: attributes & FOLDER != 0,
                    cluster: half(20) << 16 | half(26),
                    size: u32::try_from(number(bytes, 28, 4)).unwrap_or(0),
                });
            }
        }
    }
    found
}

fn short_name(bytes: &[u8]) -> String {
    let case = bytes.get(12).copied().unwrap_or(0);
    let part = |range: std::ops::Range<usize>, small: bool| {
        let text: String = bytes.get(range).unwrap_or_default().iter().map(|b| char::from(*b)).collect();
        let text = text.trim_end().to_owned();
        if small { text.to_lowercase() } else { text }
    };
    let (base, extension) = (part(0..8, case & SMALL_BASE != 0), part(8..11, case & SMALL_EXTENSION != 0));
    if extension.is_empty() { base } else { format!("{base}.{extension}") }
}

/// A long name while its parts come, the last first.
#[derive(Debug, Default)]
struct LongName {
    letters: Vec<u16>,
    /// Number of the part that comes next.
    next: u8,
    checksum: u8,
}

impl LongName {
    fn add(&mut self, bytes: &[u8]) {
        let (order, checksum) = (bytes.first().copied().unwrap_or(0), bytes.get(13).copied().unwrap_or(0));
        let part = order & 0x3f;
        if order & 0x40 != 0 && part <= MOST_PARTS {
            *self = Self { letters: Vec::new(), next: part, checksum };
        }
        if part == 0 || part != self.next || checksum != self.checksum {
            *self = Self::default();
            return;
        }
        let letter = |at: &usize| u16::try_from(number(bytes, *at, 2)).unwrap_or(0);
        let mut letters: Vec<u16> = LETTERS.iter().map(letter).take_while(|l| *l != 0).collect();
        letters.append(&mut self.letters);
        self.letters = letters;
        self.next = part - 1;
    }

    /// The name, if it is whole and belongs to the entry that follows it.
    fn finish(self, entry: &[u8]) -> Option<String> {
        let sum = |sum: u8, b: &u8| sum.rotate_right(1).wrapping_add(*b);
        let checksum = entry.iter().take(11).fold(0, sum);
        (!self.letters.is_empty() && self.next == 0 && checksum == self.checksum)
            .then(|| String::from_utf16_lossy(&self.letters))
    }
}
