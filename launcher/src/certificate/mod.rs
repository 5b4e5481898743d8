//! The certificate: what the kernel says of where a guest's threads and pages are,
//! held against the placement.
//!
//! Owns its document, the reading of `/proc`, the judgement and the file. Called by
//! the launcher before and while its guest runs, and by whoever audits a guest from
//! outside. It must never decide a placement.

mod audit;
mod census;
mod devices;
mod document;
mod judge;
mod observe;
mod plan;
mod store;
#[cfg(test)]
mod tests;

pub use audit::{Auditor, Checked, Depth, Repair, RepairResult, Repaired};
pub use census::{Census, CensusError, Mappings, Range};
pub use devices::{DeviceObservation, ObservedVector, observe_devices};
pub use document::{
    API_VERSION, CellFacts, Certificate, Check, DeviceFacts, Item, KIND, Role, Scheduling, ThreadFacts,
    VectorFacts, Verdict,
};
pub use judge::{Reading, judge};
pub use observe::{MemoryObservation, Observation, Subjects, observe_memory, observe_threads};
pub use plan::{Plan, PlannedCell, PlannedDevice, PlannedThread};
pub(crate) use store::replace;
pub use store::{StoreError, write};
