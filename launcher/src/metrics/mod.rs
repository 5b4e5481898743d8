//! The metrics of one guest: what they are, what they say now, and the endpoint that serves them.
//!
//! Read on a thread of its own, on housekeeping CPUs, when somebody asks. It must never
//! touch the guest.

mod declare;
mod exposition;
mod snapshot;
#[cfg(test)]
mod tests;

pub use declare::{BASE_LABELS, Kind, METRICS, Metric, markdown_page, markdown_table};
pub use exposition::{ExpositionError, expose};
pub use snapshot::{GuestPhase, Identity, ProcessUsage, Snapshot};
