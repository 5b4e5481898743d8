//! A DHCP server for exactly one guest (RFC 2131, 2132, 3396, 3397, 3442, 6842).
//!
//! Called by the launcher: [`serve`] on a thread of its own, with a socket that the node agent has bound to the guest's
//! tap or bridge. It gives the one address it was told to the one MAC address it was told. The guest is hostile:
//! whatever it sends, nothing here may panic, send a packet to anyone but the guest, or keep a CPU busy.

#![forbid(unsafe_code)]

mod answer;
mod lease;
mod options;
mod request;
mod resolver;
mod serve;

pub use answer::answer;
pub use lease::{ExtraOptions, Lease, OptionProblem, Route};
pub use resolver::Resolver;
pub use serve::serve;
