//! The IPv4 network between a pod and its guest.

use std::net::Ipv4Addr;
use std::str::FromStr;

/// KubeVirt's, and with it what guests were set up for. Source: `DefaultVMCIDR` of KubeVirt.
const DEFAULT: GuestNetwork = GuestNetwork { base: Ipv4Addr::new(10, 0, 2, 0), prefix: 24 };
/// The smallest network with two hosts, and the largest that makes sense.
const PREFIXES: std::ops::RangeInclusive<u8> = 8..=30;

/// The network between a pod and its guest: its first address is the pod's, its second the guest's.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct GuestNetwork {
    base: Ipv4Addr,
    prefix: u8,
}

/// Why a text is no network for a guest.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum GuestNetworkError {
    /// It is no address with a prefix.
    #[error("{0:?} is no IPv4 network: write an address and a prefix, such as 10.0.2.0/24")]
    Malformed(String),
    /// It is too small or too large.
    #[error("/{0} has no room for a gateway and a guest, or takes too much: use /8 to /30")]
    Prefix(u8),
    /// No interface can have such addresses.
    #[error("{0} is not a network that a guest can be in: use a private one, such as 10.0.2.0/24")]
    Reserved(Ipv4Addr),
}

impl Default for GuestNetwork {
    fn default() -> Self {
        DEFAULT
    }
}

impl FromStr for GuestNetwork {
    type Err = GuestNetworkError;

    /// Bits of the address after the prefix do not count.
    fn from_str(text: &str) -> Result<Self, GuestNetworkError> {
        let malformed = || GuestNetworkError::Malformed(text.chars().take(40).collect());
        let (address, prefix) = text.split_once('/').ok_or_else(malformed)?;
        let address: Ipv4Addr = address.parse().map_err(|_| malformed())?;
        let prefix: u8 = prefix.parse().map_err(|_| malformed())?;
        if !PREFIXES.contains(&prefix) {
            return Err(GuestNetworkError::Prefix(prefix));
        }
        let mask = u32::MAX.checked_shl(32_u32.saturating_sub(u32::from(prefix))).unwrap_or(0);
        let base = Ipv4Addr::from_bits(address.to_bits() & mask);
        let [first, ..] = base.octets();
        // 0/8, loopback, multicast and above.
        if first == 0 || first == 127 || first >= 224 || base.is_link_local() {
            return Err(GuestNetworkError::Reserved(base));
        }
        Ok(Self { base, prefix })
    }
}

impl GuestNetwork {
    /// The pod's address in it, which is the guest's router.
    #[must_use]
    pub fn gateway(self) -> Ipv4Addr {
        Ipv4Addr::from_bits(self.base.to_bits().saturating_add(1))
    }

    /// The guest's address in it.
    #[must_use]
    pub fn guest(self) -> Ipv4Addr {
        Ipv4Addr::from_bits(self.base.to_bits().saturating_add(2))
    }

    /// Bits of its addresses that name it.
    #[must_use]
    pub const fn prefix(self) -> u8 {
        self.prefix
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_first_address_is_the_pods_and_the_second_the_guests() {
        let default = GuestNetwork::default();
        assert_eq!(default.gateway(), Ipv4Addr::new(10, 0, 2, 1));
        assert_eq!(default.guest(), Ipv4Addr::new(10, 0, 2, 2));
        let given: GuestNetwork = "192.168.7.77/30".parse().unwrap();
        assert_eq!(given.gateway(), Ipv4Addr::new(192, 168, 7, 77));
        assert_eq!((given.guest(), given.prefix()), (Ipv4Addr::new(192, 168, 7, 78), 30));
    }

    #[test]
    fn what_no_guest_can_be_in_is_refused() {
        let of = |text: &str| text.parse::<GuestNetwork>().unwrap_err();
        for text in ["", "10.0.2.0", "10.0.2/24", "10.0.2.0/", "10.0.2.0/256", "fd10::/120", "10.0.2.0/-1"] {
            assert_eq!(of(text), GuestNetworkError::Malformed(text.into()));
        }
        assert_eq!(of("10.0.2.0/31"), GuestNetworkError::Prefix(31));
        assert_eq!(of("10.0.2.0/0"), GuestNetworkError::Prefix(0));
        for text in ["127.0.0.1/8", "0.0.0.0/8", "224.0.0.0/24", "169.254.75.0/24"] {
            assert!(matches!(of(text), GuestNetworkError::Reserved(_)), "{text}");
        }
    }
}
