//! One virtqueue as a device sees it: chains in, used buffers out.
//!
//! Owned by the thread that serves it. Every error means that the driver broke the rules; the
//! caller then reports [`crate::VirtioInterrupt::needs_reset`] and leaves the queue alone.

use std::sync::Arc;

use virtio_queue::{Queue, QueueOwnedT, QueueT};
use vm_memory::{GuestAddress, GuestMemoryMmap};

use crate::VirtioInterrupt;
use crate::used_ring::UsedRing;

/// Descriptors of one chain, indirect ones included: what the kernel takes in one call.
const MAX_DESCRIPTORS: usize = 1024;

/// How the driver broke the rules.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum QueueError {
    /// The rings lie outside memory, or the available index is impossible.
    #[error("The driver's rings are unusable")]
    Ring,
    /// A chain that is empty, too long, loops or does not end.
    #[error("The driver made an impossible descriptor chain")]
    Chain,
    /// A buffer outside memory.
    #[error("The driver made a buffer outside memory")]
    Buffer,
    /// A request without what its kind needs, such as room for a status.
    #[error("The driver made an incomplete request")]
    Request,
}

/// A buffer in guest memory, unchecked.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Span {
    pub(crate) address: GuestAddress,
    pub(crate) len: u32,
}

/// A descriptor chain: what the device may read, then what it may write.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Chain {
    head: u16,
    pub(crate) readable: Vec<Span>,
    pub(crate) writable: Vec<Span>,
}

impl Chain {
    /// What names the chain in the used ring.
    #[must_use]
    pub fn head(&self) -> u16 {
        self.head
    }
}

/// A virtqueue.
#[derive(Debug)]
pub struct VirtQueue {
    queue: Queue,
    used: UsedRing,
    memory: Arc<GuestMemoryMmap>,
    interrupt: Arc<VirtioInterrupt>,
    index: u16,
}

impl VirtQueue {
    pub(crate) fn new(
        queue: Queue,
        index: u16,
        memory: Arc<GuestMemoryMmap>,
        interrupt: Arc<VirtioInterrupt>,
    ) -> Self {
        Self { queue, used: UsedRing::default(), memory, interrupt, index }
    }

    /// Guest memory.
    #[must_use]
    pub fn memory(&self) -> Arc<GuestMemoryMmap> {
        Arc::clone(&self.memory)
    }

    /// The next chain that the driver made available.
    ///
    /// # Errors
    /// [`QueueError::Ring`], [`QueueError::Chain`].
    pub fn pop(&mut self) -> Result<Option<Chain>, QueueError> {
        let size = self.queue.size();
        let before = self.queue.next_avail();
        let next = self.queue.iter(&*self.memory).map_err(|_| QueueError::Ring)?.next();
        let Some(descriptors) = next else { return Ok(None) };
        debug_assert_ne!(before, self.queue.next_avail());
        let head = descriptors.head_index();
        if head >= size {
            return Err(QueueError::Chain);
        }
        let mut chain = Chain { head, readable: Vec::new(), writable: Vec::new() };
        let mut ended = false;
        for descriptor in descriptors {
            let span = Span { address: descriptor.addr(), len: descriptor.len() };
            ended = !descriptor.has_next();
            if descriptor.is_write_only() {
                chain.writable.push(span);
            } else if chain.writable.is_empty() {
                chain.readable.push(span);
            } else {
                return Err(QueueError::Chain);
            }
            if chain.readable.len() + chain.writable.len() > MAX_DESCRIPTORS {
                return Err(QueueError::Chain);
            }
        }
        // An iterator that gave up in the middle, or a table that is all "next".
        if ended { Ok(Some(chain)) } else { Err(QueueError::Chain) }
    }

    /// Puts the last `count` chains back: the next [`VirtQueue::pop`] gives the first of them.
    pub fn put_back(&mut self, count: u16) {
        let position = self.queue.next_avail().wrapping_sub(count);
        self.queue.set_next_avail(position);
    }

    /// Hands one chain back to the driver, with the number of bytes written into it.
    ///
    /// # Errors
    /// [`QueueError::Ring`].
    pub fn push(&mut self, head: u16, written: u32) -> Result<(), QueueError> {
        self.push_all(&[(head, written)])
    }

    /// Hands several chains back at once: the driver sees all or none.
    ///
    /// # Errors
    /// [`QueueError::Ring`].
    pub fn push_all(&mut self, elements: &[(u16, u32)]) -> Result<(), QueueError> {
        self.used.publish(&self.queue, &self.memory, elements)
    }

    /// Raises the queue's interrupt if the driver wants to hear of what was handed back.
    ///
    /// # Errors
    /// [`QueueError::Ring`].
    pub fn notify(&mut self) -> Result<(), QueueError> {
        if self.used.wants_interrupt(&self.queue, &self.memory)? {
            self.interrupt.queue(self.index);
        }
        Ok(())
    }

    /// Tells the driver not to kick while we look anyway.
    ///
    /// # Errors
    /// [`QueueError::Ring`].
    pub fn ignore_kicks(&mut self) -> Result<(), QueueError> {
        self.queue.disable_notification(&*self.memory).map_err(|_| QueueError::Ring)
    }

    /// Asks for a kick at the next buffer. True: there is one already.
    ///
    /// # Errors
    /// [`QueueError::Ring`].
    pub fn want_kicks(&mut self) -> Result<bool, QueueError> {
        self.queue.enable_notification(&*self.memory).map_err(|_| QueueError::Ring)
    }
}
