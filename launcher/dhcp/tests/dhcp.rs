//! One guest and its DHCP server, message by message.

#![expect(clippy::unwrap_used, reason = "tests")]

use std::net::{Ipv4Addr, UdpSocket};
use std::time::Duration;

use pinion_api::{DhcpOptions, DhcpPrivateOption, MacAddress};
use pinion_dhcp::{ExtraOptions, Lease, Resolver, Route, answer, serve};
use proptest::prelude::*;

const MAC: [u8; 6] = [2, 0, 0, 0, 0, 7];
const GUEST: Ipv4Addr = Ipv4Addr::new(10, 0, 2, 2);
const GATEWAY: Ipv4Addr = Ipv4Addr::new(10, 0, 2, 1);
const OTHER: Ipv4Addr = Ipv4Addr::new(10, 0, 2, 9);

fn lease() -> Lease {
    Lease {
        mac: MacAddress(MAC),
        address: GUEST,
        prefix: 24,
        server: GATEWAY,
        router: Some(GATEWAY),
        routes: Vec::new(),
        resolver: Resolver::parse("nameserver 10.96.0.10\nsearch ns.svc.cluster.local cluster.local"),
        host_name: Some("testvm".into()),
        mtu: Some(1450),
        extra: ExtraOptions::default(),
    }
}

/// A client's message.
#[derive(Clone)]
struct Message {
    bytes: Vec<u8>,
}

impl Message {
    fn new(kind: u8) -> Self {
        let mut bytes = vec![0; 240];
        bytes[..3].copy_from_slice(&[1, 1, 6]);
        bytes[4..8].copy_from_slice(&[1, 2, 3, 4]);
        bytes[28..34].copy_from_slice(&MAC);
        bytes[236..].copy_from_slice(&[99, 130, 83, 99]);
        Self { bytes }.with(53, &[kind])
    }

    fn with(mut self, code: u8, value: &[u8]) -> Self {
        self.bytes.extend([code, u8::try_from(value.len()).unwrap()]);
        self.bytes.extend(value);
        self
    }

    fn at(mut self, offset: usize, bytes: &[u8]) -> Self {
        self.bytes[offset..offset + bytes.len()].copy_from_slice(bytes);
        self
    }

    fn answer(&self, lease: &Lease) -> Option<Vec<u8>> {
        let mut whole = self.bytes.clone();
        whole.push(255);
        answer(&whole, lease)
    }
}

/// The value of an option, its parts put together.
fn option(reply: &[u8], code: u8) -> Option<Vec<u8>> {
    let mut rest = &reply[240..];
    let mut value = None;
    while let [at, more @ ..] = rest {
        match *at {
            0 => rest = more,
            255 => break,
            at => {
                let (part, after) = more[1..].split_at(usize::from(more[0]));
                if at == code {
                    value.get_or_insert_with(Vec::new).extend(part);
                }
                rest = after;
            }
        }
    }
    value
}

fn kind(reply: &[u8]) -> u8 {
    option(reply, 53).unwrap()[0]
}

#[test]
fn a_guest_gets_its_address_and_all_that_belongs_to_it() {
    let lease = lease();
    let offer = Message::new(1).answer(&lease).unwrap();
    assert_eq!((offer[0], kind(&offer)), (2, 2));
    assert_eq!(offer[4..8], [1, 2, 3, 4]);
    assert_eq!(offer[16..20], GUEST.octets());
    assert_eq!(offer[28..34], MAC);
    assert!(offer.len() >= 300);
    let request = Message::new(3).with(54, &GATEWAY.octets()).with(50, &GUEST.octets());
    let reply = request.answer(&lease).unwrap();
    assert_eq!(kind(&reply), 5);
    assert_eq!(reply[16..20], GUEST.octets());
    assert_eq!(option(&reply, 1).unwrap(), [255, 255, 255, 0]);
    assert_eq!(option(&reply, 3).unwrap(), GATEWAY.octets());
    assert_eq!(option(&reply, 6).unwrap(), [10, 96, 0, 10]);
    assert_eq!(option(&reply, 12).unwrap(), b"testvm");
    assert_eq!(option(&reply, 15).unwrap(), b"ns.svc.cluster.local");
    assert_eq!(option(&reply, 26).unwrap(), 1450_u16.to_be_bytes());
    assert_eq!(option(&reply, 51).unwrap(), [255; 4]);
    assert_eq!(option(&reply, 54).unwrap(), GATEWAY.octets());
    assert_eq!(option(&reply, 119).unwrap(), b"\x02ns\x03svc\x07cluster\x05local\0\x07cluster\x05local\0");
    assert_eq!(option(&reply, 121), None);
}

