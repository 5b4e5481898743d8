//! A guest with its pod's address, with real packets.

use std::net::{Ipv4Addr, SocketAddrV4, UdpSocket};
use std::path::{Path, PathBuf};

use crate::wire::Wire;
use crate::world::{
    Guest, MTU, OUTSIDE, POD, POD_MAC, World, answer, hear, nobody, quiet, route, tcp, udp, within,
};
use nix::sys::socket::setsockopt;
use nix::sys::socket::sockopt::Broadcast;
use nlink::Ipv4Address;
use pinion_api::MacAddress;
use pinion_pod_network::{Binding, PodInterface, Prepared, differences, prepare};

const SERVER: Ipv4Addr = Ipv4Addr::new(169, 254, 75, 10);

fn interface(record: &Path) -> PodInterface {
    let binding = Binding::Bridge { mac: None, record: record.to_owned() };
    PodInterface { slot: 0, device: "eth0".into(), binding }
}

fn folder() -> (tempfile::TempDir, PathBuf) {
    let folder = tempfile::tempdir().unwrap();
    let record = folder.path().join("eth0.json");
    (folder, record)
}

#[test]
fn a_guest_has_its_pods_addresses_and_is_reached_by_them() {
    let Some(world) = World::new("bridge::a_guest_has_its_pods_addresses_and_is_reached_by_them") else {
        return;
    };
    let (_folder, record) = folder();
    let interface = interface(&record);
    let Prepared { tap, dhcp, guest: told } = prepare(&world.pod, &interface).unwrap();
    let addressing = told.addressing.clone().unwrap();
    assert_eq!((addressing.address, addressing.prefix, addressing.router), (POD, 24, Some(OUTSIDE)));
    assert_eq!(addressing.server, SERVER);
    assert_eq!((told.mtu, told.mac.as_deref()), (MTU, Some("02:00:00:00:00:77")));
    assert!(dhcp.is_some());
    let guest = Guest::start(tap, &told);
    answer("outside", &world.outside, OUTSIDE, 7000);
    answer("guest", &guest.namespace, POD, 7001);
    answer("pod", &world.pod, Ipv4Addr::UNSPECIFIED, 7002);
    assert_eq!(tcp(&guest.namespace, OUTSIDE, 7000), "outside sees 172.20.0.2");
    assert_eq!(udp(&guest.namespace, OUTSIDE, 7000), "outside sees 172.20.0.2");
    assert_eq!(tcp(&world.outside, POD, 7001), "guest sees 172.20.0.1");
    assert_eq!(udp(&world.outside, POD, 7001), "guest sees 172.20.0.1");
    // The pod itself is not there any more.
    assert!(nobody(&world.outside, POD, 7002));
    assert_eq!(differences(&world.pod, &interface).unwrap(), []);
}

#[test]
fn dhcp_stays_between_the_guest_and_its_own_server() {
    let Some(world) = World::new("bridge::dhcp_stays_between_the_guest_and_its_own_server") else { return };
    let (_folder, record) = folder();
    let Prepared { tap, dhcp, .. } = prepare(&world.pod, &interface(&record)).unwrap();
    let dhcp = dhcp.unwrap();
    let mut wire = Wire::new(tap, POD_MAC);
    let at = |address: Ipv4Addr, port| SocketAddrV4::new(address, port);
    let listen = |port| {
        within(&world.outside, || {
            let socket = UdpSocket::bind(at(Ipv4Addr::UNSPECIFIED, port)).unwrap();
            setsockopt(&socket, Broadcast, &true).unwrap();
            socket
        })
    };
    let (server, client, other) = (listen(67), listen(68), listen(7000));
    let nobody = at(Ipv4Addr::UNSPECIFIED, 68);
    wire.send([0xff; 6], nobody, at(Ipv4Addr::BROADCAST, 67), b"discover");
    assert_eq!(hear(&dhcp), b"discover");
    assert!(quiet(&server));
    dhcp.send_to(b"offer", at(Ipv4Addr::BROADCAST, 68)).unwrap();
    assert_eq!(wire.receive(68).1, b"offer");
    assert!(quiet(&client));
    // The network's own server and clients.
    within(&world.outside, || {
        route(|links| async move {
            let everywhere = nlink::Ipv4Route::default_route().dev("veth0");
            links.add_route(everywhere).await.unwrap();
        });
    });
    server.send_to(b"another's offer", at(Ipv4Addr::BROADCAST, 68)).unwrap();
    client.send_to(b"another's question", at(Ipv4Addr::BROADCAST, 67)).unwrap();
    assert!(wire.quiet(68));
    assert!(quiet(&dhcp));
    other.send_to(b"for everyone", at(Ipv4Addr::BROADCAST, 7001)).unwrap();
    assert_eq!(wire.receive(7001).1, b"for everyone");
    // Nothing else in the pod hears the guest.
    let inside = within(&world.pod, || UdpSocket::bind(at(Ipv4Addr::UNSPECIFIED, 7002)).unwrap());
    wire.send([0xff; 6], at(POD, 9), at(SERVER, 7002), b"to the pod");
    wire.send([0xff; 6], at(POD, 9), at(Ipv4Addr::BROADCAST, 7002), b"to everyone");
    assert!(quiet(&inside));
}

