//! `domain.devices.interfaces[]` and `networks[]`: interfaces and what they are connected to.

use std::net::Ipv4Addr;

use crate::schema::Status::{Cluster, Libvirt, Part, Planned, Refused, Works};

/// The pod's network.
const POD_NETWORK: &str = "there is no pod network on one host; use a multus network whose networkName is a tap or \
     bridge of this host, with a bridge interface";
/// Dropped.
const GONE: &str = "KubeVirt no longer has it; use bridge";
/// PCI slots.
const SLOT: &str = "devices get their PCI slots in the order of the spec; remove it";
/// Model.
const MODEL: &str = "interfaces are virtio interfaces; use virtio";
/// Model, natively.
const INTERFACE: &str = "interfaces are virtio interfaces";
/// No DHCP.
const DHCP: &str = "there is no DHCP server between the guest and the bridge; remove it";
/// No firewall.
const PORTS: &str = "a bridge passes every port; remove it";

object! {
    "A network interface."
    Interface {
        name "name": String, Works(""), "Its name, and that of its network.";
        bridge "bridge": Option<BridgeBinding>, Works("The guest is on the tap or bridge of its network; in a cluster it has its pod's address. Exactly one binding must be given."), "Connected to a bridge.";
        mac_address "macAddress": Option<String>, Works("Unicast. Where absent, one made from the names, always the same."), "MAC address the guest sees.";
        model "model": Option<InterfaceModel>, Works(""), "Its model; `virtio` where absent.";
        state "state": Option<InterfaceState>, Works(""), "State of its link; `up` where absent.";
        masquerade "masquerade": Option<MasqueradeBinding>, Cluster(POD_NETWORK), "Behind the pod's address.";
        sriov "sriov": Option<SriovBinding>, Works("The guest has a device of the host as its own: `networkName` of its network is the resource name (`/etc/pinion/devices.yaml`). No `macAddress`, `model` or `state`: they are the device's."), "A virtual function of a network card.";
        passt_binding "passtBinding": Option<PasstBinding>, Planned(POD_NETWORK), "By passt.";
        binding "binding": Option<PluginBinding>, Planned("binding plug-ins live in a cluster; use bridge"), "By a plug-in.";
        slirp "slirp": Option<SlirpBinding>, Refused(GONE), "By a user-mode stack.";
        macvtap "macvtap": Option<MacvtapBinding>, Refused(GONE), "By macvtap.";
        passt "passt": Option<OldPasstBinding>, Refused(GONE), "By passt, as it was spelled before.";
        ports "ports": Vec<InterfacePort>, Cluster(PORTS), "Ports let through.";
        port_ranges "portRanges": Vec<PortRange>, Planned("ports are let through one by one, or all; use ports"), "Port ranges let through.";
        dhcp_options "dhcpOptions": Option<DhcpOptions>, Cluster(DHCP), "What the pod's DHCP server says.";
        boot_order "bootOrder": Option<u32>, Planned("the kernel comes from the boot disk or from firmware.kernelBoot, never from the network; remove it"), "When it is tried by the firmware.";
        pci_address "pciAddress": Option<String>, Planned(SLOT), "Its PCI slot.";
        acpi_index "acpiIndex": Option<i64>, Planned("devices are named by their PCI slots; remove it"), "Its index in the ACPI tables.";
        tag "tag": Option<String>, Planned("device tags are not told to the guest; remove it"), "Tag told to the guest.";
    }

    "Connected to a bridge."
    BridgeBinding {}

    "Behind the pod's address."
    MasqueradeBinding {}

    "A virtual function of a network card."
    SriovBinding {}

    "By passt."
    PasstBinding {}

    "By a user-mode stack."
    SlirpBinding {}

    "By macvtap."
    MacvtapBinding {}

    "By passt, as it was spelled before."
    OldPasstBinding {}

    "By a plug-in."
    PluginBinding {
        name "name": String, Part, "Its name.";
    }

    "A port let through."
    InterfacePort {
        name "name": Option<String>, Part, "Its name.";
        port "port": i32, Part, "Its number.";
        protocol "protocol": Option<String>, Part, "`TCP` or `UDP`.";
    }

    "A range of ports let through."
    PortRange {
        start "start": i32, Part, "First.";
        end "end": i32, Part, "Last.";
        protocol "protocol": String, Part, "`TCP` or `UDP`.";
    }

    "What the pod's DHCP server says."
    DhcpOptions {
        boot_file_name "bootFileName": Option<String>, Part, "Option 67.";
        tftp_server_name "tftpServerName": Option<String>, Part, "Option 66.";
        ntp_servers "ntpServers": Vec<String>, Part, "Option 42.";
        private_options "privateOptions": Vec<DhcpPrivateOption>, Part, "Options 224 to 254.";
    }

    "A private DHCP option."
    DhcpPrivateOption {
        option "option": i64, Part, "Its number.";
        value "value": String, Part, "Its value.";
    }

