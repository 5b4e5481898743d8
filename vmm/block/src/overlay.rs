//! What a guest writes to an image that stays as it is: the blocks it wrote, in a file of its own beside the image.
//!
//! Nothing is kept beyond the guest, so that there is no format and nothing to write but the guest's data: the file has
//! each block where the image has it, and which of them are the guest's is a bit each, in memory. A write of whole blocks
//! costs what it costs on a raw disk; one that begins or ends inside a block which is still the image's copies that block
//! first, at most two of them. Which bytes a guest reads depends on what it wrote, and on nothing else.

use std::fmt;
use std::fs::File;

use vm_memory::VolatileSlice;

use crate::raw::{RawDisk, bytes};
use crate::{Access, Disk, DiskError, OpenError, Space};

/// Bytes that are the image's or the guest's as a whole: what file systems write, so that little is copied.
const BLOCK_BYTES: usize = 4096;
const BLOCK: u64 = BLOCK_BYTES as u64;
/// Bytes of the largest image: 16 TiB, as large as a file of ext4, take 512 MiB for the bits, where all are touched.
const MOST: u64 = 16 << 40;

/// Gives a guest an image to write to that is only read: `scratch`, an empty file, has what it writes. It is the
/// caller's that nobody else has that file, and that it goes with the guest.
///
/// # Errors
/// [`OpenError`] when the image is too large, or there is no room.
pub fn overlay(base: Box<dyn Disk>, scratch: File) -> Result<Box<dyn Disk>, OpenError> {
    Ok(Box::new(Overlay::new(base, scratch)?))
}

pub(crate) struct Overlay {
    base: Box<dyn Disk>,
    upper: RawDisk,
    written: Written,
    name: String,
    capacity: u64,
}

impl Overlay {
    fn new(base: Box<dyn Disk>, scratch: File) -> Result<Self, OpenError> {
        let (name, capacity) = (base.name().to_owned(), base.capacity());
        if capacity > MOST {
            return Err(OpenError::TooLarge { name, most: MOST });
        }
        let blocks = capacity.div_ceil(BLOCK);
        let failed = |source| OpenError::Scratch { name: name.clone(), source };
        scratch.set_len(blocks * BLOCK).map_err(failed)?;
        let upper = RawDisk::new(scratch, format!("{name} (what the guest wrote)"), Access::ReadWrite)?;
        Ok(Self { base, upper, written: Written::none(blocks), name, capacity })
    }

    fn check(&self, action: &'static str, offset: u64, len: u64) -> Result<u64, DiskError> {
        match offset.checked_add(len) {
            Some(end) if end <= self.capacity => Ok(end),
            _ => Err(DiskError::out_of_range(action, &self.name)),
        }
    }

    /// Copies the first and the last block of a range where it has only a part of them.
    fn copy_edges(&mut self, offset: u64, end: u64) -> Result<(), DiskError> {
        if !offset.is_multiple_of(BLOCK) {
            self.copy(offset / BLOCK)?;
        }
        if !end.is_multiple_of(BLOCK) && end < self.capacity {
            self.copy(end / BLOCK)?;
        }
        Ok(())
    }

    /// Makes a block of the image the guest's, as it is.
    fn copy(&mut self, block: u64) -> Result<(), DiskError> {
        if self.written.run(block, block + 1).0 {
            return Ok(());
        }
        let (mut content, at) = ([0; BLOCK_BYTES], block * BLOCK);
        let inside = usize::try_from(self.capacity.saturating_sub(at)).unwrap_or(usize::MAX);
        let inside = inside.min(content.len());
        if let Some(inside) = content.get_mut(..inside) {
            self.base.read(&[VolatileSlice::from(inside)], at)?;
        }
        self.upper.write(&[VolatileSlice::from(content.as_mut_slice())], at)?;
        self.written.add(block, block + 1);
        Ok(())
    }
}

impl Disk for Overlay {
    fn name(&self) -> &str {
        &self.name
    }

    fn capacity(&self) -> u64 {
        self.capacity
    }

    fn access(&self) -> Access {
        Access::ReadWrite
    }

