//! Features and configuration of a block device.

use vmm_block::{Access, Disk, SECTOR};

pub(crate) const F_SEG_MAX: u64 = 1 << 2;
pub(crate) const F_RO: u64 = 1 << 5;
pub(crate) const F_BLK_SIZE: u64 = 1 << 6;
pub(crate) const F_FLUSH: u64 = 1 << 9;
pub(crate) const F_CONFIG_WCE: u64 = 1 << 11;
pub(crate) const F_MQ: u64 = 1 << 12;
pub(crate) const F_DISCARD: u64 = 1 << 13;
pub(crate) const F_WRITE_ZEROES: u64 = 1 << 14;

/// Segments of a discard or write-zeroes request.
pub(crate) const MAX_RANGES: u32 = 16;
/// Sectors of one such segment: 1 GiB.
pub(crate) const MAX_RANGE_SECTORS: u32 = 1 << 21;

const LEN: usize = 60;
const WRITEBACK: usize = 32;

/// The registers of a block device. All but the write-back byte are read-only.
#[derive(Debug)]
pub(crate) struct BlockConfig {
    bytes: [u8; LEN],
    features: u64,
}

impl BlockConfig {
    pub(crate) fn new(disk: &dyn Disk, queues: u16, queue_size: u16) -> Self {
        let mut config = Self { bytes: [0; LEN], features: F_SEG_MAX | F_BLK_SIZE };
        config.set(0, &(disk.capacity() / SECTOR).to_le_bytes());
        // Two descriptors are for the header and the status.
        config.set(12, &u32::from(queue_size.saturating_sub(2).max(1)).to_le_bytes());
        config.set(20, &512_u32.to_le_bytes());
        config.set(34, &queues.to_le_bytes());
        if queues > 1 {
            config.features |= F_MQ;
        }
        match disk.access() {
            Access::ReadOnly => config.features |= F_RO,
            Access::ReadWrite => {
                config.features |= F_FLUSH | F_CONFIG_WCE | F_DISCARD | F_WRITE_ZEROES;
                for (offset, value) in [
                    (36, MAX_RANGE_SECTORS),
                    (40, MAX_RANGES),
                    (44, 1),
                    (48, MAX_RANGE_SECTORS),
                    (52, MAX_RANGES),
                ] {
                    config.set(offset, &value.to_le_bytes());
                }
                // Write zeroes may free the space.
                config.set(56, &[1]);
                config.reset();
            }
        }
        config
    }

    pub(crate) fn features(&self) -> u64 {
        self.features
    }

    pub(crate) fn read(&self, offset: u64, data: &mut [u8]) {
        for (byte, index) in data.iter_mut().zip(0..) {
            let at = offset.saturating_add(index);
            *byte = usize::try_from(at).ok().and_then(|at| self.bytes.get(at)).copied().unwrap_or(0);
        }
    }

    pub(crate) fn write(&mut self, offset: u64, data: &[u8]) {
        if let (true, &[value]) = (offset == WRITEBACK as u64 && self.features & F_CONFIG_WCE != 0, data) {
            self.set(WRITEBACK, &[u8::from(value & 1 != 0)]);
        }
    }

    /// The driver counts on flushes; otherwise each write must be stable before it is done.
    pub(crate) fn writeback(&self, negotiated: u64) -> bool {
        let byte = self.bytes.get(WRITEBACK).copied().unwrap_or(0) != 0;
        negotiated & F_FLUSH != 0 && (negotiated & F_CONFIG_WCE == 0 || byte)
    }

    pub(crate) fn reset(&mut self) {
        self.set(WRITEBACK, &[u8::from(self.features & F_FLUSH != 0)]);
    }

    fn set(&mut self, offset: usize, data: &[u8]) {
        if let Some(bytes) = self.bytes.get_mut(offset..offset + data.len()) {
            bytes.copy_from_slice(data);
        }
    }
}
