//! Where everything is in the BAR, and the capabilities that say so.

use vmm_pci::{ConfigSpace, PciError};

pub(crate) const BAR_LEN: u64 = 0x8000;
const COMMON: u32 = 0x0000;
const ISR: u32 = 0x1000;
const DEVICE: u32 = 0x2000;
const NOTIFY: u32 = 0x3000;
/// 256 vectors of 16 bytes.
pub(crate) const MSIX_TABLE: u32 = 0x4000;
pub(crate) const MSIX_PENDING: u32 = 0x6000;
const PAGE: u32 = 0x1000;
/// Bytes between the doorbells of two queues.
const DOORBELL_STRIDE: u64 = 4;

pub(crate) const VENDOR_CAPABILITY: u8 = 0x09;

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Region {
    Common,
    Isr,
    Device,
    Notify,
    MsixTable,
    MsixPending,
}

/// What an access to the BAR means: a region and the offset in it.
pub(crate) fn region(offset: u64, len: usize) -> Option<(Region, u64)> {
    if !matches!(len, 1 | 2 | 4 | 8) || !offset.is_multiple_of(len as u64) {
        return None;
    }
    let page = u64::from(PAGE);
    let region = match u32::try_from(offset / page * page).ok()? {
        COMMON => Region::Common,
        ISR => Region::Isr,
        DEVICE => Region::Device,
        NOTIFY => Region::Notify,
        MSIX_TABLE => Region::MsixTable,
        MSIX_PENDING => Region::MsixPending,
        _ => return None,
    };
    Some((region, offset % page))
}

/// Offset of a queue's doorbell in the BAR.
pub(crate) fn doorbell(queue: u64) -> u64 {
    u64::from(NOTIFY) + queue * DOORBELL_STRIDE
}

/// The queue whose doorbell lies at this offset of the region.
pub(crate) fn rung(offset: u64) -> u64 {
    offset / DOORBELL_STRIDE
}

/// The first part of each virtio capability: its length, kind, BAR 0, and where in it.
pub(crate) fn capability(kind: u8, len: u8, offset: u32, bytes: u32) -> Vec<u8> {
    let mut body = vec![len, kind, 0, 0, 0, 0];
    body.extend_from_slice(&offset.to_le_bytes());
    body.extend_from_slice(&bytes.to_le_bytes());
    body
}

pub(crate) fn announce(config: &mut ConfigSpace) -> Result<(), PciError> {
    config.add_capability(VENDOR_CAPABILITY, &capability(1, 16, COMMON, PAGE), &[])?;
    let mut notify = capability(2, 20, NOTIFY, PAGE);
    notify.extend_from_slice(&4_u32.to_le_bytes());
    config.add_capability(VENDOR_CAPABILITY, &notify, &[])?;
    config.add_capability(VENDOR_CAPABILITY, &capability(3, 16, ISR, PAGE), &[])?;
    config.add_capability(VENDOR_CAPABILITY, &capability(4, 16, DEVICE, PAGE), &[])?;
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn regions_are_found_and_odd_accesses_are_not() {
        assert_eq!(region(0x14, 1), Some((Region::Common, 0x14)));
        assert_eq!(region(doorbell(3), 2), Some((Region::Notify, 12)));
        assert_eq!(rung(12), 3);
        assert_eq!(region(0x4ff8, 8), Some((Region::MsixTable, 0xff8)));
        assert_eq!(region(0x5000, 4), None);
        assert_eq!(region(0x7000, 4), None);
        assert_eq!(region(0x3, 2), None);
        assert_eq!(region(0x0, 3), None);
        assert_eq!(region(u64::MAX - 7, 8), None);
    }
}
