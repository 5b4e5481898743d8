//! Guests' interfaces in real network namespaces, with real packets: on this machine's kernel where it can be, and on
//! Debian's on a lab host.

#![expect(clippy::unwrap_used, clippy::panic, reason = "tests")]

mod bridge;
mod debian;
mod masquerade;
mod wire;
mod world;
