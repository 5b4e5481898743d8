//! What a network device has moved. Directions are the guest's.

use std::sync::atomic::{AtomicU64, Ordering};

/// One direction.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct DirectionStats {
    /// Packets moved.
    pub packets: u64,
    /// Bytes of those, without virtio headers.
    pub bytes: u64,
    /// Packets thrown away because the guest's buffers or the packet were unfit.
    pub dropped: u64,
    /// Packets that the host's side refused.
    pub errors: u64,
}

/// A snapshot of a network device's counters, since the machine was built.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct NetStats {
    /// To the guest.
    pub receive: DirectionStats,
    /// From the guest.
    pub transmit: DirectionStats,
}

#[derive(Debug, Default)]
pub(crate) struct Direction {
    packets: AtomicU64,
    bytes: AtomicU64,
    dropped: AtomicU64,
    errors: AtomicU64,
}

impl Direction {
    pub(crate) fn moved(&self, bytes: u64) {
        self.packets.fetch_add(1, Ordering::Relaxed);
        self.bytes.fetch_add(bytes, Ordering::Relaxed);
    }

    pub(crate) fn dropped(&self) {
        self.dropped.fetch_add(1, Ordering::Relaxed);
    }

    pub(crate) fn failed(&self) {
        self.errors.fetch_add(1, Ordering::Relaxed);
    }

    fn get(&self) -> DirectionStats {
        DirectionStats {
            packets: self.packets.load(Ordering::Relaxed),
            bytes: self.bytes.load(Ordering::Relaxed),
            dropped: self.dropped.load(Ordering::Relaxed),
            errors: self.errors.load(Ordering::Relaxed),
        }
    }
}

/// The counters of one network device.
#[derive(Debug, Default)]
pub struct NetMetrics {
    pub(crate) receive: Direction,
    pub(crate) transmit: Direction,
}

impl NetMetrics {
    /// The present values.
    #[must_use]
    pub fn snapshot(&self) -> NetStats {
        NetStats { receive: self.receive.get(), transmit: self.transmit.get() }
    }
}
