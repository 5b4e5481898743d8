//! `masquerade`: the guest is behind the pod's address.
//!
//! The tap itself has the gateway's address: with one guest, no bridge is needed. All of it is made by the thread that
//! is in the pod's namespace. The guest reaches what the pod reaches; of the pod itself it reaches the DHCP server and
//! ping.

use std::net::Ipv4Addr;
use std::os::fd::OwnedFd;

use nlink::netlink::nftables::{
    BaseChain, CtState, CtStatus, Family, Field, FilterHook, Match, NatHook, NatType, Policy, Priority,
    RuleSpec, Stmt, Verdict,
};
use pinion_api::MacAddress;

use crate::binding::{Names, PodInterface, Port, Protocol};
use crate::differences::Differences;
use crate::error::NetworkError;
use crate::firewall::{Firewall, Table, TableChain};
use crate::guest::{Addressing, GuestLink};
use crate::links::{Address, Link, Links};
use crate::network::GuestNetwork;
use crate::settings::Setting;
use crate::tap;

/// The gateway's, always: a guest need not ask for it again. Source: `StaticMasqueradeBridgeMAC` of KubeVirt.
const GATEWAY_MAC: MacAddress = MacAddress([2, 0, 0, 0, 0, 0]);
const ICMP: u8 = 1;
const DHCP_SERVER: u16 = 67;

/// What a masquerade interface is to be, with what the pod has.
#[derive(Debug)]
pub(crate) struct Masquerade {
    names: Names,
    network: GuestNetwork,
    pod: Link,
    table: Table,
}

impl Masquerade {
    /// Looks at the pod.
    pub(crate) async fn plan(
        interface: &PodInterface,
        network: GuestNetwork,
        ports: &[Port],
        links: &Links,
    ) -> Result<Self, NetworkError> {
        let names = interface.names();
        let pod = links.get(&interface.device).await?;
        let addresses: Vec<Ipv4Addr> = links.addresses(&pod).await?.iter().map(|a| a.address).collect();
        if addresses.is_empty() {
            return Err(NetworkError::NoAddress(pod.name));
        }
        let table = table(&names, &pod.name, &addresses, network, ports);
        Ok(Self { names, network, pod, table })
    }

    /// 1. The rules: no packet of the guest passes without them.
    /// 2. Forwarding, which resets switches of interfaces.
    /// 3. The tap, without IPv6, with the gateway's address.
    /// 4. Up.
    pub(crate) async fn make(&self, links: &Links, firewall: &Firewall) -> Result<OwnedFd, NetworkError> {
        firewall.ensure(&self.table).await?;
        Setting::forwarding().apply()?;
        let fd = tap::make(&self.names.tap)?;
        let tap = links.get(&self.names.tap).await?;
        for setting in self.tap_settings() {
            setting.apply()?;
        }
        links.set_mac(&tap, GATEWAY_MAC).await?;
        links.set_mtu(&tap, self.pod.mtu).await?;
        links.add_address(&tap, self.gateway()).await?;
        links.set_up(&tap, true).await?;
        Ok(fd)
    }

    /// The device that the DHCP server listens on.
    pub(crate) fn dhcp_device(&self) -> &str {
        &self.names.tap
    }

    pub(crate) fn guest(&self) -> GuestLink {
        let gateway = self.network.gateway();
        let addressing = Addressing {
            address: self.network.guest(),
            prefix: self.network.prefix(),
            server: gateway,
            router: Some(gateway),
            routes: Vec::new(),
        };
        GuestLink { tap: self.names.tap.clone(), mac: None, mtu: self.pod.mtu, addressing: Some(addressing) }
    }

    pub(crate) async fn differences(
        &self,
        links: &Links,
        firewall: &Firewall,
        found: &mut Differences,
    ) -> Result<(), NetworkError> {
        found.expect(
            &format!("the nftables table {}", self.table.name),
            &self.table.text(),
            &firewall.read(&self.table).await?.unwrap_or_else(|| "absent".to_owned()),
        );
        let tap = &self.names.tap;
        let Some(link) = links.find(tap).await? else {
            found.expect(&format!("the tap device {tap}"), &"there", &"absent");
            return Ok(());
        };
        found.expect(&format!("{tap} up"), &true, &link.up);
        found.expect(&format!("the MTU of {tap}"), &self.pod.mtu, &link.mtu);
        found.expect(&format!("the MAC address of {tap}"), &GATEWAY_MAC, &link.mac);
        let of = |list: &[Address]| {
            list.iter().map(|a| format!("{}/{}", a.address, a.prefix)).collect::<Vec<_>>().join(", ")
        };
        let addresses = links.addresses(&link).await?;
        found.expect(&format!("the address of {tap}"), &of(&[self.gateway()]), &of(&addresses));
        for setting in self.tap_settings().into_iter().chain([Setting::forwarding()]) {
            let now = setting.read()?.unwrap_or_else(|| setting.wanted().to_owned());
            found.expect(&setting.name(), &setting.wanted(), &now);
        }
        Ok(())
    }

