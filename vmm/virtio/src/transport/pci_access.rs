//! The capability through which firmware reads and writes the BAR by config space alone.

use vmm_pci::{ConfigSpace, PciError, RegisterOffset};

use super::layout::{VENDOR_CAPABILITY, capability};

/// Offsets within the capability.
const BAR: u16 = 4;
const OFFSET: u16 = 8;
const LENGTH: u16 = 12;
const DATA: u16 = 16;

#[derive(Debug)]
pub(crate) struct PciAccess {
    start: u16,
}

impl PciAccess {
    pub(crate) fn announce(config: &mut ConfigSpace) -> Result<Self, PciError> {
        let mut body = capability(5, 20, 0, 0);
        body.extend_from_slice(&[0; 4]);
        // Writable: BAR, offset, length and data; not the length and kind of the capability.
        let mut writable = [0xff; 18];
        for fixed in [0, 1, 3, 4, 5] {
            if let Some(byte) = writable.get_mut(fixed) {
                *byte = 0;
            }
        }
        Ok(Self { start: config.add_capability(VENDOR_CAPABILITY, &body, &writable)? })
    }

    /// If `offset` is the data window: where in the BAR it shows, and how many bytes.
    pub(crate) fn window(&self, config: &ConfigSpace, offset: RegisterOffset) -> Option<(u64, usize)> {
        if offset.0 != self.start + DATA {
            return None;
        }
        let dword = |at: u16| {
            let at = self.start + at;
            u64::from(config.word(at)) | (u64::from(config.word(at + 2)) << 16)
        };
        let bar = config.word(self.start + BAR) & 0xff;
        let len = usize::try_from(dword(LENGTH)).ok()?;
        (bar == 0 && matches!(len, 1 | 2 | 4)).then(|| (dword(OFFSET), len))
    }
}
