//! A guest behind its pod's address, with real packets.

use std::fs::File;
use std::net::{Ipv4Addr, SocketAddrV4, UdpSocket};

use crate::wire::Wire;
use crate::world::{Guest, MTU, OUTSIDE, POD, World, answer, hear, nobody, quiet, route, tcp, udp, within};
use pinion_pod_network::{
    Binding, GuestNetwork, NetworkError, PodInterface, Port, Prepared, Protocol, differences, prepare,
};

const GUEST: Ipv4Addr = Ipv4Addr::new(10, 0, 2, 2);
const GATEWAY: Ipv4Addr = Ipv4Addr::new(10, 0, 2, 1);

fn interface(ports: &[Port]) -> PodInterface {
    let binding = Binding::Masquerade { network: GuestNetwork::default(), ports: ports.to_vec() };
    PodInterface { slot: 0, device: "eth0".into(), binding }
}

fn start(pod: &File, interface: &PodInterface) -> Guest {
    let Prepared { tap, guest, .. } = prepare(pod, interface).unwrap();
    Guest::start(tap, &guest)
}

#[test]
fn a_guest_reaches_and_is_reached_through_the_pods_address() {
    let Some(world) = World::new("masquerade::a_guest_reaches_and_is_reached_through_the_pods_address")
    else {
        return;
    };
    let Prepared { tap, guest: told, dhcp } = prepare(&world.pod, &interface(&[])).unwrap();
    assert_eq!((told.mtu, told.mac.as_deref()), (MTU, None));
    let addressing = told.addressing.clone().unwrap();
    assert_eq!((addressing.address, addressing.router, addressing.prefix), (GUEST, Some(GATEWAY), 24));
    assert!(dhcp.is_some());
    let guest = Guest::start(tap, &told);
    answer("outside", &world.outside, OUTSIDE, 7000);
    answer("guest", &guest.namespace, GUEST, 7001);
    answer("pod", &world.pod, Ipv4Addr::UNSPECIFIED, 7002);
    // Out: the outside sees the pod.
    assert_eq!(tcp(&guest.namespace, OUTSIDE, 7000), "outside sees 172.20.0.2");
    assert_eq!(udp(&guest.namespace, OUTSIDE, 7000), "outside sees 172.20.0.2");
    // In: the guest sees who it is.
    assert_eq!(tcp(&world.outside, POD, 7001), "guest sees 172.20.0.1");
    assert_eq!(udp(&world.outside, POD, 7001), "guest sees 172.20.0.1");
    // From the pod itself.
    assert_eq!(tcp(&world.pod, Ipv4Addr::LOCALHOST, 7001), "guest sees 10.0.2.1");
    // Nothing that listens in the pod is there for the guest, nor for the outside.
    assert!(nobody(&guest.namespace, GATEWAY, 7002));
    assert!(nobody(&guest.namespace, POD, 7002));
    assert!(nobody(&world.outside, POD, 7002));
    assert_eq!(differences(&world.pod, &interface(&[])).unwrap(), []);
}

#[test]
fn only_named_ports_come_to_the_guest() {
    let Some(world) = World::new("masquerade::only_named_ports_come_to_the_guest") else { return };
    let ports = [(Protocol::Tcp, 7001), (Protocol::Udp, 7003)];
    let ports = ports.map(|(protocol, number)| Port { protocol, number });
    let guest = start(&world.pod, &interface(&ports));
    for port in [7001, 7002, 7003] {
        answer("guest", &guest.namespace, GUEST, port);
        answer("pod", &world.pod, Ipv4Addr::UNSPECIFIED, port);
    }
    let (by_guest, by_pod) = ("guest sees 172.20.0.1", "pod sees 172.20.0.1");
    let by = |port| (tcp(&world.outside, POD, port), udp(&world.outside, POD, port));
    assert_eq!(by(7001), (by_guest.into(), by_pod.into()));
    assert_eq!(by(7002), (by_pod.into(), by_pod.into()));
    assert_eq!(by(7003), (by_pod.into(), by_guest.into()));
    assert_eq!(tcp(&world.pod, Ipv4Addr::LOCALHOST, 7001), "guest sees 10.0.2.1");
    assert_eq!(tcp(&world.pod, Ipv4Addr::LOCALHOST, 7002), "pod sees 127.0.0.1");
    // Nor past them, by the guest's own address.
    within(&world.outside, || {
        route(|links| async move {
            links.add_route(nlink::Ipv4Route::new(GUEST, 32).gateway(POD).dev("veth0")).await.unwrap();
        });
    });
    assert!(nobody(&world.outside, GUEST, 7001));
}