#[test]
fn another_address_is_refused_and_another_servers_offer_left_alone() {
    let lease = lease();
    let selecting = Message::new(3).with(54, &GATEWAY.octets()).with(50, &OTHER.octets());
    let reply = selecting.answer(&lease).unwrap();
    assert_eq!((kind(&reply), &reply[16..20]), (6, &[0; 4][..]));
    assert_eq!(option(&reply, 51), None);
    assert_eq!(kind(&Message::new(3).with(50, &OTHER.octets()).answer(&lease).unwrap()), 6);
    assert_eq!(kind(&Message::new(3).with(50, &GUEST.octets()).answer(&lease).unwrap()), 5);
    assert_eq!(kind(&Message::new(3).at(12, &OTHER.octets()).answer(&lease).unwrap()), 6);
    assert_eq!(kind(&Message::new(3).at(12, &GUEST.octets()).answer(&lease).unwrap()), 5);
    let elsewhere = Message::new(3).with(54, &OTHER.octets()).with(50, &GUEST.octets());
    assert_eq!(elsewhere.answer(&lease), None);
    assert_eq!(Message::new(3).answer(&lease), None);
}

#[test]
fn who_is_not_the_guest_and_what_needs_no_answer_gets_none() {
    let lease = lease();
    for (offset, bytes) in
        [(28, &[2, 0, 0, 0, 0, 8][..]), (24, &OTHER.octets()), (0, &[2]), (1, &[6]), (2, &[16])]
    {
        assert_eq!(Message::new(1).at(offset, bytes).answer(&lease), None, "{offset}");
    }
    assert_eq!(Message::new(1).at(236, &[0]).answer(&lease), None);
    assert_eq!(Message::new(4).with(50, &GUEST.octets()).answer(&lease), None);
    assert_eq!(Message::new(7).at(12, &GUEST.octets()).answer(&lease), None);
    assert_eq!(Message::new(8).at(12, &OTHER.octets()).answer(&lease), None);
    assert_eq!(Message::new(2).answer(&lease), None);
}

#[test]
fn a_guest_with_an_address_of_its_own_is_informed_without_a_lease() {
    let reply = Message::new(8).at(12, &GUEST.octets()).answer(&lease()).unwrap();
    assert_eq!(kind(&reply), 5);
    assert_eq!(reply[16..20], [0; 4]);
    assert_eq!(option(&reply, 51), None);
    assert_eq!(option(&reply, 3).unwrap(), GATEWAY.octets());
}

#[test]
fn routes_are_told_with_the_default_route_last() {
    let route = |destination: [u8; 4], prefix, gateway: Option<[u8; 4]>| Route {
        destination: destination.into(),
        prefix,
        gateway: gateway.map(Ipv4Addr::from),
    };
    let mut lease = lease();
    lease.routes = vec![
        route([0, 0, 0, 0], 0, Some([169, 254, 1, 1])),
        route([169, 254, 1, 1], 32, None),
        route([10, 9, 8, 7], 12, Some([10, 0, 2, 1])),
    ];
    let reply = Message::new(1).answer(&lease).unwrap();
    let expected = [&[32, 169, 254, 1, 1, 0, 0, 0, 0][..], &[12, 10, 0, 10, 0, 2, 1], &[0, 169, 254, 1, 1]];
    assert_eq!(option(&reply, 121).unwrap(), expected.concat());
}

#[test]
fn the_specs_options_are_told_and_each_wrong_one_is_named() {
    let private = |option, value: &str| DhcpPrivateOption { option, value: value.into() };
    let spec = DhcpOptions {
        boot_file_name: Some("pxelinux.0".into()),
        tftp_server_name: Some("tftp.example".into()),
        ntp_servers: vec!["10.0.0.123".into(), "10.0.0.124".into()],
        private_options: vec![private(240, "extra"), private(224, "x")],
    };
    let mut lease = lease();
    lease.extra = ExtraOptions::of_spec(&spec).unwrap();
    let reply = Message::new(1).answer(&lease).unwrap();
    assert_eq!(option(&reply, 67).unwrap(), b"pxelinux.0");
    assert_eq!(option(&reply, 66).unwrap(), b"tftp.example");
    assert_eq!(option(&reply, 42).unwrap(), [10, 0, 0, 123, 10, 0, 0, 124]);
    assert_eq!(option(&reply, 240).unwrap(), b"extra");
    assert_eq!(option(&reply, 224).unwrap(), b"x");
    let wrong = DhcpOptions {
        boot_file_name: Some("x".repeat(256)),
        tftp_server_name: None,
        ntp_servers: vec!["10.0.0.1".into(), "pool.ntp.org".into()],
        private_options: vec![
            private(82, "x"),
            private(-1, "x"),
            private(230, "a"),
            private(230, "b"),
            private(231, ""),
        ],
    };
    let fields: Vec<String> =
        ExtraOptions::of_spec(&wrong).unwrap_err().into_iter().map(|p| p.field).collect();
    assert_eq!(
        fields,
        [
            "bootFileName",
            "ntpServers[1]",
            "privateOptions[0].option",
            "privateOptions[1].option",
            "privateOptions[3].option",
            "privateOptions[4].value"
        ]
    );
}