/// Whatever of it was done when the agent was killed.
#[test]
fn half_of_it_done_gives_the_same() {
    let Some(world) = World::new("bridge::half_of_it_done_gives_the_same") else { return };
    let (_folder, record) = folder();
    let interface = interface(&record);
    let first = prepare(&world.pod, &interface).unwrap().guest;
    let kept = std::fs::read(&record).unwrap();
    for step in 0..5 {
        within(&world.pod, || {
            route(|links| async move {
                match step {
                    0 => links.del_link("pinion-br0").await.unwrap(),
                    1 => links.set_link_nomaster("eth0").await.unwrap(),
                    2 => {
                        links.del_link("pinion-br0").await.unwrap();
                        links.set_link_down("eth0").await.unwrap();
                        links.set_link_address("eth0", POD_MAC).await.unwrap();
                        links.add_address(Ipv4Address::new("eth0", POD, 24)).await.unwrap();
                    }
                    3 => links.flush_addresses("pinion-br0").await.unwrap(),
                    _ => links.set_link_down("eth0").await.unwrap(),
                }
            });
        });
        assert!(!differences(&world.pod, &interface).unwrap().is_empty(), "{step}");
        let Prepared { tap, guest: told, .. } = prepare(&world.pod, &interface).unwrap();
        assert_eq!(told, first, "{step}");
        let guest = Guest::start(tap, &told);
        answer("outside", &world.outside, OUTSIDE, 7100 + step);
        assert_eq!(tcp(&guest.namespace, OUTSIDE, 7100 + step), "outside sees 172.20.0.2", "{step}");
    }
    assert_eq!(std::fs::read(&record).unwrap(), kept);
    std::fs::remove_file(&record).unwrap();
    assert_eq!(prepare(&world.pod, &interface).unwrap_err().reason(), "RecordLost");
    std::fs::write(&record, "{}").unwrap();
    assert_eq!(prepare(&world.pod, &interface).unwrap_err().reason(), "RecordInvalid");
}

#[test]
fn a_guest_may_have_a_mac_address_of_its_own_and_its_pod_none_of_the_network() {
    let test = "bridge::a_guest_may_have_a_mac_address_of_its_own_and_its_pod_none_of_the_network";
    let Some(world) = World::new(test) else { return };
    let (_folder, record) = folder();
    let mac = MacAddress([0x52, 0x54, 0, 1, 2, 3]);
    let mut interface = interface(&record);
    interface.binding = Binding::Bridge { mac: Some(mac), record: record.clone() };
    let Prepared { tap, guest: told, .. } = prepare(&world.pod, &interface).unwrap();
    assert_eq!(told.mac, Some(mac.to_string()));
    let guest = Guest::start(tap, &told);
    answer("guest", &guest.namespace, POD, 7001);
    assert_eq!(tcp(&world.outside, POD, 7001), "guest sees 172.20.0.1");
    drop(guest);
    // A pod without an address: the guest is on its network, and gets no address from here.
    let Some(world) = World::new(test) else { return };
    within(&world.pod, || route(|links| async move { links.flush_addresses("eth0").await.unwrap() }));
    std::fs::remove_file(&record).unwrap();
    let prepared = prepare(&world.pod, &interface).unwrap();
    assert!(prepared.dhcp.is_none() && prepared.guest.addressing.is_none());
    assert_eq!(differences(&world.pod, &interface).unwrap(), []);
}
