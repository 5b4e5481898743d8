//! A guest gets its address by DHCP on its pod's network, and reaches and is reached with it: the node agent's half and
//! the launcher's, put together.

#![expect(clippy::unwrap_used, clippy::panic, reason = "tests")]

#[expect(dead_code, reason = "shared with the tests of pinion-pod-network")]
#[path = "../../node-agent/network/tests/pod/wire.rs"]
mod wire;
#[expect(dead_code, reason = "shared with the tests of pinion-pod-network")]
#[path = "../../node-agent/network/tests/pod/world.rs"]
mod world;

use std::net::{Ipv4Addr, SocketAddrV4, UdpSocket};
use std::thread;

use pinion_api::MacAddress;
use pinion_dhcp::{ExtraOptions, Lease, Resolver, Route, serve};
use pinion_pod_network::{Binding, GuestLink, GuestNetwork, PodInterface, Prepared, prepare};
use vmm_virtio::net::{Offloads, PacketPort, TapPort};
use wire::Wire;
use world::{Guest, OUTSIDE, POD, World, answer, tcp, udp};

const RESOLVER: &str = "nameserver 10.96.0.10\nsearch ns.svc.cluster.local";
const NOBODY: SocketAddrV4 = SocketAddrV4::new(Ipv4Addr::UNSPECIFIED, 68);
const SERVERS: SocketAddrV4 = SocketAddrV4::new(Ipv4Addr::BROADCAST, 67);

fn lease(link: &GuestLink, mac: MacAddress) -> Lease {
    let told = link.addressing.clone().unwrap();
    let route = |route: pinion_pod_network::GuestRoute| Route {
        destination: route.destination,
        prefix: route.prefix,
        gateway: route.gateway,
    };
    Lease {
        mac,
        address: told.address,
        prefix: told.prefix,
        server: told.server,
        router: told.router,
        routes: told.routes.into_iter().map(route).collect(),
        resolver: Resolver::parse(RESOLVER),
        host_name: Some("testvm".into()),
        mtu: u16::try_from(link.mtu).ok(),
        extra: ExtraOptions::default(),
    }
}

/// The value of an option of a DHCP message.
fn option(message: &[u8], code: u8) -> Vec<u8> {
    let mut rest = &message[240..];
    while let [at, length, more @ ..] = rest {
        let (value, after) = more.split_at(usize::from(*length));
        if *at == code {
            return value.to_vec();
        }
        rest = after;
    }
    panic!("option {code} is not in {message:?}");
}

/// Asks as a client without an address does, and gives the server's answer.
fn ask(wire: &mut Wire, mac: MacAddress, options: &[u8]) -> Vec<u8> {
    let mut message = vec![0; 236];
    message[..8].copy_from_slice(&[1, 1, 6, 0, 0xca, 0xfe, 0, 1]);
    message[28..34].copy_from_slice(&mac.0);
    message.extend([99, 130, 83, 99]);
    message.extend(options);
    message.push(255);
    wire.send([0xff; 6], NOBODY, SERVERS, &message);
    let (_, reply) = wire.receive(68);
    assert_eq!(reply[4..8], [0xca, 0xfe, 0, 1]);
    reply
}

/// The whole exchange: what the guest knows of its network afterwards.
fn configure(wire: &mut Wire, link: &GuestLink, mac: MacAddress) -> GuestLink {
    let offer = ask(wire, mac, &[53, 1, 1]);
    let four = |bytes: &[u8]| Ipv4Addr::from(<[u8; 4]>::try_from(bytes).unwrap());
    let (address, server) = (four(&offer[16..20]), four(&option(&offer, 54)));
    let mut wanted = vec![53, 1, 3, 50, 4];
    wanted.extend(address.octets());
    wanted.extend([54, 4]);
    wanted.extend(server.octets());
    let reply = ask(wire, mac, &wanted);
    assert_eq!(option(&reply, 53), [5]);
    assert_eq!(option(&reply, 6), [10, 96, 0, 10]);
    let mut known = link.clone();
    known.mtu = u32::from(u16::from_be_bytes(option(&reply, 26).try_into().unwrap()));
    known.mac = Some(mac.to_string());
    let told = known.addressing.as_mut().unwrap();
    told.address = four(&reply[16..20]);
    told.prefix = u8::try_from(u32::from(four(&option(&reply, 1))).count_ones()).unwrap();
    told.router = Some(four(&option(&reply, 3)));
    known
}

/// Both ways, after DHCP, through a tap that the VMM's network device takes.
fn runs(world: &World, binding: Binding, outside_sees: &str) {
    let interface = PodInterface { slot: 0, device: "eth0".into(), binding };
    let Prepared { tap, dhcp, guest: link } = prepare(&world.pod, &interface).unwrap();
    let own = link.mac.as_ref().map(|text| text.parse().unwrap());
    let mac = own.unwrap_or_else(|| MacAddress::for_interface("ns/testvm", "default"));
    let offloads = Offloads { checksum: true, tso4: true, tso6: true, ecn: true };
    TapPort::new(tap.try_clone().unwrap()).set_offloads(offloads).unwrap();
    let (dhcp, lease): (UdpSocket, _) = (dhcp.unwrap(), lease(&link, mac));
    thread::spawn(move || serve(&dhcp, &lease));
    let mut wire = Wire::new(tap.try_clone().unwrap(), mac.0);
    let known = configure(&mut wire, &link, mac);
    assert_eq!((known.mtu, &known.addressing), (link.mtu, &link.addressing));
    drop(wire);
    let guest = Guest::start(tap, &known);
    let address = known.addressing.unwrap().address;
    answer("outside", &world.outside, OUTSIDE, 7000);
    answer("guest", &guest.namespace, address, 7001);
    assert_eq!(tcp(&guest.namespace, OUTSIDE, 7000), outside_sees);
    assert_eq!(udp(&guest.namespace, OUTSIDE, 7000), outside_sees);
    assert_eq!(tcp(&world.outside, POD, 7001), "guest sees 172.20.0.1");
    assert_eq!(udp(&world.outside, POD, 7001), "guest sees 172.20.0.1");
}

#[test]
fn a_masqueraded_guest_gets_its_address_and_reaches_and_is_reached() {
    let Some(world) = World::new("a_masqueraded_guest_gets_its_address_and_reaches_and_is_reached") else {
        return;
    };
    let binding = Binding::Masquerade { network: GuestNetwork::default(), ports: Vec::new() };
    runs(&world, binding, "outside sees 172.20.0.2");
}

#[test]
fn a_bridged_guest_gets_its_pods_address_and_reaches_and_is_reached() {
    let Some(world) = World::new("a_bridged_guest_gets_its_pods_address_and_reaches_and_is_reached") else {
        return;
    };
    let folder = tempfile::tempdir().unwrap();
    let binding = Binding::Bridge { mac: None, record: folder.path().join("eth0.json") };
    runs(&world, binding, "outside sees 172.20.0.2");
}