    fn read(&mut self, to: &[VolatileSlice<'_>], offset: u64) -> Result<(), DiskError> {
        let end = self.check("read", offset, bytes(to))?;
        let (mut at, mut pieces) = (offset, Pieces::of(to));
        while at < end {
            let (is_written, until) = self.written.run(at / BLOCK, end.div_ceil(BLOCK));
            let stop = until.saturating_mul(BLOCK).min(end);
            let piece = pieces.take(stop - at);
            if is_written {
                self.upper.read(&piece, at)?
            } else {
                self.base.read(&piece, at)?
            }
            at = stop;
        }
        Ok(())
    }

    fn write(&mut self, from: &[VolatileSlice<'_>], offset: u64) -> Result<(), DiskError> {
        let end = self.check("write to", offset, bytes(from))?;
        self.copy_edges(offset, end)?;
        self.upper.write(from, offset)?;
        self.written.add(offset / BLOCK, end.div_ceil(BLOCK));
        Ok(())
    }

    /// Of what goes with the guest, too: a host that cannot keep it says so here.
    fn flush(&mut self) -> Result<(), DiskError> {
        self.upper.flush()
    }

    /// The guest's blocks read as zeroes then; the image's stay as they are.
    fn discard(&mut self, offset: u64, len: u64) -> Result<(), DiskError> {
        let end = self.check("discard blocks of", offset, len)?;
        let (first, last) = (offset.next_multiple_of(BLOCK), end - end % BLOCK);
        if first < last { self.upper.discard(first, last - first) } else { Ok(()) }
    }

    fn write_zeroes(&mut self, offset: u64, len: u64, space: Space) -> Result<(), DiskError> {
        let end = self.check("write zeroes to", offset, len)?;
        if len == 0 {
            return Ok(());
        }
        self.copy_edges(offset, end)?;
        self.upper.write_zeroes(offset, len, space)?;
        self.written.add(offset / BLOCK, end.div_ceil(BLOCK));
        Ok(())
    }
}

impl fmt::Debug for Overlay {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Overlay")
            .field("base", &self.base)
            .field("capacity", &self.capacity)
            .finish_non_exhaustive()
    }
}

/// Which blocks are the guest's: a bit each. Memory that is never touched is never taken.
struct Written(Vec<u64>);

impl Written {
    fn none(blocks: u64) -> Self {
        Self(vec![0; usize::try_from(blocks.div_ceil(64)).unwrap_or(0)])
    }

    /// Whether block `from` is the guest's, and up to where, at most to `to`, all that follow are the same.
    fn run(&self, from: u64, to: u64) -> (bool, u64) {
        let word = |block: u64| self.word(block / 64);
        let is_written = word(from) >> (from % 64) & 1 == 1;
        let mut at = from;
        while at < to {
            // Bits that differ from the first, from `at` on.
            let others = if is_written { !word(at) } else { word(at) } >> (at % 64);
            if others != 0 {
                return (is_written, at.saturating_add(others.trailing_zeros().into()).min(to));
            }
            at = (at / 64 + 1) * 64;
        }
        (is_written, to)
    }

    fn add(&mut self, from: u64, to: u64) {
        let mut at = from;
        while at < to {
            let end = ((at / 64 + 1) * 64).min(to);
            let bits = u64::MAX >> (64 - (end - at)) << (at % 64);
            if let Some(word) = usize::try_from(at / 64).ok().and_then(|index| self.0.get_mut(index)) {
                *word |= bits;
            }
            at = end;
        }
    }

    fn word(&self, index: u64) -> u64 {
        usize::try_from(index).ok().and_then(|index| self.0.get(index)).copied().unwrap_or(0)
    }
}

/// A guest's buffers, taken from the front.
struct Pieces<'a> {
    left: std::slice::Iter<'a, VolatileSlice<'a>>,
    first: Option<VolatileSlice<'a>>,
}

impl<'a> Pieces<'a> {
    fn of(slices: &'a [VolatileSlice<'a>]) -> Self {
        Self { left: slices.iter(), first: None }
    }

    /// The next bytes, or as many as there are.
    fn take(&mut self, mut len: u64) -> Vec<VolatileSlice<'a>> {
        let mut piece = Vec::new();
        while len > 0 {
            let Some(slice) = self.first.take().or_else(|| self.left.next().copied()) else { break };
            let count = slice.len().min(usize::try_from(len).unwrap_or(usize::MAX));
            if let Ok(part) = slice.subslice(0, count) {
                piece.push(part);
            }
            self.first = slice.offset(count).ok().filter(|rest| !rest.is_empty());
            len -= count as u64;
        }
        piece
    }
}

#[cfg(test)]
mod tests;