#[test]
fn a_guest_speaks_for_itself_alone_and_to_its_dhcp_server() {
    let Some(world) = World::new("masquerade::a_guest_speaks_for_itself_alone_and_to_its_dhcp_server") else {
        return;
    };
    let Prepared { tap, dhcp, .. } = prepare(&world.pod, &interface(&[])).unwrap();
    let dhcp = dhcp.unwrap();
    let mut wire = Wire::new(tap, [2, 0, 0, 0, 1, 1]);
    let at = |address: Ipv4Addr, port| SocketAddrV4::new(address, port);
    let listen = |namespace, address, port| within(namespace, || UdpSocket::bind(at(address, port)).unwrap());
    let outside = listen(&world.outside, OUTSIDE, 7000);
    let inside = listen(&world.pod, Ipv4Addr::LOCALHOST, 7002);
    let gateway = [2, 0, 0, 0, 0, 0];
    // Its own address passes; another does not, nor does anything for the pod's loopback.
    wire.send(gateway, at(Ipv4Addr::new(10, 0, 2, 3), 9), at(OUTSIDE, 7000), b"another's");
    wire.send(gateway, at(POD, 9), at(OUTSIDE, 7000), b"the pod's");
    wire.send(gateway, at(GUEST, 9), at(Ipv4Addr::LOCALHOST, 7002), b"loopback");
    wire.send(gateway, at(Ipv4Addr::LOCALHOST, 9), at(Ipv4Addr::LOCALHOST, 7002), b"loopback");
    wire.send(gateway, at(GUEST, 9), at(OUTSIDE, 7000), b"its own");
    assert_eq!(hear(&outside), b"its own");
    assert!(quiet(&inside));
    // Without an address it may ask for one, and is heard and answered on its own link only.
    let elsewhere = listen(&world.outside, Ipv4Addr::UNSPECIFIED, 68);
    let nobody = at(Ipv4Addr::UNSPECIFIED, 68);
    wire.send([0xff; 6], nobody, at(Ipv4Addr::BROADCAST, 67), b"discover");
    assert_eq!(hear(&dhcp), b"discover");
    dhcp.send_to(b"offer", at(Ipv4Addr::BROADCAST, 68)).unwrap();
    assert_eq!(wire.receive(68), (GATEWAY, b"offer".to_vec()));
    assert!(quiet(&elsewhere));
}

#[test]
fn doing_it_again_gives_the_same_and_never_takes_a_running_guests_tap() {
    let test = "masquerade::doing_it_again_gives_the_same_and_never_takes_a_running_guests_tap";
    let Some(world) = World::new(test) else { return };
    let interface = interface(&[]);
    let first = prepare(&world.pod, &interface).unwrap();
    let refused = prepare(&world.pod, &interface).unwrap_err();
    assert!(matches!(refused, NetworkError::TapInUse(_)), "{refused}");
    assert_eq!(refused.reason(), "TapInUse");
    assert_eq!(differences(&world.pod, &interface).unwrap(), []);
    let told = first.guest.clone();
    drop(first);
    let gone = differences(&world.pod, &interface).unwrap();
    assert_eq!(gone.len(), 1, "{gone:?}");
    let again = prepare(&world.pod, &interface).unwrap();
    assert_eq!(again.guest, told);
    // What somebody else changes is seen, and put right the next time.
    within(&world.pod, || {
        route(|links| async move {
            links.flush_addresses("tap0").await.unwrap();
            links.set_link_mtu("tap0", 1300).await.unwrap();
        });
        std::fs::write("/proc/sys/net/ipv4/ip_forward", "0").unwrap();
    });
    let found = differences(&world.pod, &interface).unwrap();
    let what: Vec<&str> = found.iter().map(|d| d.what.as_str()).collect();
    assert_eq!(what, ["the MTU of tap0", "the address of tap0", "net/ipv4/ip_forward"]);
    drop(again);
    drop(prepare(&world.pod, &interface).unwrap());
}

#[test]
fn another_network_and_a_pod_without_an_address_are_told_apart() {
    let Some(world) = World::new("masquerade::another_network_and_a_pod_without_an_address_are_told_apart")
    else {
        return;
    };
    let mut interface = interface(&[]);
    interface.slot = 3;
    interface.binding = Binding::Masquerade { network: "192.168.9.0/30".parse().unwrap(), ports: vec![] };
    let guest = start(&world.pod, &interface);
    answer("outside", &world.outside, OUTSIDE, 7000);
    assert_eq!(tcp(&guest.namespace, OUTSIDE, 7000), "outside sees 172.20.0.2");
    drop(guest);
    within(&world.pod, || route(|links| async move { links.flush_addresses("eth0").await.unwrap() }));
    assert_eq!(prepare(&world.pod, &interface).unwrap_err().reason(), "NoPodAddress");
    interface.device = "net1".into();
    assert_eq!(prepare(&world.pod, &interface).unwrap_err().reason(), "NoPodInterface");
}
