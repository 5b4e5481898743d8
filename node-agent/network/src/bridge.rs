//! `bridge`: the guest has the pod's address.
//!
//! A bridge joins the pod's interface and the tap. The pod's interface gives up its address and its MAC address, which
//! the guest gets; the pod itself has no network afterwards. All of it is made by the thread that is in the pod's
//! namespace.

use std::net::Ipv4Addr;
use std::os::fd::OwnedFd;
use std::path::Path;

use nlink::netlink::nftables::{
    BaseChain, Family, Field, FilterHook, Match, Policy, Priority, RuleSpec, Verdict,
};
use pinion_api::MacAddress;

use crate::binding::{Names, PodInterface};
use crate::differences::Differences;
use crate::error::NetworkError;
use crate::firewall::{Firewall, Table, TableChain};
use crate::guest::GuestLink;
use crate::links::{Address, Link, Links};
use crate::record::Record;
use crate::settings::Setting;
use crate::tap;

const DHCP_SERVER: u16 = 67;
/// Before `br_netfilter`, which takes packets out of the bridge's hooks at 0. Source: `NF_BR_PRI_FILTER_BRIDGED` of
/// Linux.
const BRIDGED: Priority = Priority::Custom(-200);

/// What a bridge interface is to be, with what the pod had.
#[derive(Debug)]
pub(crate) struct Bridge {
    names: Names,
    device: String,
    record: Record,
    guest_mac: MacAddress,
    device_mac: MacAddress,
    tables: Vec<Table>,
}

impl Bridge {
    /// Looks at the pod, or at what was recorded of it before it was changed; `keep` records what it sees.
    pub(crate) async fn plan(
        interface: &PodInterface,
        mac: Option<MacAddress>,
        path: &Path,
        keep: bool,
        links: &Links,
    ) -> Result<Self, NetworkError> {
        let names = interface.names();
        let device = interface.device.clone();
        let record = match Record::read(path, &device)? {
            Some(record) => record,
            None => {
                let record = observe(&device, path, links).await?;
                if keep {
                    record.write(path)?;
                }
                record
            }
        };
        let unreadable = || NetworkError::RecordContent { path: path.to_owned(), why: "mac".to_owned() };
        let pod_mac = record.mac().ok_or_else(unreadable)?;
        // Always the same for the same pod, and never the guest's.
        let device_mac = MacAddress::for_interface(&pod_mac.to_string(), &device);
        let has_address = record.addressing(names.bridge_address).is_some();
        let tables = if has_address { tables(&names, &device) } else { Vec::new() };
        Ok(Self { names, device, record, guest_mac: mac.unwrap_or(pod_mac), device_mac, tables })
    }

    /// 1. The rules: the network's DHCP servers and the guest's never meet.
    /// 2. The bridge.
    /// 3. The pod's interface: without its address, with another MAC address, in the bridge.
    /// 4. The tap, in the bridge.
    /// 5. The DHCP server's address; up.
    pub(crate) async fn make(&self, links: &Links, firewall: &Firewall) -> Result<OwnedFd, NetworkError> {
        for table in &self.tables {
            firewall.ensure(table).await?;
        }
        let bridge = links.ensure_bridge(&self.names.bridge, self.record.mtu()).await?;
        self.take_device(links, &bridge).await?;
        let fd = tap::make(&self.names.tap)?;
        let tap = links.get(&self.names.tap).await?;
        Setting::no_ipv6(&self.names.tap).apply()?;
        Setting::no_ipv6(&self.names.bridge).apply()?;
        links.set_mtu(&tap, self.record.mtu()).await?;
        links.join(&tap, &bridge).await?;
        links.set_up(&tap, true).await?;
        if self.serves() {
            links.add_address(&bridge, self.server()).await?;
        }
        links.set_up(&bridge, true).await?;
        Ok(fd)
    }

    async fn take_device(&self, links: &Links, bridge: &Link) -> Result<(), NetworkError> {
        let device = links.get(&self.device).await?;
        Setting::no_ipv6(&self.device).apply()?;
        links.remove_addresses(&device).await?;
        if device.mac != self.device_mac {
            links.set_mac(&device, self.device_mac).await?;
        }
        if device.master != Some(bridge.index) {
            links.join(&device, bridge).await?;
        }
        links.stop_learning(&device).await?;
        links.set_up(&device, true).await
    }

    /// The device that the DHCP server listens on; none where the pod had no address.
    pub(crate) fn dhcp_device(&self) -> Option<&str> {
        self.serves().then_some(self.names.bridge.as_str())
    }

