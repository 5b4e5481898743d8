//! PCI functions.

use std::fmt;
use std::str::FromStr;

use serde::{Deserialize, Serialize};

use crate::NodeId;

/// The address of a PCI function: domain, bus, device, function (`0000:3b:00.0`).
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(try_from = "String", into = "String")]
pub struct Bdf {
    domain: u32,
    bus: u8,
    device: u8,
    function: u8,
}

/// Why a PCI address was refused.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("{0:?} is not a PCI address such as 0000:3b:00.0")]
pub struct BdfError(pub String);

impl Bdf {
    /// An address from its parts; `None` where device > 31 or function > 7.
    #[must_use]
    pub const fn new(domain: u32, bus: u8, device: u8, function: u8) -> Option<Self> {
        if device < 32 && function < 8 { Some(Self { domain, bus, device, function }) } else { None }
    }
}

impl fmt::Display for Bdf {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{:04x}:{:02x}:{:02x}.{:x}", self.domain, self.bus, self.device, self.function)
    }
}

impl FromStr for Bdf {
    type Err = BdfError;

    /// Reads `dddd:bb:dd.f`, hexadecimal; the domain may be left out.
    fn from_str(text: &str) -> Result<Self, BdfError> {
        let parse = || -> Option<Bdf> {
            let (rest, function) = text.rsplit_once('.')?;
            let (rest, device) = rest.rsplit_once(':')?;
            let (domain, bus) = rest.rsplit_once(':').unwrap_or(("0", rest));
            let byte = |t: &str| if t.len() <= 2 { u8::from_str_radix(t, 16).ok() } else { None };
            Bdf::new(u32::from_str_radix(domain, 16).ok()?, byte(bus)?, byte(device)?, byte(function)?)
        };
        parse().ok_or_else(|| BdfError(text.to_owned()))
    }
}

impl TryFrom<String> for Bdf {
    type Error = BdfError;

    fn try_from(text: String) -> Result<Self, BdfError> {
        text.parse()
    }
}

impl From<Bdf> for String {
    fn from(bdf: Bdf) -> Self {
        bdf.to_string()
    }
}

/// A PCI function of the machine.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct PciFunction {
    /// Its address.
    pub address: Bdf,
    /// Vendor id.
    pub vendor: u16,
    /// Device id.
    pub device: u16,
    /// Base class, sub-class and programming interface: `0x030000` is a VGA controller.
    pub class: u32,
    /// The NUMA node it hangs off, where the firmware says so.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub node: Option<NodeId>,
    /// IOMMU group number (`iommu_group` link), where there is an IOMMU.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub iommu_group: Option<u32>,
    /// The host driver bound to it.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub driver: Option<String>,
    /// Its PCI Express link.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub link: Option<PciLink>,
    /// What the kernel can reset it by, best first (`reset_method`).
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub reset_methods: Vec<String>,
    /// Names of the operating system's devices on it (`eth0`, `nvme0n1`).
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub os_devices: Vec<String>,
}

/// A PCI Express link, now and at best. Speeds in tenths of GT/s (80 is 8.0 GT/s).
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct PciLink {
    /// Speed now.
    pub speed: u32,
    /// Lanes now.
    pub width: u32,
    /// Highest speed both ends support.
    pub max_speed: u32,
    /// Most lanes both ends support.
    pub max_width: u32,
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn addresses_round_trip() {
        for text in ["0000:00:00.0", "0000:3b:1f.7", "10000:01:00.0"] {
            assert_eq!(text.parse::<Bdf>().unwrap().to_string(), text);
        }
        assert_eq!("3b:00.1".parse::<Bdf>().unwrap().to_string(), "0000:3b:00.1");
    }

    #[test]
    fn malformed_addresses_are_refused() {
        for text in ["", "0000:3b:00", "0000:3b:20.0", "0000:3b:00.8", "zz:00.0", "0000:03b:00.0"] {
            assert!(text.parse::<Bdf>().is_err(), "{text}");
        }
    }
}
