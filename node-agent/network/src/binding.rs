//! What is asked for: one interface of a guest, and how it is connected to its pod's.
//!
//! Pure. Names of what is made in the pod follow from the interface's place among the guest's interfaces, so that
//! doing it again finds what is there.

use std::fmt;
use std::net::Ipv4Addr;
use std::path::PathBuf;

use pinion_api::MacAddress;

use crate::network::GuestNetwork;

/// The bridge's address where there is no other: the DHCP server's. Source: KubeVirt's 169.254.75.10 and following.
const BRIDGE_ADDRESS: Ipv4Addr = Ipv4Addr::new(169, 254, 75, 10);

/// An interface of a guest on its pod's network.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct PodInterface {
    /// Its place among the guest's interfaces, from 0.
    pub slot: u8,
    /// The pod's interface: `eth0` for the pod network.
    pub device: String,
    /// How it is connected.
    pub binding: Binding,
}

/// How a guest's interface is connected to its pod's.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Binding {
    /// The guest is behind the pod's address.
    Masquerade {
        /// The network between pod and guest.
        network: GuestNetwork,
        /// What is let through to the guest; everything where empty.
        ports: Vec<Port>,
    },
    /// The guest has the pod's address.
    Bridge {
        /// The guest's MAC address; the pod's where absent.
        mac: Option<MacAddress>,
        /// A file that this agent keeps for as long as the pod lives: what the pod's interface was like.
        record: PathBuf,
    },
}

/// A port that is let through.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct Port {
    /// Its protocol.
    pub protocol: Protocol,
    /// Its number.
    pub number: u16,
}

/// A protocol with ports.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Protocol {
    /// TCP.
    Tcp,
    /// UDP.
    Udp,
}

/// Names and addresses of what is made in the pod for an interface.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Names {
    /// The tap device.
    pub tap: String,
    /// The bridge, with `bridge`.
    pub bridge: String,
    /// The tables of nftables.
    pub table: String,
    /// The bridge's address, with `bridge`.
    pub bridge_address: Ipv4Addr,
}

impl PodInterface {
    /// Names of what is made for it.
    #[must_use]
    pub fn names(&self) -> Names {
        let slot = self.slot;
        Names {
            tap: format!("tap{slot}"),
            bridge: format!("pinion-br{slot}"),
            table: format!("pinion-tap{slot}"),
            // 255 interfaces further is still link-local.
            bridge_address: Ipv4Addr::from_bits(BRIDGE_ADDRESS.to_bits().saturating_add(u32::from(slot))),
        }
    }
}

impl fmt::Display for Protocol {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Tcp => "TCP",
            Self::Udp => "UDP",
        })
    }
}
