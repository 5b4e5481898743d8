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
    /// Stops its vCPUs where they are.
    Pause,
    /// Lets them go on.
    Unpause,
    /// Resets it at once, as its reset button would.
    Reset,
    /// Asks the system inside to reboot.
    SoftReboot,
    /// Asks the agent inside.
    Agent {
        /// What for.
        request: AgentRequest,
    },
}

/// What is asked of QEMU's guest agent, a program inside the guest.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", rename_all_fields = "camelCase", tag = "what", deny_unknown_fields)]
pub enum AgentRequest {
    /// Whether it answers.
    Ping,
    /// What system it is: [`GuestOs`](crate::guest_os::GuestOs).
    Os,
    /// Its network interfaces: a list of [`GuestInterface`](crate::guest_os::GuestInterface).
    Interfaces,
    /// Its mounted file systems: a list of [`GuestFileSystem`](crate::guest_os::GuestFileSystem).
    FileSystems,
    /// Who is logged in: a list of [`GuestUser`](crate::guest_os::GuestUser).
    Users,
    /// Flushes its file systems and keeps everybody from writing to them, for a snapshot: how many.
    Freeze,
    /// Lets them write again: how many file systems.
    Thaw,
    /// Runs a program inside: [`Executed`](crate::guest_os::Executed).
    Exec {
        /// The program and its arguments.
        command: Vec<String>,
        /// How long it may take, seconds.
        timeout_seconds: u64,
    },
}

/// How a guest is.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct GuestStatus {
    /// Phase of its life, with KubeVirt's names.
    pub phase: String,
    /// Why its vCPUs stand still; absent where they do not.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub paused: Option<String>,
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
