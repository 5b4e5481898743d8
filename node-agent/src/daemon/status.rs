//! How the node is, for whoever looks. Pure data.

use std::collections::BTreeMap;
use std::sync::Arc;

use jiff::Timestamp;
use pinion_machine::{Bdf, CpuSet};
use pinion_planner::{HoldingState, Occupancy};
use serde::{Deserialize, Serialize};

use super::protocol::NoticeText;
use crate::partition::Isolation;
use crate::qualification::Qualification;
use crate::settings::Tally;

/// How the node is.
#[derive(Clone, Debug, Default, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct NodeStatus {
    /// The profile that is applied.
    pub profile: String,
    /// What stands in its way.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub profile_obstacles: Vec<String>,
    /// What was measured, as long as it holds.
    #[serde(skip)]
    pub qualification: Option<Arc<Qualification>>,
    /// Counts the changes of the ledger.
    pub generation: u64,
    /// Guests, in the order they came.
    pub guests: Vec<GuestRow>,
    /// What was done about the host's settings.
    pub tally: Tally,
    /// What was heard, by kind.
    pub events: BTreeMap<&'static str, u64>,
    /// What was told, the newest last.
    pub told: Vec<Told>,
    /// Settings of the host that are not as they were before.
    pub changed: usize,
    /// What is taken.
    #[serde(skip)]
    pub occupancy: Occupancy,
}

/// A guest as the agent sees it.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct GuestRow {
    /// `namespace/name`.
    pub owner: String,
    /// Its process.
    pub pid: i32,
    /// How far it is.
    pub state: HoldingState,
    /// Its dedicated CPUs.
    pub cpus: CpuSet,
    /// Its devices.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub devices: Vec<Bdf>,
    /// How far its CPUs are its own.
    pub isolation: Isolation,
    /// Since when.
    pub since: Timestamp,
}

/// Something that was told.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Told {
    /// When.
    pub at: Timestamp,
    /// What.
    #[serde(flatten)]
    pub notice: NoticeText,
}