    "What an interface is connected to. Exactly one kind."
    Network {
        name "name": String, Works(""), "Its name.";
        multus "multus": Option<MultusNetwork>, Works("In a cluster with `sriov` only: networks of Multus are not joined yet."), "A network by name.";
        pod "pod": Option<PodNetwork>, Cluster(POD_NETWORK), "The pod network.";
        resource_claim "resourceClaim": Option<NetworkClaim>, Planned("dynamic resource allocation is not done; use a multus network"), "A device of a claim.";
    }

    "A network by name."
    MultusNetwork {
        network_name "networkName": String, Works("Name of a tap or bridge that exists on this host; with `sriov`, the resource name of a device."), "Its name.";
        default "default": Option<bool>, Planned("there is no pod network to replace; remove it"), "Whether it replaces the pod network.";
    }

    "The pod network."
    PodNetwork {
        vm_network_cidr "vmNetworkCIDR": Option<String>, Part, "IPv4 range inside the guest; `10.0.2.0/24` where absent.";
        vm_ipv6_network_cidr "vmIPv6NetworkCIDR": Option<String>, Planned("the guest is reached by IPv4; remove it"), "IPv6 range inside the guest.";
    }

    "A device of a claim."
    NetworkClaim {
        claim_name "claimName": Option<String>, Part, "The claim.";
        request_name "requestName": Option<String>, Part, "Request of the claim.";
    }
}

choice! {
    "Model of an interface."
    InterfaceModel {
        Virtio "virtio", Works(""), "virtio-net.";
        E1000 "e1000", Libvirt(INTERFACE), "Intel 82540.";
        E1000e "e1000e", Libvirt(INTERFACE), "Intel 82574.";
        IgbModel "igb", Refused(MODEL), "Intel 82576.";
        Ne2kPci "ne2k_pci", Refused(MODEL), "NE2000.";
        Pcnet "pcnet", Refused(MODEL), "AMD PCnet.";
        Rtl8139 "rtl8139", Libvirt(INTERFACE), "Realtek 8139.";
    }

    "State of an interface's link."
    InterfaceState {
        Up "up", Works(""), "Connected.";
        Down "down", Planned("a link is always up; remove it"), "Not connected.";
        Absent "absent", Planned("interfaces are not unplugged; remove the interface"), "Unplugged.";
    }
}

/// A range of IPv4 addresses that has room for a gateway and a guest.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Ipv4Range {
    /// Its first address, which is nobody's.
    pub first: Ipv4Addr,
    /// How many leading bits all of its addresses share; 30 at most.
    pub prefix: u8,
}

impl Ipv4Range {
    /// KubeVirt's, where a spec names none.
    pub const DEFAULT: Self = Self { first: Ipv4Addr::new(10, 0, 2, 0), prefix: 24 };

    /// Reads `10.0.2.0/24`; `None` where that is no range, or one without room for two.
    #[must_use]
    pub fn parse(text: &str) -> Option<Self> {
        let (address, prefix) = text.split_once('/')?;
        let (address, prefix) = (address.parse::<Ipv4Addr>().ok()?, prefix.parse::<u8>().ok()?);
        let host = u32::MAX.checked_shr(u32::from(prefix)).filter(|_| (1..=30).contains(&prefix))?;
        Some(Self { first: Ipv4Addr::from_bits(address.to_bits() & !host), prefix })
    }

    /// The gateway's.
    #[must_use]
    pub const fn gateway(self) -> Ipv4Addr {
        Ipv4Addr::from_bits(self.first.to_bits() | 1)
    }

    /// The guest's.
    #[must_use]
    pub const fn guest(self) -> Ipv4Addr {
        Ipv4Addr::from_bits(self.first.to_bits() | 2)
    }
}

impl PodNetwork {
    /// The addresses behind the pod's, as masquerade has them.
    #[must_use]
    pub fn range(&self) -> Ipv4Range {
        let text = self.vm_network_cidr.as_deref().filter(|text| !text.is_empty());
        text.and_then(Ipv4Range::parse).unwrap_or(Ipv4Range::DEFAULT)
    }
}

impl InterfacePort {
    /// `TCP` where it does not say.
    #[must_use]
    pub fn protocol(&self) -> &str {
        self.protocol.as_deref().filter(|text| !text.is_empty()).unwrap_or("TCP")
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_range_has_room_for_a_gateway_and_a_guest() {
        assert_eq!(Ipv4Range::parse("10.0.2.0/24"), Some(Ipv4Range::DEFAULT));
        let range = Ipv4Range::parse("192.168.7.77/30").unwrap();
        assert_eq!((range.gateway(), range.guest()), ([192, 168, 7, 77].into(), [192, 168, 7, 78].into()));
        for text in
            ["", "10.0.2.0", "10.0.2.0/31", "10.0.2.0/0", "10.0.2.0/256", "a/24", "fd10::/120", "10.0.2/24"]
        {
            assert_eq!(Ipv4Range::parse(text), None, "{text}");
        }
    }
}
