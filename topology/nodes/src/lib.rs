//! Nodes of a cluster: what each publishes, what is booked on each, and which of them takes a guest.
//!
//! Called by the controller, on whatever thread it likes; the node's agent writes what a node publishes by the same types.
//! Pure: no I/O, no clock. Where a guest goes on a node is the planner's to say; here the same planner is asked about many
//! nodes, and its answers are compared. It must never decide by anything that is not in its inputs, so that two controllers
//! that see the same nodes choose the same one.

#![forbid(unsafe_code)]

mod books;
mod choose;
mod fit;
mod ledger;
mod node;

pub use books::{BookError, Books};
pub use choose::{Choice, NodeAnswer, NowhereToRun, choose};
pub use fit::Misfit;
pub use ledger::{
    Booking, GuestPhase, GuestReport, LEDGER_GROUP, LEDGER_KIND, LEDGER_PLURAL, LEDGER_VERSION, LedgerSpec,
    LedgerStatus,
};
pub use node::{ClusterNode, Effect, Taint};

#[cfg(test)]
mod tests;
