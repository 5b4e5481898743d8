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

/// Bytes that are read where nobody has read before, and what they begin at a multiple of.
const GRAIN: u64 = 64 << 10;
/// Bytes that are read where somebody goes on: file systems read files in blocks of 4 KiB one after the other.
const AHEAD: u64 = 512 << 10;
/// Grains that are kept.
const KEPT: usize = 64;

/// A stretch of an image that has been read.
#[derive(Default)]
struct Stretch {
    start: u64,
    bytes: Vec<u8>,
}

impl Stretch {
    fn end(&self) -> u64 {
        self.start.saturating_add(self.bytes.len() as u64)
    }

    /// What it has from `offset` on; nothing where it does not have that.
    fn from(&self, offset: u64) -> &[u8] {
        let within = offset.checked_sub(self.start).and_then(|within| usize::try_from(within).ok());
        within.and_then(|within| self.bytes.get(within..)).unwrap_or_default()
    }
}

/// An image whose last stretches are kept.
struct Cached {
    media: Box<dyn Media>,
    /// Grains: names, maps and lists, which are read again. The last used at the back.
    kept: VecDeque<Stretch>,
    /// What is in a file, which is not.
    ahead: Stretch,
    /// Where the stretch that was read last ends.
    end: u64,
}

impl Cached {
    fn new(media: Box<dyn Media>) -> Self {
        Self { media, kept: VecDeque::new(), ahead: Stretch::default(), end: 0 }
    }

    fn read(&mut self, mut to: &mut [u8], mut offset: u64) -> Result<(), MediaError> {
        while !to.is_empty() {
            let available = self.stretch(offset)?.from(offset);
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

    /// The stretch that has `offset`, which is read where none has it: little where nobody has read before, and much where
    /// somebody goes on.
    fn stretch(&mut self, offset: u64) -> Result<&Stretch, MediaError> {
        if !self.ahead.from(offset).is_empty() {
            return Ok(&self.ahead);
        }
        if let Some(at) = self.kept.iter().rposition(|s| !s.from(offset).is_empty()) {
            let known = self.kept.remove(at).unwrap_or_default();
            self.kept.push_back(known);
            return Ok(self.kept.back().unwrap_or(&self.ahead));
        }
        let start = offset - offset % GRAIN;
        if start == self.end && start > 0 {
            let bytes = std::mem::take(&mut self.ahead).bytes;
            self.ahead = self.fetch(bytes, start, AHEAD)?;
            return Ok(&self.ahead);
        }
        let oldest = if self.kept.len() < KEPT { None } else { self.kept.pop_front() };
        let grain = self.fetch(oldest.unwrap_or_default().bytes, start, GRAIN)?;
        self.kept.push_back(grain);
        Ok(self.kept.back().unwrap_or(&self.ahead))
    }

    fn fetch(&mut self, mut bytes: Vec<u8>, start: u64, most: u64) -> Result<Stretch, MediaError> {
        let length = most.min(self.media.size().saturating_sub(start));
        bytes.resize(usize::try_from(length).unwrap_or(0), 0);
        self.media.read_at(&mut bytes, start).map_err(read_failed)?;
        let stretch = Stretch { start, bytes };
        self.end = stretch.end();
        Ok(stretch)
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
        let image = Rc::new(RefCell::new(Cached::new(media)));
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

#[cfg(test)]
mod tests {
    use super::*;

    /// Where was read, and how many bytes.
    type Asked = Rc<RefCell<Vec<(u64, usize)>>>;

    /// Bytes that say where they are, and what was asked for.
    struct Numbered(u64, Asked);

    fn byte(offset: u64) -> u8 {
        u8::try_from(offset.wrapping_mul(0x9e37_79b9) >> 24 & 0xff).unwrap()
    }

    impl Media for Numbered {
        fn size(&self) -> u64 {
            self.0
        }

        fn read_at(&mut self, to: &mut [u8], offset: u64) -> io::Result<()> {
            self.1.borrow_mut().push((offset, to.len()));
            (offset..).zip(to).for_each(|(at, to)| *to = byte(at));
            Ok(())
        }
    }

    fn window(size: u64) -> (Window, Asked) {
        let asked = Asked::default();
        (Window::of(Box::new(Numbered(size, Rc::clone(&asked)))), asked)
    }

    #[test]
    fn bytes_are_those_of_the_image_wherever_they_are_read() {
        let size = 40 * AHEAD + 777;
        let (window, _) = window(size);
        let mut at = 1u64;
        for length in (0..3000).map(|n| n * 37 % 200_000) {
            at = at.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1);
            let start = (at >> 20) % (size - length);
            let mut bytes = vec![0; usize::try_from(length).unwrap()];
            window.read_exact_at(&mut bytes, start).unwrap();
            assert!((start..).zip(&bytes).all(|(at, b)| *b == byte(at)), "{length} bytes at {start}");
        }
        assert!(window.read_exact_at(&mut [0; 2], size - 1).is_err());
    }

    #[test]
    fn who_goes_on_is_given_more_at_once_and_nothing_is_asked_for_twice() {
        let (window, asked) = window(2 * AHEAD + 100);
        for at in (0..2 * AHEAD).step_by(4096) {
            window.read_exact_at(&mut [0; 100], at).unwrap();
        }
        window.read_exact_at(&mut [0; 100], 2 * AHEAD).unwrap();
        window.read_exact_at(&mut [0; 100], 0).unwrap();
        let (grain, ahead) = (usize::try_from(GRAIN).unwrap(), usize::try_from(AHEAD).unwrap());
        let rest = ahead - grain + 100;
        assert_eq!(*asked.borrow(), [(0, grain), (GRAIN, ahead), (GRAIN + AHEAD, rest)]);
    }
}
