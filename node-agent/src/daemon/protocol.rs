//! What the agent is asked over its socket, and what it answers. Pure data.

use std::fmt;

use pinion_planner::{Holding, Placement};
use serde::{Deserialize, Serialize};

use crate::partition::Isolation;
use crate::pod::PodName;
use crate::settings::HostWishes;

/// A request to the agent.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", rename_all_fields = "camelCase", tag = "ask", deny_unknown_fields)]
pub enum AgentRequest {
    /// Who holds what: the ledger.
    Ledger,
    /// Reserves what was planned against a generation, for the process that asks.
    Reserve {
        /// The ledger's generation that the plan was made against.
        generation: u64,
        /// What is to be held.
        holding: Holding,
    },
    /// Plans a guest inside of what the kubelet gave its pod, reserves it for the process that asks, and makes the host ready
    /// for it. To be asked by the guest's launcher, in the pod; the answer is [`Launched`].
    Launch {
        /// A `VirtualMachineInstance` of the pod's namespace.
        instance: serde_json::Value,
        /// The pod that asks.
        pod: PodName,
    },
    /// Makes the host ready for it: drivers of its devices, interrupts, power.
    Prepare {
        /// `namespace/name`.
        owner: String,
        /// What it wishes of the host.
        wishes: HostWishes,
        /// Whether its devices are bound.
        bind: bool,
    },
    /// Hands it over to a child of the process that holds it.
    Transfer {
        /// `namespace/name`.
        owner: String,
        /// The child.
        pid: i32,
    },
    /// Its threads are on their CPUs, and its pages are populated.
    Commit {
        /// `namespace/name`.
        owner: String,
    },
    /// Makes what an interface of a guest in a pod needs in the pod's network; the answer is a `GuestLink`, and with it come
    /// the interface's tap and the socket of its DHCP server, if it has one.
    Network {
        /// `namespace/name`.
        owner: String,
        /// Its place among the guest's interfaces, from 0.
        slot: u8,
        /// How it is connected.
        binding: NetworkBinding,
    },
    /// It has set up vectors anew.
    Route {
        /// `namespace/name`.
        owner: String,
    },
    /// Gives it back.
    Release {
        /// `namespace/name`.
        owner: String,
    },
    /// How the node is: [`super::NodeStatus`].
    Status,
}

impl AgentRequest {
    /// Whether it may change who holds what; anybody may ask the others.
    #[must_use]
    pub const fn is_change(&self) -> bool {
        !matches!(self, Self::Ledger | Self::Status)
    }

    /// What a request is about, if about one guest.
    #[must_use]
    pub fn owner(&self) -> Option<&str> {
        match self {
            Self::Ledger | Self::Status | Self::Reserve { .. } | Self::Launch { .. } => None,
            Self::Prepare { owner, .. }
            | Self::Transfer { owner, .. }
            | Self::Commit { owner }
            | Self::Network { owner, .. }
            | Self::Route { owner }
            | Self::Release { owner } => Some(owner),
        }
    }
}

impl fmt::Display for AgentRequest {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Ledger => "ledger",
            Self::Reserve { .. } => "reserve",
            Self::Launch { .. } => "launch",
            Self::Prepare { .. } => "prepare",
            Self::Transfer { .. } => "transfer",
            Self::Commit { .. } => "commit",
            Self::Network { .. } => "network",
            Self::Route { .. } => "route",
            Self::Release { .. } => "release",
            Self::Status => "status",
        })
    }
}

/// How an interface of a guest is connected to its pod's.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", tag = "kind", deny_unknown_fields)]
pub enum NetworkBinding {
    /// The guest is behind the pod's address.
    Masquerade {
        /// The addresses between pod and guest; `10.0.2.0/24` where absent.
        #[serde(default, skip_serializing_if = "Option::is_none")]
        range: Option<String>,
        /// What is let through to the guest; everything where empty.
        #[serde(default)]
        ports: Vec<OpenPort>,
    },
    /// The guest has the pod's address.
    Bridge {
        /// The guest's MAC address; the pod's where absent.
        #[serde(default, skip_serializing_if = "Option::is_none")]
        mac: Option<String>,
    },
}

/// A port that is let through.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct OpenPort {
    /// `TCP` or `UDP`.
    pub protocol: String,
    /// Its number.
    pub number: u16,
}

/// The place of a guest in a pod.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Launched {
    /// Where everything of it goes.
    pub placement: Placement,
    /// Its process, as the node counts it: in the pod it may have another number.
    pub pid: i32,
    /// What its user should know.
    #[serde(default)]
    pub notices: Vec<NoticeText>,
}

/// What changing something has led to.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Changes {
    /// What its user should know.
    #[serde(default)]
    pub notices: Vec<NoticeText>,
    /// How far the guest's CPUs are its own.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub isolation: Option<Isolation>,
}

/// A notice as text.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct NoticeText {
    /// A stable code.
    pub reason: String,
    /// Whether something is not as it should be.
    pub warning: bool,
    /// For people.
    pub text: String,
}
