//! PCI functions.

use std::fmt;
use std::str::FromStr;

use serde::{Deserialize, Serialize};
use uuid::Uuid;

use crate::NodeId;

/// The address of a PCI function: domain, bus, device, function (`0000:3b:00.0`).
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
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
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
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
    /// Subsystem vendor and device ids, where it has any.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub subsystem: Option<Subsystem>,
    /// The root port that it hangs off; `None` for a function on a root bus itself.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub root_port: Option<Bdf>,
    /// Its BARs, by index. An unassigned or unused one is left out.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub bars: Vec<PciBar>,
    /// MSI vectors that it can ask for; `None` without the capability, or where nobody may look.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub msi_vectors: Option<u16>,
    /// MSI-X vectors that it has; `None` without the capability, or where nobody may look.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub msix_vectors: Option<u16>,
    /// What it has of SR-IOV; `None` for all other functions.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub sriov: Option<Sriov>,
    /// Types of mediated devices that it offers (`mdev_supported_types`).
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub mediated_types: Vec<String>,
    /// Mediated devices that were made of it, ascending.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub mediated_devices: Vec<MediatedDevice>,
    /// Access Control Services: whether transactions of functions below this port are kept
    /// apart. `None` without the capability, or where nobody may look.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub acs: Option<bool>,
    /// Address Translation Services: whether on. `None` without the capability, or where nobody may look.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub ats: Option<bool>,
    /// What the host itself uses it for; a function with any is not given away.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub uses: Vec<HostUse>,
}

/// A mediated device: a part of a function that its driver gives away, such as a virtual GPU.
///
/// Source: the kernel's `Documentation/driver-api/vfio-mediated-device.rst`.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct MediatedDevice {
    /// Its name.
    pub id: MediatedId,
    /// Its type, by the name of the type's folder: `nvidia-222`.
    pub type_id: String,
    /// What the driver calls that type, where it says so: `GRID T4-1B`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub type_name: Option<String>,
    /// IOMMU group number; `None` while no driver has it.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub iommu_group: Option<u32>,
}

/// What a mediated device is called: a UUID, which whoever made it has chosen.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(try_from = "String", into = "String")]
pub struct MediatedId(Uuid);

/// Why the name of a mediated device was refused.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("{0:?} is not a UUID such as 83c12a25-5f5e-4d4c-9d15-b2a5e7e7a2c1")]
pub struct MediatedIdError(pub String);

impl fmt::Display for MediatedId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.hyphenated().fmt(f)
    }
}

impl FromStr for MediatedId {
    type Err = MediatedIdError;

    /// Reads a UUID as the kernel writes it, with dashes.
    fn from_str(text: &str) -> Result<Self, MediatedIdError> {
        const LENGTH: usize = 36;
        let uuid = if text.len() == LENGTH { Uuid::try_parse(text).ok() } else { None };
        uuid.map(Self).ok_or_else(|| MediatedIdError(text.to_owned()))
    }
}

impl TryFrom<String> for MediatedId {
    type Error = MediatedIdError;

    fn try_from(text: String) -> Result<Self, MediatedIdError> {
        text.parse()
    }
}

impl From<MediatedId> for String {
    fn from(id: MediatedId) -> Self {
        id.to_string()
    }
}

/// Subsystem ids of a PCI function.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Subsystem {
    /// Vendor id.
    pub vendor: u16,
    /// Device id.
    pub device: u16,
}

/// A base address register, as the host set it up (`resource` in sysfs).
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct PciBar {
    /// Which register, 0 to 5.
    pub index: u8,
    /// Bytes.
    pub size_bytes: u64,
    /// What it decodes.
    pub kind: PciBarKind,
    /// Whether reads have no side effects.
    pub prefetchable: bool,
}

/// What a base address register decodes.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub enum PciBarKind {
    /// I/O ports.
    Ports,
    /// Memory below 4 GiB.
    Memory32,
    /// Memory anywhere.
    Memory64,
}

/// A function's part in SR-IOV.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", tag = "role")]
pub enum Sriov {
    /// It can have virtual functions.
    #[serde(rename_all = "camelCase")]
    Physical {
        /// The most it can have (`sriov_totalvfs`).
        most: u16,
        /// Those that exist, ascending.
        functions: Vec<Bdf>,
    },
    /// It is one.
    #[serde(rename_all = "camelCase")]
    Virtual {
        /// Whose.
        parent: Bdf,
    },
}

/// What the host uses a function for.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", tag = "use")]
pub enum HostUse {
    /// A file system on it is mounted, or it holds swap space.
    #[serde(rename_all = "camelCase")]
    Mounted {
        /// The block device.
        device: String,
        /// Where (`swap` for swap space).
        at: String,
    },
    /// It carries a default route.
    #[serde(rename_all = "camelCase")]
    DefaultRoute {
        /// The interface.
        interface: String,
    },
    /// The host's console is on it.
    Console,
}

impl fmt::Display for HostUse {
    /// As the end of a sentence about the function.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Mounted { device, at } if at == "swap" => write!(f, "it holds swap space ({device})"),
            Self::Mounted { device, at } => write!(f, "it holds the file system mounted at {at} ({device})"),
            Self::DefaultRoute { interface } => write!(f, "it carries the default route ({interface})"),
            Self::Console => f.write_str("it shows the console"),
        }
    }
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
