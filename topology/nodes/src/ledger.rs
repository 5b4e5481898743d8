//! `NodeLedger` of `pinion.dev/v1alpha1`: one object for each node. Its spec is the controller's: what is booked. Its status
//! is the agent's: what the node is, and who really has what.
//!
//! Both are read as hostile: a field that is missing is its default, and one that cannot be makes the node one that takes
//! nobody.

use std::collections::BTreeMap;

use jiff::Timestamp;
use pinion_machine::{Bdf, CpuSet, Outline};
use pinion_planner::{Holding, Request};
use serde::{Deserialize, Serialize};

/// Group of the kind.
pub const LEDGER_GROUP: &str = "pinion.dev";
/// Version of the kind.
pub const LEDGER_VERSION: &str = "v1alpha1";
/// Its name.
pub const LEDGER_KIND: &str = "NodeLedger";
/// Its name in addresses.
pub const LEDGER_PLURAL: &str = "nodeledgers";

/// What is booked on a node.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", default)]
pub struct LedgerSpec {
    /// Guests that have a place on it, in the order in which they got it.
    pub bookings: Vec<Booking>,
}

/// A guest that has a place on a node.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Booking {
    /// Identity of its instance.
    pub uid: String,
    /// What it needs.
    pub request: Request,
    /// What was planned for it. The kubelet may give it other CPUs, and the agent says which.
    pub holding: Holding,
    /// When it was booked.
    pub since: Timestamp,
}

/// What a node's agent publishes.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", default)]
pub struct LedgerStatus {
    /// The machine.
    pub machine: Outline,
    /// CPUs of the host and of pods that have none for themselves.
    pub housekeeping: CpuSet,
    /// What resource names stand for here: functions that a guest can have now.
    pub resources: BTreeMap<String, Vec<Bdf>>,
    /// Counts up with each change of who holds what.
    pub generation: u64,
    /// Who holds what: guests, and pods with CPUs of their own, as `pod/NAMESPACE/NAME`.
    pub holdings: Vec<Holding>,
    /// Guests that run here or ran here last.
    pub guests: Vec<GuestReport>,
    /// Why no guest can be started here; empty where they can.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub obstacles: Vec<String>,
    /// When the agent was last heard of.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub heard: Option<Timestamp>,
    /// Version of the agent.
    pub version: String,
}

/// What an agent says of a guest.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct GuestReport {
    /// Identity of its pod.
    pub pod_uid: String,
    /// `namespace/name` of its instance.
    pub owner: String,
    /// Where it is in its life.
    pub phase: GuestPhase,
    /// Whether it is where its plan says: the certificate's verdict; empty before there is one.
    #[serde(default)]
    pub verdict: String,
    /// What is not as the plan says, in words; a few at most.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub mismatches: Vec<String>,
    /// CPUs that are its own.
    #[serde(default)]
    pub cpus: CpuSet,
    /// Why it ended, in words.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub message: Option<String>,
    /// Since when it is in this phase.
    pub since: Timestamp,
}

/// Where a guest is in its life.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub enum GuestPhase {
    /// It has its place and is being armed.
    Starting,
    /// It runs.
    Running,
    /// Its vCPUs stand still.
    Paused,
    /// It powered itself off.
    Succeeded,
    /// It ended otherwise.
    Failed,
}