    fn tap_settings(&self) -> [Setting; 2] {
        [Setting::no_ipv6(&self.names.tap), Setting::local_routes(&self.names.tap)]
    }

    fn gateway(&self) -> Address {
        Address { address: self.network.gateway(), prefix: self.network.prefix() }
    }
}

fn table(
    names: &Names,
    device: &str,
    addresses: &[Ipv4Addr],
    network: GuestNetwork,
    ports: &[Port],
) -> Table {
    let nat = |hook, priority| BaseChain::nat(hook, priority).policy(Policy::Accept);
    let filter = |hook, priority| BaseChain::filter(hook, priority).policy(Policy::Accept);
    let to_guest = addresses.iter().map(|address| {
        let here = RuleSpec::new().then(Match::eq(Field::Iifname, device));
        here.then(Match::eq(Field::Ip4Daddr, *address))
    });
    let from_pod = RuleSpec::new().then(Match::eq(Field::Ip4Daddr, Ipv4Addr::LOCALHOST));
    Table {
        family: Family::Ip,
        name: names.table.clone(),
        chains: vec![
            TableChain {
                name: "guard",
                base: filter(FilterHook::Prerouting, Priority::Raw),
                rules: guard(&names.tap, network.guest()),
            },
            TableChain {
                name: "input",
                base: filter(FilterHook::Input, Priority::Filter),
                rules: input(&names.tap),
            },
            TableChain {
                name: "forward",
                base: filter(FilterHook::Forward, Priority::Filter),
                rules: forward(&names.tap),
            },
            TableChain {
                name: "prerouting",
                base: nat(NatHook::Prerouting, Priority::DstNat),
                rules: to_guest.flat_map(|rule| through(&rule, ports, network)).collect(),
            },
            TableChain {
                name: "output",
                base: nat(NatHook::Output, Priority::DstNat),
                rules: through(&from_pod, ports, network),
            },
            TableChain {
                name: "postrouting",
                base: nat(NatHook::Postrouting, Priority::SrcNat),
                rules: postrouting(&names.tap, network),
            },
        ],
    }
}

/// What is not from the guest's own address goes no further.
fn guard(tap: &str, guest: Ipv4Addr) -> Vec<RuleSpec> {
    let from_guest = || RuleSpec::new().then(Match::eq(Field::Iifname, tap));
    vec![
        from_guest()
            .then(Match::eq(Field::Ip4Saddr, Ipv4Addr::UNSPECIFIED))
            .then(Match::eq(Field::UdpDport, DHCP_SERVER))
            .then(Verdict::Accept),
        from_guest().then(Match::ne(Field::Ip4Saddr, guest)).then(Verdict::Drop),
    ]
}

/// Nothing that listens in the pod is there for the guest, but its DHCP server; not on loopback either, to which the
/// tap lets answers in.
fn input(tap: &str) -> Vec<RuleSpec> {
    let from_guest = || RuleSpec::new().then(Match::eq(Field::Iifname, tap));
    let answers = CtState::ESTABLISHED | CtState::RELATED;
    vec![
        from_guest().then(Match::eq(Field::CtState, answers)).then(Verdict::Accept),
        from_guest().then(Match::eq(Field::UdpDport, DHCP_SERVER)).then(Verdict::Accept),
        from_guest().then(Match::eq(Field::L4Proto, ICMP)).then(Verdict::Accept),
        from_guest().then(Verdict::Drop),
    ]
}

/// Only what was sent to the pod's address comes to the guest: nobody gets past the ports by sending to the guest's own.
fn forward(tap: &str) -> Vec<RuleSpec> {
    let to_guest = || RuleSpec::new().then(Match::eq(Field::Oifname, tap));
    let answers = CtState::ESTABLISHED | CtState::RELATED;
    vec![
        to_guest().then(Match::eq(Field::CtState, answers)).then(Verdict::Accept),
        to_guest().then(Match::eq(Field::CtStatus, CtStatus::DST_NAT)).then(Verdict::Accept),
        to_guest().then(Verdict::Drop),
    ]
}

