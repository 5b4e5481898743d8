//! What a node's agent says to the API server: the node, who has what on it, and how its guests are.
//!
//! Started by `pinion agent` inside a cluster, after everything else. Owns the status of the `NodeLedger` of its node and the
//! labels that say the node's facts, on a thread of its own with a runtime of its own. It only reads: the ledger's file, the
//! kubelet, the machine, guests' sockets. It must never be waited for by the agent or by a guest: an API server that is away
//! is told once and waited for, and everything on the node goes on.

#![forbid(unsafe_code)]

mod error;
mod guests;
mod pods;
mod profile;
mod publish;
mod seen;
mod server;
mod survey;
mod watch;

pub use error::PublishError;
pub use publish::{Options, StartError, Tell, publish, start};
pub use survey::Sources;

/// Who writes, as the API server keeps it with every field.
pub const FIELD_MANAGER: &str = "pinion-agent";
