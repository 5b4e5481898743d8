//! The controller: `kubevirt.io/v1` on a cluster.
//!
//! Watches fill the world and the clerk's books; workers look at what has changed, one object at a time each; one of several
//! replicas acts, and every replica answers the API server's questions of admission. What is to be done is worked out by
//! `pinion-reconcile` and `pinion-nodes`, which are pure; this crate does it, and decides nothing.

#![forbid(unsafe_code)]

mod api;
mod clerk;
mod guard;
mod kinds;
mod leader;
mod look;
mod metrics;
mod queue;
mod registration;
mod removal;
mod review;
mod run;
mod watch;
mod world;

pub use api::RequestError;
pub use guard::GuardError;
pub use registration::Way;
pub use run::{Options, RunError, run};
