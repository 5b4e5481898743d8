//! The used ring: several buffers become visible to the driver at once.
//!
//! A network packet may need several buffers, and a driver that sees the first without the
//! others drops them all. The queue crate makes each visible by itself, hence this.

use std::num::Wrapping;
use std::sync::atomic::{Ordering, fence};

use virtio_queue::{Queue, QueueT};
use vm_memory::{Bytes, GuestAddress, GuestMemoryMmap};

use crate::QueueError;

const HEADER: u64 = 4;
const ELEMENT: u64 = 8;
const AVAIL_HEADER: u64 = 4;
const AVAIL_ELEMENT: u64 = 2;
const NO_INTERRUPT: u16 = 1;

#[derive(Debug, Default)]
pub(crate) struct UsedRing {
    next: Wrapping<u16>,
    /// What `next` was when the driver was last told.
    told: Wrapping<u16>,
}

impl UsedRing {
    /// Publishes `elements`: head index and bytes written of each.
    pub(crate) fn publish(
        &mut self,
        queue: &Queue,
        memory: &GuestMemoryMmap,
        elements: &[(u16, u32)],
    ) -> Result<(), QueueError> {
        let size = queue.size();
        let ring = GuestAddress(queue.used_ring());
        let mut next = self.next;
        for &(head, written) in elements {
            let slot = u64::from(next.0.checked_rem(size).ok_or(QueueError::Ring)?);
            let element = (u64::from(written) << 32) | u64::from(head);
            memory
                .write_obj(element.to_le(), at(ring, HEADER + slot * ELEMENT)?)
                .map_err(|_| QueueError::Ring)?;
            next += 1;
        }
        self.next = next;
        memory.store(next.0.to_le(), at(ring, 2)?, Ordering::Release).map_err(|_| QueueError::Ring)
    }

    /// Whether the driver wants an interrupt for what was published since the last time.
    pub(crate) fn wants_interrupt(
        &mut self,
        queue: &Queue,
        memory: &GuestMemoryMmap,
    ) -> Result<bool, QueueError> {
        // What was published must be visible before the driver's wish is read.
        fence(Ordering::SeqCst);
        let avail = GuestAddress(queue.avail_ring());
        let load = |offset| -> Result<u16, QueueError> {
            memory
                .load::<u16>(at(avail, offset)?, Ordering::Relaxed)
                .map(u16::from_le)
                .map_err(|_| QueueError::Ring)
        };
        let since = std::mem::replace(&mut self.told, self.next);
        if self.next == since {
            return Ok(false);
        }
        if !queue.event_idx_enabled() {
            return Ok(load(0)? & NO_INTERRUPT == 0);
        }
        let event = Wrapping(load(AVAIL_HEADER + u64::from(queue.size()) * AVAIL_ELEMENT)?);
        Ok(self.next - event - Wrapping(1) < self.next - since)
    }
}

fn at(base: GuestAddress, offset: u64) -> Result<GuestAddress, QueueError> {
    base.0.checked_add(offset).map(GuestAddress).ok_or(QueueError::Ring)
}
