//! What an entropy device has given.

use std::sync::atomic::{AtomicU64, Ordering};

/// Counters of an entropy device.
#[derive(Debug, Default)]
pub struct RngMetrics {
    bytes: AtomicU64,
    throttled: AtomicU64,
}

impl RngMetrics {
    /// Bytes given.
    #[must_use]
    pub fn bytes(&self) -> u64 {
        self.bytes.load(Ordering::Relaxed)
    }

    /// How often the guest had to wait for its allowance.
    #[must_use]
    pub fn throttled(&self) -> u64 {
        self.throttled.load(Ordering::Relaxed)
    }

    pub(crate) fn give(&self, bytes: u64) {
        self.bytes.fetch_add(bytes, Ordering::Relaxed);
    }

    pub(crate) fn throttle(&self) {
        self.throttled.fetch_add(1, Ordering::Relaxed);
    }
}
