//! What a guest's launcher is asked over its socket. Pure data.

use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};

/// A request to the launcher of one guest.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", rename_all_fields = "camelCase", tag = "ask", deny_unknown_fields)]
pub enum GuestRequest {
    /// How it is: [`GuestStatus`].
    Status,
    /// Its last certificate.
    Certificate,
    /// Checks everything now: the certificate.
    Audit,
    /// Its metrics, as Prometheus text.
    Metrics,
    /// Its spec, placement and certificate.
    Inspect,
    /// Presses the power button; with `force`, ends it at once.
    Stop {
        /// At once.
        force: bool,
    },
    /// What its serial console printed last, as a stream; with `follow`, and what it prints from now on.
    Logs {
        /// Goes on until the guest's end.
        follow: bool,
    },
    /// Its serial console, as a stream both ways.
    Console,
}

/// How a guest is.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct GuestStatus {
    /// Phase of its life, with KubeVirt's names.
    pub phase: String,
    /// The last certificate's verdict; absent before the first.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub verdict: Option<String>,
    /// How often everything was checked.
    pub checks: u64,
    /// What does not hold.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub mismatches: Vec<String>,
    /// How often something drifted, by what it was.
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    pub drift_total: BTreeMap<String, u64>,
    /// How many vCPUs it has.
    pub vcpus: usize,
    /// Its memory, bytes.
    pub memory_bytes: u64,
    /// The longest that one of its vCPUs has waited for a CPU in all, ns.
    pub longest_wait_ns: u64,
}
