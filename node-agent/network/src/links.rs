//! Interfaces, addresses and routes of the pod, over netlink.
//!
//! Made and used on the thread that is in the pod's namespace.

use std::net::{IpAddr, Ipv4Addr};

use nlink::netlink::link::{BridgeLink, BridgePortConfig};
use nlink::netlink::types::route::RouteType;
use nlink::{Connection, Ipv4Address, LinkMessage, Route};
use pinion_api::MacAddress;

use crate::error::NetworkError;
use crate::guest::GuestRoute;

/// The main routing table. Source: `RT_TABLE_MAIN` of Linux.
const MAIN_TABLE: u32 = 254;

/// The pod's interfaces.
pub(crate) struct Links(Connection<Route>);

/// An interface, as it is now.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Link {
    pub(crate) index: u32,
    pub(crate) name: String,
    pub(crate) mac: MacAddress,
    pub(crate) mtu: u32,
    pub(crate) up: bool,
    /// Index of the bridge that it is in.
    pub(crate) master: Option<u32>,
    pub(crate) kind: Option<String>,
}

/// An IPv4 address of an interface.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Address {
    pub(crate) address: Ipv4Addr,
    pub(crate) prefix: u8,
}

impl Links {
    /// Those of the calling thread's namespace.
    pub(crate) fn here() -> Result<Self, NetworkError> {
        Connection::<Route>::new().map(Self).map_err(refused("open a netlink socket"))
    }

    pub(crate) async fn find(&self, name: &str) -> Result<Option<Link>, NetworkError> {
        let found = self.0.get_link_by_name(name).await.map_err(refused(format!("look for {name}")))?;
        Ok(found.as_ref().map(|message| Link::of(name, message)))
    }

    pub(crate) async fn get(&self, name: &str) -> Result<Link, NetworkError> {
        self.find(name).await?.ok_or_else(|| NetworkError::NoInterface(name.to_owned()))
    }

    /// IPv4 addresses of an interface that reach further than its link, primary ones first.
    pub(crate) async fn addresses(&self, link: &Link) -> Result<Vec<Address>, NetworkError> {
        let found = self.0.get_addresses_by_index(link.index).await;
        let mut found = found.map_err(refused(format!("read the addresses of {}", link.name)))?;
        found.sort_by_key(nlink::AddressMessage::is_secondary);
        let all = found.iter().filter_map(|message| match message.primary_address() {
            Some(IpAddr::V4(address)) => Some(Address { address: *address, prefix: message.prefix_len() }),
            _ => None,
        });
        Ok(all.collect())
    }

    /// Unicast IPv4 routes of the main table through an interface.
    pub(crate) async fn routes(&self, link: &Link) -> Result<Vec<GuestRoute>, NetworkError> {
        let all = self.0.get_routes_for_table(MAIN_TABLE).await.map_err(refused("read the routes"))?;
        let ours = all.iter().filter(|route| {
            route.is_ipv4() && route.oif() == Some(link.index) && route.route_type() == RouteType::Unicast
        });
        let v4 = |address: Option<&IpAddr>| match address {
            Some(IpAddr::V4(address)) => Some(*address),
            _ => None,
        };
        let mut routes: Vec<GuestRoute> = ours
            .map(|route| GuestRoute {
                destination: v4(route.destination()).unwrap_or(Ipv4Addr::UNSPECIFIED),
                prefix: route.dst_len(),
                gateway: v4(route.gateway()),
            })
            .collect();
        routes.sort_unstable();
        routes.dedup();
        Ok(routes)
    }

    /// Makes a bridge that forwards at once, unless it is there.
    pub(crate) async fn ensure_bridge(&self, name: &str, mtu: u32) -> Result<Link, NetworkError> {
        match self.find(name).await? {
            None => {
                let bridge = BridgeLink::new(name).stp(false).forward_delay_ms(0).mtu(mtu);
                self.0.add_link(bridge).await.map_err(refused(format!("make the bridge {name}")))?;
            }
            Some(link) if link.kind.as_deref() == Some("bridge") => {}
            Some(link) => {
                let found = link.kind.unwrap_or_else(|| "device".to_owned());
                return Err(NetworkError::OtherKind { name: name.to_owned(), found });
            }
        }
        self.get(name).await
    }

    pub(crate) async fn set_mtu(&self, link: &Link, mtu: u32) -> Result<(), NetworkError> {
        let done = self.0.set_link_mtu_by_index(link.index, mtu).await;
        done.map_err(refused(format!("set the MTU of {} to {mtu}", link.name)))
    }

    /// The interface is down afterwards: not every driver takes another address while it is up.
    pub(crate) async fn set_mac(&self, link: &Link, mac: MacAddress) -> Result<(), NetworkError> {
        self.set_up(link, false).await?;
        let done = self.0.set_link_address_by_index(link.index, mac.0).await;
        done.map_err(refused(format!("give {} the MAC address {mac}", link.name)))
    }

    pub(crate) async fn set_up(&self, link: &Link, up: bool) -> Result<(), NetworkError> {
        let done = self.0.set_link_state_by_index(link.index, up).await;
        done.map_err(refused(format!("bring {} {}", link.name, if up { "up" } else { "down" })))
    }

    pub(crate) async fn join(&self, link: &Link, bridge: &Link) -> Result<(), NetworkError> {
        let done = self.0.set_link_master_by_index(link.index, bridge.index).await;
        done.map_err(refused(format!("add {} to the bridge {}", link.name, bridge.name)))
    }

    /// The bridge does not learn from a port who is behind it: the guest's own packets, sent back to it by the
    /// network, must not take its place away.
    pub(crate) async fn stop_learning(&self, link: &Link) -> Result<(), NetworkError> {
        let done = self.0.set_bridge_port_by_index(link.index, BridgePortConfig::new().learning(false)).await;
        done.map_err(refused(format!("stop the bridge from learning at {}", link.name)))
    }

    pub(crate) async fn add_address(&self, link: &Link, address: Address) -> Result<(), NetworkError> {
        let Address { address, prefix } = address;
        let done = self.0.replace_address(Ipv4Address::with_index(link.index, address, prefix)).await;
        done.map_err(refused(format!("give {} the address {address}/{prefix}", link.name)))
    }

    pub(crate) async fn remove_addresses(&self, link: &Link) -> Result<(), NetworkError> {
        let done = self.0.flush_addresses_by_index(link.index).await;
        done.map_err(refused(format!("take the addresses of {}", link.name)))
    }
}

impl Link {
    fn of(name: &str, message: &LinkMessage) -> Self {
        let mac = message.address().and_then(|bytes| bytes.try_into().ok()).unwrap_or_default();
        Self {
            index: message.ifindex(),
            name: name.to_owned(),
            mac: MacAddress(mac),
            mtu: message.mtu().unwrap_or_default(),
            up: message.is_up(),
            master: message.master(),
            kind: message.kind().map(str::to_owned),
        }
    }
}

fn refused(action: impl Into<String>) -> impl FnOnce(nlink::Error) -> NetworkError {
    let action = action.into();
    move |source| NetworkError::Link { action, source }
}
