//! Rules on the pod network: who may be on it, and how.

use crate::network::Ipv4Range;
use crate::path::FieldPath;
use crate::problem::{Findings, ProblemCode};
use crate::{DhcpOptions, InstanceSpec, Interface, InterfacePort, Network, PodNetwork};

/// DHCP options that are left to users. Source: RFC 3942.
const PRIVATE_OPTIONS: std::ops::RangeInclusive<i64> = 224..=254;
/// Longest value of a DHCP option, bytes. Source: RFC 2132, section 2.
const LONGEST_OPTION: usize = 255;

/// Called after each interface and network was looked at alone.
pub(super) fn check(spec: &InstanceSpec, path: &FieldPath, findings: &mut Findings) {
    let interfaces = path.field("domain.devices.interfaces");
    let networks = path.field("networks");
    let mut first: Option<usize> = None;
    for (index, network) in spec.networks.iter().enumerate() {
        let Some(pod) = &network.pod else { continue };
        let path = networks.index(index).field("pod");
        // Rule 37: a pod has one network of its own.
        if let Some(first) = first {
            let message = format!("a pod has one network, and {} is it: remove this", networks.index(first));
            findings.add(&path, ProblemCode::Conflict, message);
        }
        first.get_or_insert(index);
        range(pod, &path.field("vmNetworkCIDR"), findings);
    }
    for (index, interface) in spec.domain.devices.interfaces.iter().enumerate() {
        let network = spec.networks.iter().find(|network| network.name == interface.name);
        check_interface(interface, network, &interfaces.index(index), findings);
    }
}

fn range(pod: &PodNetwork, path: &FieldPath, findings: &mut Findings) {
    let Some(text) = pod.vm_network_cidr.as_deref().filter(|text| !text.is_empty()) else { return };
    if Ipv4Range::parse(text).is_none() {
        let message = "must be an IPv4 range with room for a gateway and a guest, such as 10.0.2.0/24";
        findings.add(path, ProblemCode::Invalid, message);
    }
}

fn check_interface(
    interface: &Interface,
    network: Option<&Network>,
    path: &FieldPath,
    findings: &mut Findings,
) {
    let on_pod = network.is_some_and(|network| network.pod.is_some());
    // Rule 39.
    if interface.masquerade.is_some() && network.is_some() && !on_pod {
        let message = "hides a guest behind its pod's address: its network must be pod: {}";
        findings.add(&path.field("masquerade"), ProblemCode::Conflict, message);
    }
    let ports = path.field("ports");
    if interface.masquerade.is_none() && !interface.ports.is_empty() {
        let message = "only masquerade holds ports back: remove them";
        findings.add(&ports, ProblemCode::Conflict, message);
    }
    for (index, port) in interface.ports.iter().enumerate() {
        check_port(port, &interface.ports, index, &ports.index(index), findings);
    }
    if let Some(options) = &interface.dhcp_options {
        let path = path.field("dhcpOptions");
        if !on_pod {
            let message = "only the pod network has a DHCP server of ours: remove them";
            findings.add(&path, ProblemCode::Conflict, message);
        }
        check_options(options, &path, findings);
    }
}

fn check_port(
    port: &InterfacePort,
    all: &[InterfacePort],
    index: usize,
    path: &FieldPath,
    findings: &mut Findings,
) {
    if !(1..=65535).contains(&port.port) {
        let message = format!("{} is out of bounds: between 1 and 65535", port.port);
        findings.add(&path.field("port"), ProblemCode::Invalid, message);
    }
    if !["TCP", "UDP"].contains(&port.protocol()) {
        findings.add(&path.field("protocol"), ProblemCode::Invalid, "must be TCP or UDP");
    }
    let before = all.get(..index).unwrap_or_default();
    let name = port.name.as_deref().filter(|name| !name.is_empty());
    if name.is_some() && before.iter().any(|other| other.name.as_deref() == name) {
        findings.add(&path.field("name"), ProblemCode::DuplicateName, "another port has this name");
    }
    if before.iter().any(|other| (other.port, other.protocol()) == (port.port, port.protocol())) {
        findings.add(path, ProblemCode::Conflict, "is let through already: remove it");
    }
}

fn check_options(options: &DhcpOptions, path: &FieldPath, findings: &mut Findings) {
    for (index, server) in options.ntp_servers.iter().enumerate() {
        if server.parse::<std::net::Ipv4Addr>().is_err() {
            let message = "must be an IPv4 address: DHCP has no names here";
            findings.add(&path.field("ntpServers").index(index), ProblemCode::Invalid, message);
        }
    }
    let texts = [("bootFileName", &options.boot_file_name), ("tftpServerName", &options.tftp_server_name)];
    for (field, text) in texts {
        if text.as_ref().is_some_and(|text| text.len() > LONGEST_OPTION) {
            let message = format!("is longer than {LONGEST_OPTION} bytes");
            findings.add(&path.field(field), ProblemCode::Invalid, message);
        }
    }
    for (index, private) in options.private_options.iter().enumerate() {
        let path = path.field("privateOptions").index(index);
        if !PRIVATE_OPTIONS.contains(&private.option) {
            let message = format!("{} is out of bounds: between 224 and 254", private.option);
            findings.add(&path.field("option"), ProblemCode::Invalid, message);
        }
        if options.private_options.iter().take(index).any(|other| other.option == private.option) {
            findings.add(&path.field("option"), ProblemCode::DuplicateName, "is given already: remove it");
        }
        if private.value.is_empty() || private.value.len() > LONGEST_OPTION {
            let message = format!("must be 1 to {LONGEST_OPTION} bytes");
            findings.add(&path.field("value"), ProblemCode::Invalid, message);
        }
    }
}
