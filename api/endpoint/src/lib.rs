//! How Pinion's programs are asked from outside: pages over HTTP, and requests over Unix sockets.
//!
//! Called by the launcher and the node agent, each on a thread of its own. Whoever connects is hostile: everything
//! has a bound. It must never decide who may ask what: it says who asks.

#![forbid(unsafe_code)]

mod cause;
mod descriptor;
pub mod guest;
pub mod guest_os;
mod http;
mod socket;

pub use cause::chain;
pub use http::{Endpoint, EndpointError, Page};
pub use socket::{
    AskError, Caller, LONGEST_LINE, Peer, Refusal, Reply, SocketError, ask, ask_for_descriptors, bind, open,
    serve,
};
