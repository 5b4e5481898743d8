//! What a guest's interface needs in the network namespace of its pod: the `masquerade` and `bridge` bindings of the
//! pod network.
//!
//! Called by the node agent, which is privileged, for a launcher that is not: the launcher gets descriptors, and needs
//! neither a capability nor `/dev/net/tun`. All work in a namespace is done on a thread that is made for it and ends
//! with it; no other thread of the caller ever changes its namespace. Nothing outside the pod's namespace is changed.

#![forbid(unsafe_code)]

mod binding;
mod bridge;
mod differences;
mod error;
mod firewall;
mod guest;
mod links;
mod masquerade;
mod namespace;
mod network;
mod prepare;
mod record;
mod settings;
mod socket;
mod tap;

pub use binding::{Binding, Names, PodInterface, Port, Protocol};
pub use differences::Difference;
pub use error::NetworkError;
pub use guest::{Addressing, GuestLink, GuestRoute};
pub use network::{GuestNetwork, GuestNetworkError};
pub use prepare::{Prepared, differences, prepare};