    pub(crate) fn guest(&self) -> GuestLink {
        GuestLink {
            tap: self.names.tap.clone(),
            mac: Some(self.guest_mac.to_string()),
            mtu: self.record.mtu(),
            addressing: self.record.addressing(self.names.bridge_address),
        }
    }

    pub(crate) async fn differences(
        &self,
        links: &Links,
        firewall: &Firewall,
        found: &mut Differences,
    ) -> Result<(), NetworkError> {
        for table in &self.tables {
            let what = format!("the nftables table {:?} {}", table.family, table.name);
            let now = firewall.read(table).await?.unwrap_or_else(|| "absent".to_owned());
            found.expect(&what, &table.text(), &now);
        }
        let bridge = links.find(&self.names.bridge).await?;
        let master = bridge.as_ref().map(|bridge| bridge.index);
        for name in [&self.names.bridge, &self.names.tap, &self.device] {
            let Some(link) = links.find(name).await? else {
                found.expect(name, &"there", &"absent");
                continue;
            };
            found.expect(&format!("{name} up"), &true, &link.up);
            found.expect(&format!("the MTU of {name}"), &self.record.mtu(), &link.mtu);
            if *name != self.names.bridge {
                let within = link.master.is_some() && link.master == master;
                found.expect(&format!("{name} in {}", self.names.bridge), &true, &within);
            }
            let wanted =
                if *name == self.names.bridge && self.serves() { vec![self.server()] } else { Vec::new() };
            let now = links.addresses(&link).await?;
            found.expect(&format!("the addresses of {name}"), &text(&wanted), &text(&now));
            if *name == self.device {
                found.expect(&format!("the MAC address of {name}"), &self.device_mac, &link.mac);
            }
        }
        Ok(())
    }

    fn serves(&self) -> bool {
        self.record.addressing(self.names.bridge_address).is_some()
    }

    fn server(&self) -> Address {
        Address { address: self.names.bridge_address, prefix: 32 }
    }
}

fn text(list: &[Address]) -> String {
    let all: Vec<String> = list.iter().map(|a| format!("{}/{}", a.address, a.prefix)).collect();
    if all.is_empty() { "none".to_owned() } else { all.join(", ") }
}

/// Looks at the pod's interface before anything is changed.
async fn observe(device: &str, path: &Path, links: &Links) -> Result<Record, NetworkError> {
    let link = links.get(device).await?;
    if link.master.is_some() {
        return Err(NetworkError::RecordLost { device: device.to_owned(), path: path.to_owned() });
    }
    let addresses = links.addresses(&link).await?;
    let routes = links.routes(&link).await?;
    let is_global = |address: &&Address| {
        let address: Ipv4Addr = address.address;
        !address.is_loopback() && !address.is_link_local() && !address.is_unspecified()
    };
    Ok(Record::new(&link, addresses.iter().find(is_global).copied(), routes))
}

/// The guest asks its own DHCP server and no other, and that server answers nobody else. Of the pod itself the guest
/// and its network reach nothing more.
fn tables(names: &Names, device: &str) -> Vec<Table> {
    let dropped = |interface, port| {
        let rule = RuleSpec::new().then(Match::eq(interface, device));
        rule.then(Match::eq(port, DHCP_SERVER)).then(Verdict::Drop)
    };
    let forward = vec![dropped(Field::Oifname, Field::UdpDport), dropped(Field::Iifname, Field::UdpSport)];
    let chain = |name, hook, priority, rules| {
        let base = BaseChain::filter(hook, priority).policy(Policy::Accept);
        TableChain { name, base, rules }
    };
    let on_bridge = || RuleSpec::new().then(Match::eq(Field::Iifname, names.bridge.as_str()));
    let input = vec![
        on_bridge().then(Match::eq(Field::UdpDport, DHCP_SERVER)).then(Verdict::Accept),
        on_bridge().then(Verdict::Drop),
    ];
    vec![
        Table {
            family: Family::Bridge,
            name: names.table.clone(),
            chains: vec![
                chain("forward", FilterHook::Forward, BRIDGED, forward),
                chain("input", FilterHook::Input, BRIDGED, vec![dropped(Field::Iifname, Field::UdpDport)]),
                chain("output", FilterHook::Output, BRIDGED, vec![dropped(Field::Oifname, Field::UdpSport)]),
            ],
        },
        Table {
            family: Family::Ip,
            name: names.table.clone(),
            chains: vec![chain("input", FilterHook::Input, Priority::Filter, input)],
        },
    ]
}
