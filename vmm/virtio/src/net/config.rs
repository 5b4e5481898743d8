//! Features and configuration of a network device.

use std::fmt;

use super::port::Offloads;

pub(crate) const F_CSUM: u64 = 1 << 0;
pub(crate) const F_GUEST_CSUM: u64 = 1 << 1;
pub(crate) const F_MTU: u64 = 1 << 3;
pub(crate) const F_MAC: u64 = 1 << 5;
pub(crate) const F_GUEST_TSO4: u64 = 1 << 7;
pub(crate) const F_GUEST_TSO6: u64 = 1 << 8;
pub(crate) const F_GUEST_ECN: u64 = 1 << 9;
pub(crate) const F_HOST_TSO4: u64 = 1 << 11;
pub(crate) const F_HOST_TSO6: u64 = 1 << 12;
pub(crate) const F_HOST_ECN: u64 = 1 << 13;
pub(crate) const F_MRG_RXBUF: u64 = 1 << 15;

/// Ethernet address of a guest's interface.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct MacAddress(pub [u8; 6]);

impl fmt::Display for MacAddress {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let [a, b, c, d, e, g] = self.0;
        write!(f, "{a:02x}:{b:02x}:{c:02x}:{d:02x}:{e:02x}:{g:02x}")
    }
}

#[derive(Debug)]
pub(crate) struct NetConfig {
    bytes: [u8; 12],
    features: u64,
}

impl NetConfig {
    pub(crate) fn new(mac: MacAddress, mtu: Option<u16>) -> Self {
        let [a, b, c, d, e, f] = mac.0;
        let [low, high] = mtu.unwrap_or(0).to_le_bytes();
        let features = F_CSUM
            | F_GUEST_CSUM
            | F_MAC
            | F_GUEST_TSO4
            | F_GUEST_TSO6
            | F_GUEST_ECN
            | F_HOST_TSO4
            | F_HOST_TSO6
            | F_HOST_ECN
            | F_MRG_RXBUF;
        let features = features | if mtu.is_some() { F_MTU } else { 0 };
        Self { bytes: [a, b, c, d, e, f, 0, 0, 0, 0, low, high], features }
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
}

/// What the driver can take in a packet that it receives.
pub(crate) fn offloads(negotiated: u64) -> Offloads {
    let has = |feature| negotiated & feature != 0;
    // Segmentation needs partial checksums.
    let checksum = has(F_GUEST_CSUM);
    Offloads {
        checksum,
        tso4: checksum && has(F_GUEST_TSO4),
        tso6: checksum && has(F_GUEST_TSO6),
        ecn: checksum && has(F_GUEST_ECN) && (has(F_GUEST_TSO4) || has(F_GUEST_TSO6)),
    }
}
