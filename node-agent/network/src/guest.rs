//! What the launcher is told of an interface: what it gives the guest, and what its DHCP server says.
//!
//! Written by the node agent and read by the launcher, as JSON.

use std::net::Ipv4Addr;

use serde::{Deserialize, Serialize};

/// A guest's interface, made in its pod.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct GuestLink {
    /// Name of its tap device in the pod.
    pub tap: String,
    /// MAC address that the guest must have; none where any will do.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub mac: Option<String>,
    /// MTU of the pod's interface.
    pub mtu: u32,
    /// What the guest is told by DHCP; none where the pod itself has no address.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub addressing: Option<Addressing>,
}

/// What a guest is told by DHCP.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct Addressing {
    /// The guest's address.
    pub address: Ipv4Addr,
    /// Bits of it that name its network.
    pub prefix: u8,
    /// The DHCP server's address.
    pub server: Ipv4Addr,
    /// The default router.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub router: Option<Ipv4Addr>,
    /// All routes, with the default route, where there are others than that; else none.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub routes: Vec<GuestRoute>,
}

/// A route of the guest.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct GuestRoute {
    /// Where to.
    pub destination: Ipv4Addr,
    /// Bits of it that count.
    pub prefix: u8,
    /// By which router; none where the destination is on the link.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub gateway: Option<Ipv4Addr>,
}
