//! Rules on interfaces and networks, and that they belong to each other.

use crate::node::shorten;
use crate::path::FieldPath;
use crate::problem::{Findings, ProblemCode};
use crate::{InstanceSpec, Interface, MacAddress, Network};

use super::{exactly_one, names};

mod pod;

/// Longest name of a host's interface. Source: `IFNAMSIZ` of Linux, less the NUL.
const LONGEST_HOST_NAME: usize = 15;

pub(super) fn check(spec: &InstanceSpec, path: &FieldPath, findings: &mut Findings) {
    let list = &spec.domain.devices.interfaces;
    let interfaces = path.field("domain.devices.interfaces");
    let networks = path.field("networks");
    names::unique(list.iter().map(|interface| interface.name.as_str()), &interfaces, findings);
    names::unique(spec.networks.iter().map(|network| network.name.as_str()), &networks, findings);
    let network_names = names::set(spec.networks.iter().map(|network| network.name.as_str()));
    let interface_names = names::set(list.iter().map(|interface| interface.name.as_str()));
    let mut addresses = std::collections::HashMap::new();
    for (index, interface) in list.iter().enumerate() {
        let path = interfaces.index(index);
        binding(interface, &path, findings);
        if interface.sriov.is_some() {
            of_the_device(interface, &path, findings);
            continue;
        }
        names::resolve(&interface.name, &network_names, ("network", "networks"), &path, findings);
        let Some(text) = interface.mac_address.as_deref().filter(|text| !text.is_empty()) else { continue };
        let path = path.field("macAddress");
        match text.parse::<MacAddress>() {
            Ok(address) => {
                if let Some(first) = addresses.insert(address, index) {
                    let message = format!("{address} is the address of {} too", interfaces.index(first));
                    findings.add(&path, ProblemCode::DuplicateName, message);
                }
            }
            Err(error) => findings.add(&path, ProblemCode::Invalid, super::lower_first(&error)),
        }
    }
    for (index, network) in spec.networks.iter().enumerate() {
        let path = networks.index(index);
        let interface = list.iter().find(|interface| interface.name == network.name);
        check_network(network, interface, &path, findings);
        let wanted = ("interface", "domain.devices.interfaces");
        names::resolve(&network.name, &interface_names, wanted, &path, findings);
    }
    if findings.in_cluster() {
        pod::check(spec, path, findings);
    }
}

fn binding(interface: &Interface, path: &FieldPath, findings: &mut Findings) {
    let bindings = [
        ("bridge", interface.bridge.is_some()),
        ("masquerade", interface.masquerade.is_some()),
        ("sriov", interface.sriov.is_some()),
        ("passtBinding", interface.passt_binding.is_some()),
        ("binding", interface.binding.is_some()),
        ("slirp", interface.slirp.is_some()),
        ("macvtap", interface.macvtap.is_some()),
        ("passt", interface.passt.is_some()),
    ];
    let suggestion = if findings.in_cluster() {
        "how is it connected? use masquerade: {}"
    } else {
        "how is it connected? use bridge: {}"
    };
    exactly_one(&bindings, suggestion, path, findings);
}

/// What a function has of its own, its parent on the host sets.
fn of_the_device(interface: &Interface, path: &FieldPath, findings: &mut Findings) {
    let given = [
        ("macAddress", interface.mac_address.as_deref().is_some_and(|text| !text.is_empty())),
        ("model", interface.model.is_some()),
        ("state", interface.state.is_some()),
    ];
    for (field, _) in given.into_iter().filter(|(_, given)| *given) {
        let message = "it is the device's own, which its parent on the host sets (`ip link set dev PARENT vf N`); remove it";
        findings.add(&path.field(field), ProblemCode::Invalid, message.to_owned());
    }
}

fn check_network(
    network: &Network,
    interface: Option<&Interface>,
    path: &FieldPath,
    findings: &mut Findings,
) {
    let kinds = [
        ("multus", network.multus.is_some()),
        ("pod", network.pod.is_some()),
        ("resourceClaim", network.resource_claim.is_some()),
    ];
    let suggestion = if findings.in_cluster() {
        "what is it? use pod: {}"
    } else {
        "what is it? use multus, with a tap or bridge of this host"
    };
    exactly_one(&kinds, suggestion, path, findings);
    let passed_through = interface.is_some_and(|interface| interface.sriov.is_some());
    let Some(multus) = network.multus.as_ref().filter(|multus| !multus.network_name.is_empty()) else {
        return;
    };
    let name = &multus.network_name;
    if passed_through {
        if !name.contains('/') {
            let message = format!("{:?} is no resource name such as example.com/nic", shorten(name));
            findings.add(&path.field("multus.networkName"), ProblemCode::Invalid, message);
        }
        return;
    }
    if findings.in_cluster() {
        let message = "not implemented yet: networks of Multus are not joined; use pod: {}, or sriov";
        findings.add(&path.field("multus"), ProblemCode::Planned, message);
        return;
    }
    // Source: `dev_valid_name` of Linux.
    let valid = name.len() <= LONGEST_HOST_NAME
        && ![".", ".."].contains(&name.as_str())
        && !name.contains(|c: char| c == '/' || c == ':' || c.is_whitespace() || c.is_control());
    if !valid {
        let message = format!(
            "{:?} is no name of a tap or bridge of this host: at most {LONGEST_HOST_NAME} characters, without / and :",
            shorten(name)
        );
        findings.add(&path.field("multus.networkName"), ProblemCode::Invalid, message);
    }
}
