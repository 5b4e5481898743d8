//! The bytes of an image, and windows onto them.

use std::cell::RefCell;
use std::collections::VecDeque;
use std::fmt;
use std::io;
use std::rc::Rc;
use std::sync::Arc;

use crate::MediaError;

/// The bytes of an image.
pub trait Media {
    /// How many there are.
    fn size(&self) -> u64;

    /// Fills `to` from `offset`; the caller has checked that it lies inside.
    ///
    /// # Errors
    /// From the operating system.
    fn read_at(&mut self, to: &mut [u8], offset: u64) -> io::Result<()>;
}

/// Bytes of a cached block. Large, since file systems read files in blocks of 4 KiB one after the other.
const BLOCK: u64 = 256 << 10;
/// Cached blocks.
const BLOCKS: usize = 32;

/// An image whose last blocks are kept.
struct Cached {
    media: Box<dyn Media>,
    /// Number and content, the last used at the back.
    blocks: VecDeque<(u64, Vec<u8>)>,
}

impl Cached {
    fn read(&mut self, mut to: &mut [u8], mut offset: u64) -> Result<(), MediaError> {
        while !to.is_empty() {
            let within = usize::try_from(offset % BLOCK).unwrap_or(0);
            let block = self.block(offset / BLOCK)?;
            let available = block.get(within..).unwrap_or_default();
            let count = available.len().min(to.len());
            let (now, later) = to.split_at_mut(count);
            now.copy_from_slice(available.get(..count).unwrap_or_default());
            if count == 0 {
                return Err(read_failed(io::ErrorKind::UnexpectedEof.into()));
            }
            (to, offset) = (later, offset + count as u64);
        }
        Ok(())
    }

    fn block(&mut self, number: u64) -> Result<&[u8], MediaError> {
        let known = self.blocks.iter().position(|(n, _)| *n == number);
        let block = match known.and_then(|at| self.blocks.remove(at)) {
            Some(block) => block,
            None => {
                let start = number * BLOCK;
                let length = BLOCK.min(self.media.size().saturating_sub(start));
                let mut bytes = vec![0; usize::try_from(length).unwrap_or(0)];
                self.media.read_at(&mut bytes, start).map_err(read_failed)?;
                if self.blocks.len() >= BLOCKS {
                    self.blocks.pop_front();
                }
                (number, bytes)
            }
        };
        self.blocks.push_back(block);
        Ok(self.blocks.back().map(|(_, bytes)| bytes.as_slice()).unwrap_or_default())
    }
}

fn read_failed(e: io::Error) -> MediaError {
    MediaError::Read(Arc::new(e))
}

/// A stretch of an image: all of it, or a partition. Cheap to clone; all clones share a cache.
#[derive(Clone)]
pub(crate) struct Window {
    image: Rc<RefCell<Cached>>,
    start: u64,
    length: u64,
}

impl fmt::Debug for Window {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Window")
            .field("start", &self.start)
            .field("length", &self.length)
            .finish_non_exhaustive()
    }
}

impl Window {
    /// The whole image.
    pub(crate) fn of(media: Box<dyn Media>) -> Self {
        let length = media.size();
        let image = Rc::new(RefCell::new(Cached { media, blocks: VecDeque::new() }));
        Self { image, start: 0, length }
    }

    /// Bytes.
    pub(crate) fn length(&self) -> u64 {
        self.length
    }

    /// A stretch of it: cut off where this one ends.
    pub(crate) fn part(&self, start: u64, length: u64) -> Self {
        let start = start.min(self.length);
        let length = length.min(self.length - start);
        Self { image: Rc::clone(&self.image), start: self.start + start, length }
    }

    /// Fills `to` from `offset`.
    pub(crate) fn read_exact_at(&self, to: &mut [u8], offset: u64) -> Result<(), MediaError> {
        let length = to.len() as u64;
        if offset.checked_add(length).is_none_or(|end| end > self.length) {
            return Err(MediaError::Outside { offset, length, size: self.length });
        }
        self.image.borrow_mut().read(to, self.start + offset)
    }

    /// A few bytes at `offset`.
    pub(crate) fn bytes<const N: usize>(&self, offset: u64) -> Result<[u8; N], MediaError> {
        let mut bytes = [0; N];
        self.read_exact_at(&mut bytes, offset)?;
        Ok(bytes)
    }
}
