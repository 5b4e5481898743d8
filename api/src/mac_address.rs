//! MAC addresses of interfaces: as given, or made from names.

use std::fmt;
use std::str::FromStr;

/// A MAC address.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct MacAddress(pub [u8; 6]);

/// Why a text is no MAC address of an interface.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum MacAddressError {
    /// It is not six pairs of hexadecimal digits.
    #[error("Not a MAC address: write six pairs of hexadecimal digits, such as 02:00:00:12:34:56")]
    Malformed,
    /// It is a group's.
    #[error("A multicast address: the first pair must be even")]
    Multicast,
    /// It is all zero.
    #[error("All zero: no interface can have it")]
    Zero,
}

impl MacAddress {
    /// The address of an interface whose spec gives none: locally administered, and the same
    /// for the same names, so that a guest finds its interfaces again.
    #[must_use]
    pub fn for_interface(owner: &str, interface: &str) -> Self {
        // FNV-1a, 64 bits. Source: draft-eastlake-fnv.
        let hash = owner
            .bytes()
            .chain([0])
            .chain(interface.bytes())
            .fold(0xcbf2_9ce4_8422_2325_u64, |hash, byte| {
                (hash ^ u64::from(byte)).wrapping_mul(0x0100_0000_01b3)
            });
        let [first, second, third, fourth, fifth, sixth, ..] = hash.to_be_bytes();
        Self([(first & 0xfc) | 0x02, second, third, fourth, fifth, sixth])
    }
}

impl FromStr for MacAddress {
    type Err = MacAddressError;

    fn from_str(text: &str) -> Result<Self, MacAddressError> {
        let mut bytes = [0; 6];
        let mut pairs = text.split([':', '-']);
        for byte in &mut bytes {
            let pair = pairs.next().ok_or(MacAddressError::Malformed)?;
            if pair.len() != 2 || !pair.bytes().all(|digit| digit.is_ascii_hexdigit()) {
                return Err(MacAddressError::Malformed);
            }
            *byte = u8::from_str_radix(pair, 16).map_err(|_| MacAddressError::Malformed)?;
        }
        if pairs.next().is_some() {
            return Err(MacAddressError::Malformed);
        }
        let [first, ..] = bytes;
        match bytes {
            [0, 0, 0, 0, 0, 0] => Err(MacAddressError::Zero),
            _ if first & 1 == 1 => Err(MacAddressError::Multicast),
            _ => Ok(Self(bytes)),
        }
    }
}

impl fmt::Display for MacAddress {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for (number, byte) in self.0.iter().enumerate() {
            let separator = if number == 0 { "" } else { ":" };
            write!(f, "{separator}{byte:02x}")?;
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn addresses_are_read_and_written() {
        let address: MacAddress = "02-00-00-12-34-AB".parse().unwrap();
        assert_eq!(address.to_string(), "02:00:00:12:34:ab");
        for (text, error) in [
            ("02:00:00:12:34", MacAddressError::Malformed),
            ("02:00:00:12:34:5", MacAddressError::Malformed),
            ("02:00:00:12:34:56:78", MacAddressError::Malformed),
            ("02:00:00:12:34:zz", MacAddressError::Malformed),
            ("01:00:5e:00:00:01", MacAddressError::Multicast),
            ("00:00:00:00:00:00", MacAddressError::Zero),
        ] {
            assert_eq!(text.parse::<MacAddress>(), Err(error), "{text}");
        }
    }

    #[test]
    fn a_made_address_is_local_unicast_and_always_the_same() {
        let address = MacAddress::for_interface("default/vm", "net0");
        assert_eq!(address, MacAddress::for_interface("default/vm", "net0"));
        assert_ne!(address, MacAddress::for_interface("default/vm", "net1"));
        assert_eq!(address.0[0] & 3, 2);
        assert_eq!(address.to_string().parse::<MacAddress>(), Ok(address));
    }
}