#[test]
fn what_a_client_asks_for_comes_first_where_room_is_short() {
    let mut lease = lease();
    lease.extra.private = (224..=254).map(|code| (code, vec![code; 100])).collect();
    let small = Message::new(1).with(55, &[254, 3, 253]).answer(&lease).unwrap();
    assert!(small.len() <= 548, "{}", small.len());
    assert_eq!(option(&small, 254).unwrap(), [254; 100]);
    assert_eq!(option(&small, 253).unwrap(), [253; 100]);
    assert_eq!(option(&small, 3).unwrap(), GATEWAY.octets());
    assert_eq!(option(&small, 252), None);
    let large = Message::new(1).with(57, &1500_u16.to_be_bytes()).answer(&lease).unwrap();
    assert!(large.len() > 1000 && large.len() <= 1472, "{}", large.len());
    let huge = Message::new(1).with(57, &[255, 255]).answer(&lease).unwrap();
    assert!(huge.len() <= 1472, "{}", huge.len());
}

#[test]
fn a_long_list_is_split_into_options_of_255_bytes() {
    let mut lease = lease();
    lease.resolver.search =
        (0..12).map(|n| format!("{n:02}.{}", "abcdefghi.".repeat(2) + "example")).collect();
    let reply = Message::new(1).with(57, &1500_u16.to_be_bytes()).answer(&lease).unwrap();
    let list = option(&reply, 119).unwrap();
    assert_eq!(list.len(), 12 * 32);
    assert!(list.ends_with(b"\x0211\x09abcdefghi\x09abcdefghi\x07example\0"));
}

#[test]
fn a_clients_identifier_comes_back() {
    let reply = Message::new(1).with(61, b"\x01identifier").answer(&lease()).unwrap();
    assert_eq!(option(&reply, 61).unwrap(), b"\x01identifier");
}

/// Over a real socket; a client that says it has its address is answered there.
#[test]
fn the_loop_answers_nobody_but_the_guest_and_ends_with_its_socket() {
    let server = UdpSocket::bind("127.0.0.1:0").unwrap();
    server.set_read_timeout(Some(Duration::from_millis(300))).unwrap();
    let client = UdpSocket::bind("127.0.0.1:0").unwrap();
    let address = server.local_addr().unwrap();
    for junk in [&b""[..], b"x", &[0xff; 5000]] {
        client.send_to(junk, address).unwrap();
    }
    client.set_read_timeout(Some(Duration::from_millis(100))).unwrap();
    let ended = serve(&server, &lease());
    assert_eq!(ended.kind(), std::io::ErrorKind::WouldBlock);
    assert!(client.recv(&mut [0; 16]).is_err());
}

fn options() -> impl Strategy<Value = Vec<(u8, Vec<u8>)>> {
    let code = prop_oneof![Just(50), Just(53), Just(54), Just(55), Just(57), Just(61), any::<u8>()];
    proptest::collection::vec((code, proptest::collection::vec(any::<u8>(), 0..40)), 0..20)
}

/// Whatever comes, an answer is whole, the guest's own, and of a size that every client takes.
fn is_sound(reply: &[u8]) -> bool {
    let address = &reply[16..20];
    (300..=1472).contains(&reply.len())
        && reply[28..34] == MAC
        && (address == GUEST.octets() || address == [0; 4])
        && [2, 5, 6].contains(&kind(reply))
}

proptest! {
    #[test]
    fn arbitrary_bytes_get_no_answer(bytes in proptest::collection::vec(any::<u8>(), 0..700)) {
        prop_assert_eq!(answer(&bytes, &lease()), None);
    }

    #[test]
    fn arbitrary_options_get_a_sound_answer_or_none(
        header in proptest::collection::vec(any::<u8>(), 236),
        keep in any::<bool>(),
        kinds in 0_u8..10,
        options in options(),
        tail in proptest::collection::vec(any::<u8>(), 0..30),
    ) {
        let mut message = Message::new(kinds);
        if !keep {
            message = message.at(0, &header).at(0, &[1, 1, 6]).at(24, &[0; 4]).at(28, &MAC);
        }
        for (code, value) in &options {
            message = message.with(*code, value);
        }
        message.bytes.extend(tail);
        if let Some(reply) = message.answer(&lease()) {
            prop_assert!(is_sound(&reply));
            prop_assert_eq!(&reply[4..8], &message.bytes[4..8]);
        }
    }

    #[test]
    fn a_message_cut_anywhere_never_breaks_the_server(cut in 0_usize..300) {
        let message = Message::new(3).with(50, &GUEST.octets()).with(61, &[1; 40]);
        let bytes = &message.bytes[..cut.min(message.bytes.len())];
        if let Some(reply) = answer(bytes, &lease()) {
            prop_assert!(is_sound(&reply));
        }
    }
}
