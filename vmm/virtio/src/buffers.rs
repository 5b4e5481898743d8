//! The bytes behind a chain: slices of guest memory that can be cut and copied.

use vm_memory::{GuestMemory, GuestMemoryMmap, Permissions, VolatileSlice};

use crate::QueueError;
use crate::queue::Span;

/// Slices of guest memory, taken from the front and the back.
#[derive(Clone, Debug, Default)]
pub(crate) struct Buffers<'a> {
    slices: Vec<VolatileSlice<'a>>,
    len: u64,
}

impl<'a> Buffers<'a> {
    pub(crate) fn new(
        memory: &'a GuestMemoryMmap,
        spans: &[Span],
        access: Permissions,
    ) -> Result<Self, QueueError> {
        let mut buffers = Self { slices: Vec::with_capacity(spans.len()), len: 0 };
        for span in spans {
            let len = usize::try_from(span.len).map_err(|_| QueueError::Buffer)?;
            let found = memory.get_slices(span.address, len, access).map_err(|_| QueueError::Buffer)?;
            let before = buffers.len;
            for slice in found {
                let slice = slice.map_err(|_| QueueError::Buffer)?;
                buffers.len += slice.len() as u64;
                buffers.slices.push(slice);
            }
            if buffers.len - before != u64::from(span.len) {
                return Err(QueueError::Buffer);
            }
        }
        Ok(buffers)
    }

    pub(crate) fn len(&self) -> u64 {
        self.len
    }

    pub(crate) fn slices(&self) -> &[VolatileSlice<'a>] {
        &self.slices
    }

    /// Takes the first `len` bytes off; `None` when there are fewer.
    pub(crate) fn take_front(&mut self, len: u64) -> Option<Self> {
        let rest = self.len.checked_sub(len)?;
        let back = self.split_off(len)?;
        let front = std::mem::replace(self, Self { slices: back, len: rest });
        Some(Self { slices: front.slices, len })
    }

    /// Takes the last `len` bytes off; `None` when there are fewer.
    pub(crate) fn take_back(&mut self, len: u64) -> Option<Self> {
        let rest = self.len.checked_sub(len)?;
        let slices = self.split_off(rest)?;
        self.len = rest;
        Some(Self { slices, len })
    }

    /// Copies from the front into `to`, as much as both have; says how much.
    pub(crate) fn read_into(&self, to: &mut [u8]) -> usize {
        let mut done = 0;
        for slice in &self.slices {
            let Some(rest) = to.get_mut(done..) else { break };
            if rest.is_empty() {
                break;
            }
            done += slice.copy_to(rest);
        }
        done
    }

    /// Copies `from` to the front, as much as there is room for; says how much.
    pub(crate) fn write_from(&self, from: &[u8]) -> usize {
        let mut done = 0;
        for slice in &self.slices {
            let Some(rest) = from.get(done..) else { break };
            if rest.is_empty() {
                break;
            }
            let count = rest.len().min(slice.len());
            slice.copy_from(rest.get(..count).unwrap_or_default());
            done += count;
        }
        done
    }

    /// Keeps the slices before `at`, gives those from there on. Lengths are the caller's.
    fn split_off(&mut self, at: u64) -> Option<Vec<VolatileSlice<'a>>> {
        let mut left = usize::try_from(at).ok()?;
        for position in 0..self.slices.len() {
            let slice = *self.slices.get(position)?;
            if left < slice.len() {
                let mut back = self.slices.split_off(position);
                if left > 0 {
                    let (head, tail) = slice.split_at(left).ok()?;
                    *back.first_mut()? = tail;
                    self.slices.push(head);
                }
                return Some(back);
            }
            left -= slice.len();
        }
        Some(Vec::new())
    }
}
