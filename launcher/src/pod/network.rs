//! The pod network of a guest: the agent makes each interface in the pod, and this process answers the guest's DHCP on it.
//!
//! Called by the main thread before the guest is opened. Each DHCP server is a thread of its own on the emulator's CPUs; it
//! ends with the process, and the guest keeps its address without it until it asks again.

use std::collections::BTreeMap;
use std::fs;
use std::net::UdpSocket;
use std::os::fd::OwnedFd;
use std::thread;

use pinion_api::{Interface, MacAddress, Network, VirtualMachineInstance};
use pinion_dhcp::{ExtraOptions, Lease, Resolver, Route, serve};
use pinion_endpoint::AskError;

use super::PodError;
use super::agent::{LinkAddressing, NetworkBinding, OpenPort, PodAgent, PodLink};
use crate::sandbox;

/// How the pod resolves names.
const RESOLV_CONF: &str = "/etc/resolv.conf";

/// Makes the interfaces that are on the pod network; their taps, by name. An interface that must have the pod's MAC address
/// has it afterwards.
pub(super) fn connect(
    program: &'static str,
    agent: &PodAgent,
    instance: &mut VirtualMachineInstance,
) -> Result<BTreeMap<String, OwnedFd>, PodError> {
    let owner = instance.full_name();
    let host_name = instance.host_name().to_owned();
    let networks = instance.spec.networks.clone();
    let mut taps = BTreeMap::new();
    for (slot, interface) in (0u8..).zip(&mut instance.spec.domain.devices.interfaces) {
        let network = networks.iter().find(|network| network.name == interface.name);
        let Some(binding) = network.and_then(|network| binding(&owner, interface, network)) else { continue };
        let (link, descriptors) = agent.network(&owner, slot, binding).map_err(|e| match e {
            AskError::Refused(refusal) => PodError::Refused(refusal),
            other => PodError::Network { interface: interface.name.clone(), source: other },
        })?;
        let mut descriptors = descriptors.into_iter();
        let Some(tap) = descriptors.next() else {
            return Err(PodError::NoTap { interface: interface.name.clone() });
        };
        if let Some(mac) = &link.mac {
            interface.mac_address = Some(mac.clone());
        }
        if let (Some(socket), Some(lease)) = (descriptors.next(), lease(interface, &host_name, &link)) {
            answer(program, socket.into(), lease)?;
        }
        taps.insert(interface.name.clone(), tap);
    }
    Ok(taps)
}

/// How an interface is on the pod network; `None` for one that is on another.
fn binding(owner: &str, interface: &Interface, network: &Network) -> Option<NetworkBinding> {
    let pod = network.pod.as_ref()?;
    if interface.masquerade.is_some() {
        let ports = interface.ports.iter().filter_map(|port| {
            let number = u16::try_from(port.port).ok()?;
            Some(OpenPort { protocol: port.protocol().to_owned(), number })
        });
        let range = pod.vm_network_cidr.clone().filter(|text| !text.is_empty());
        return Some(NetworkBinding::Masquerade { range, ports: ports.collect() });
    }
    // An address that was made up for it is not asked for: the pod's network may know no other than the pod's own.
    let made_up = MacAddress::for_interface(owner, &interface.name).to_string();
    let mac = interface.mac_address.clone().filter(|mac| *mac != made_up);
    interface.bridge.is_some().then_some(NetworkBinding::Bridge { mac })
}

/// What the guest is told; `None` where the pod itself has no address.
fn lease(interface: &Interface, host_name: &str, link: &PodLink) -> Option<Lease> {
    let LinkAddressing { address, prefix, server, router, routes } = link.addressing.clone()?;
    let mac = interface.mac_address.as_deref()?.parse::<MacAddress>().ok()?;
    let route = |r: super::agent::LinkRoute| Route {
        destination: r.destination,
        prefix: r.prefix,
        gateway: r.gateway,
    };
    let extra = interface.dhcp_options.as_ref().map(ExtraOptions::of_spec);
    Some(Lease {
        mac,
        address,
        prefix,
        server,
        router,
        routes: routes.into_iter().map(route).collect(),
        resolver: Resolver::parse(&fs::read_to_string(RESOLV_CONF).unwrap_or_default()),
        host_name: Some(host_name.to_owned()),
        mtu: u16::try_from(link.mtu).ok(),
        // Admission has looked at it.
        extra: extra.and_then(Result::ok).unwrap_or_default(),
    })
}

fn answer(program: &'static str, socket: UdpSocket, lease: Lease) -> Result<(), PodError> {
    let serving = move || {
        let _ = sandbox::give_up_all_privileges();
        let error = serve(&socket, &lease);
        eprintln!("{program}: the guest's DHCP server has ended: {error}");
    };
    let made = thread::Builder::new().name("dhcp".into()).stack_size(256 << 10).spawn(serving);
    made.map(drop).map_err(|source| PodError::Process { action: "make a thread", source })
}
