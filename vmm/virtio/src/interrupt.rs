//! From a device to its driver. Shared by the transport and the threads that serve queues.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU8, AtomicU16, Ordering};

use vmm_sys_util::eventfd::EventFd;

/// "No vector" of the standard.
pub(crate) const NO_VECTOR: u16 = 0xffff;

const ISR_QUEUE: u8 = 1;
const ISR_CONFIG: u8 = 2;

/// Raises the interrupts of one device.
#[derive(Debug)]
pub struct VirtioInterrupt {
    vectors: Vec<Arc<EventFd>>,
    config_vector: AtomicU16,
    queue_vectors: Vec<AtomicU16>,
    isr: AtomicU8,
    generation: AtomicU8,
    needs_reset: AtomicBool,
}

impl VirtioInterrupt {
    pub(crate) fn new(vectors: Vec<Arc<EventFd>>, queues: usize) -> Self {
        Self {
            vectors,
            config_vector: AtomicU16::new(NO_VECTOR),
            queue_vectors: (0..queues).map(|_| AtomicU16::new(NO_VECTOR)).collect(),
            isr: AtomicU8::new(0),
            generation: AtomicU8::new(0),
            needs_reset: AtomicBool::new(false),
        }
    }

    /// Buffers of queue `index` have been used.
    pub fn queue(&self, index: u16) {
        self.isr.fetch_or(ISR_QUEUE, Ordering::AcqRel);
        if let Some(vector) = self.queue_vectors.get(usize::from(index)) {
            self.raise(vector);
        }
    }

    /// The device's configuration has changed.
    pub fn config_changed(&self) {
        self.generation.fetch_add(1, Ordering::AcqRel);
        self.config();
    }

    /// The driver broke the rules: the device does nothing more until it is reset.
    pub fn needs_reset(&self) {
        self.needs_reset.store(true, Ordering::Release);
        self.config();
    }

    /// Whether [`VirtioInterrupt::needs_reset`] was called since the last reset.
    #[must_use]
    pub fn is_broken(&self) -> bool {
        self.needs_reset.load(Ordering::Acquire)
    }

    fn config(&self) {
        self.isr.fetch_or(ISR_CONFIG, Ordering::AcqRel);
        self.raise(&self.config_vector);
    }

    fn raise(&self, vector: &AtomicU16) {
        let vector = usize::from(vector.load(Ordering::Acquire));
        if let Some(event) = self.vectors.get(vector) {
            // Fails only when the counter is full: then the interrupt is pending anyway.
            let _ = event.write(1);
        }
    }

    pub(crate) fn generation(&self) -> u8 {
        self.generation.load(Ordering::Acquire)
    }

    /// Reading the interrupt status clears it.
    pub(crate) fn take_isr(&self) -> u8 {
        self.isr.swap(0, Ordering::AcqRel)
    }

    pub(crate) fn config_vector(&self) -> u16 {
        self.config_vector.load(Ordering::Acquire)
    }

    pub(crate) fn set_config_vector(&self, vector: u16) {
        self.config_vector.store(self.checked(vector), Ordering::Release);
    }

    pub(crate) fn queue_vector(&self, index: u16) -> u16 {
        self.queue_vectors.get(usize::from(index)).map_or(NO_VECTOR, |vector| vector.load(Ordering::Acquire))
    }

    pub(crate) fn set_queue_vector(&self, index: u16, vector: u16) {
        if let Some(slot) = self.queue_vectors.get(usize::from(index)) {
            slot.store(self.checked(vector), Ordering::Release);
        }
    }

    pub(crate) fn reset(&self) {
        self.config_vector.store(NO_VECTOR, Ordering::Release);
        for vector in &self.queue_vectors {
            vector.store(NO_VECTOR, Ordering::Release);
        }
        self.isr.store(0, Ordering::Release);
        self.needs_reset.store(false, Ordering::Release);
    }

    /// A vector that does not exist reads back as none: that is how a driver learns it.
    fn checked(&self, vector: u16) -> u16 {
        if usize::from(vector) < self.vectors.len() { vector } else { NO_VECTOR }
    }
}