/// To the guest, what of it goes to one of the ports, or all where none is named.
fn through(rule: &RuleSpec, ports: &[Port], network: GuestNetwork) -> Vec<RuleSpec> {
    let guest = Stmt::NatTo { nat_type: NatType::Dnat, addr: network.guest().into(), port: None };
    if ports.is_empty() {
        return vec![rule.clone().then(guest)];
    }
    let to_port = |port: &Port| {
        let field = match port.protocol {
            Protocol::Tcp => Field::TcpDport,
            Protocol::Udp => Field::UdpDport,
        };
        rule.clone().then(Match::eq(field, port.number)).then(guest.clone())
    };
    ports.iter().map(to_port).collect()
}

/// The pod's own loopback connections come to the guest from the gateway; what the guest sends leaves with the pod's
/// address.
fn postrouting(tap: &str, network: GuestNetwork) -> Vec<RuleSpec> {
    let gateway = Stmt::NatTo { nat_type: NatType::Snat, addr: network.gateway().into(), port: None };
    vec![
        RuleSpec::new()
            .then(Match::eq(Field::Oifname, tap))
            .then(Match::eq(Field::Ip4Saddr, Ipv4Addr::LOCALHOST))
            .then(gateway),
        RuleSpec::new()
            .then(Match::ne(Field::Oifname, tap))
            .then(Match::eq(Field::Ip4Saddr, network.guest()))
            .then(Stmt::Masquerade),
    ]
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_rules_are_these() {
        let binding = crate::Binding::Masquerade { network: GuestNetwork::default(), ports: Vec::new() };
        let names = PodInterface { slot: 0, device: "eth0".to_owned(), binding }.names();
        let pod = [Ipv4Addr::new(10, 244, 1, 7)];
        let ports =
            [Port { protocol: Protocol::Tcp, number: 22 }, Port { protocol: Protocol::Udp, number: 53 }];
        let chains = |ports: &[Port]| {
            let table = table(&names, "eth0", &pod, GuestNetwork::default(), ports);
            assert_eq!((table.family, table.name.as_str()), (Family::Ip, "pinion-tap0"));
            table.text().split_inclusive("} ").map(str::to_owned).collect::<Vec<_>>()
        };
        let all = chains(&[]);
        let expected = [
            "forward (Filter Forward 0 Some(Accept)) { oifname \"tap0\" ct state established,related accept; \
             oifname \"tap0\" ct status dnat accept; oifname \"tap0\" drop } ",
            "guard (Filter Prerouting -300 Some(Accept)) { iifname \"tap0\" ip saddr 0.0.0.0 udp dport 67 accept; \
             iifname \"tap0\" ip saddr != 10.0.2.2 drop } ",
            "input (Filter Input 0 Some(Accept)) { iifname \"tap0\" ct state established,related accept; \
             iifname \"tap0\" udp dport 67 accept; iifname \"tap0\" meta l4proto icmp accept; iifname \"tap0\" drop } ",
            "output (Nat Output -100 Some(Accept)) { ip daddr 127.0.0.1 dnat to 10.0.2.2 } ",
            "postrouting (Nat Postrouting 100 Some(Accept)) { oifname \"tap0\" ip saddr 127.0.0.1 snat to 10.0.2.1; \
             oifname != \"tap0\" ip saddr 10.0.2.2 masquerade } ",
            "prerouting (Nat Prerouting -100 Some(Accept)) { iifname \"eth0\" ip daddr 10.244.1.7 dnat to 10.0.2.2 } ",
        ];
        assert_eq!(all, expected);
        let some = chains(&ports);
        assert_eq!(
            some[5],
            "prerouting (Nat Prerouting -100 Some(Accept)) { \
             iifname \"eth0\" ip daddr 10.244.1.7 tcp dport 22 dnat to 10.0.2.2; \
             iifname \"eth0\" ip daddr 10.244.1.7 udp dport 53 dnat to 10.0.2.2 } "
        );
        assert!(some[3].contains("{ ip daddr 127.0.0.1 tcp dport 22 dnat to 10.0.2.2; "), "{}", some[3]);
    }
}
