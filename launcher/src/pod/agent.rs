//! The node's agent, as a launcher in a pod asks it. Its side is `pinion-node-agent`; a test of the command line holds the two
//! together.

use std::net::Ipv4Addr;
use std::os::fd::OwnedFd;
use std::os::unix::net::UnixListener;
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use pinion_endpoint::{AskError, Refusal, ask, ask_for_descriptors, chain};
use pinion_planner::Placement;
use serde::{Deserialize, Serialize};
use serde_json::Value;

use super::signals::Signals;

/// How long an answer may take: a driver may take its time to let go of a device.
const WITHIN: Duration = Duration::from_secs(60);
/// How long an agent that is away is waited for while the guest is armed: its certificate then says what is missing.
const COMMITTED_WITHIN: Duration = Duration::from_secs(25);
/// How long it may take to let go of a guest that has ended.
const RELEASED_WITHIN: Duration = Duration::from_secs(3);
/// How long it may take to sort the threads of a guest that runs.
const SORTED_WITHIN: Duration = Duration::from_secs(2);
/// How long until it is asked again, at first and at last.
const FIRST: Duration = Duration::from_millis(100);
const LAST: Duration = Duration::from_secs(5);
/// Refusals that pass: the agent, the kubelet or the ledger is busy or is being started anew.
const PASSING: [&str; 7] = [
    "Busy",
    "Ending",
    "KubeletRefused",
    "KubeletSilent",
    "KubeletUnreachable",
    "LedgerBusy",
    "LedgerChanged",
];

/// A pod.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct PodName {
    /// Its namespace.
    pub namespace: String,
    /// Its name.
    pub name: String,
}

/// What the agent is asked.
#[derive(Clone, Debug, Serialize)]
#[serde(rename_all = "camelCase", tag = "ask")]
pub enum HostRequest<'a> {
    /// A place for the guest.
    Launch {
        /// The instance, as it was given.
        instance: &'a Value,
        /// The pod.
        pod: &'a PodName,
    },
    /// Its threads are on their CPUs, and its pages are populated.
    Commit {
        /// `namespace/name`.
        owner: &'a str,
    },
    /// What an interface needs in the pod's network; with the answer come its tap, and its DHCP server's socket.
    Network {
        /// `namespace/name`.
        owner: &'a str,
        /// Its place among the guest's interfaces, from 0.
        slot: u8,
        /// How it is connected.
        binding: NetworkBinding,
    },
    /// The guest has ended.
    Release {
        /// `namespace/name`.
        owner: &'a str,
    },
    /// It has set up vectors anew.
    Route {
        /// `namespace/name`.
        owner: &'a str,
    },
}

/// How an interface is connected to its pod's.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "camelCase", tag = "kind")]
pub enum NetworkBinding {
    /// The guest is behind the pod's address.
    Masquerade {
        /// The addresses between pod and guest, `10.0.2.0/24`; the agent's where absent.
        #[serde(skip_serializing_if = "Option::is_none")]
        range: Option<String>,
        /// What is let through to the guest; everything where empty.
        ports: Vec<OpenPort>,
    },
    /// The guest has the pod's address.
    Bridge {
        /// The guest's MAC address; the pod's where absent.
        #[serde(skip_serializing_if = "Option::is_none")]
        mac: Option<String>,
    },
}

/// A port that is let through.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct OpenPort {
    /// `TCP` or `UDP`.
    pub protocol: String,
    /// Its number.
    pub number: u16,
}

/// A guest's interface, made in its pod.
#[derive(Clone, Debug, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct PodLink {
    /// MAC address that the guest must have; none where any will do.
    #[serde(default)]
    pub mac: Option<String>,
    /// MTU of the pod's interface.
    pub mtu: u32,
    /// What the guest is told by DHCP; none where the pod itself has no address.
    #[serde(default)]
    pub addressing: Option<LinkAddressing>,
}

/// What a guest is told by DHCP.
#[derive(Clone, Debug, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct LinkAddressing {
    /// The guest's address.
    pub address: Ipv4Addr,
    /// Bits of it that name its network.
    pub prefix: u8,
    /// The DHCP server's address.
    pub server: Ipv4Addr,
    /// The default router.
    #[serde(default)]
    pub router: Option<Ipv4Addr>,
    /// All routes, where there are others than the default one.
    #[serde(default)]
    pub routes: Vec<LinkRoute>,
}

/// A route of the guest.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct LinkRoute {
    /// Where to.
    pub destination: Ipv4Addr,
    /// Bits of it that count.
    pub prefix: u8,
    /// By which router; none where the destination is on the link.
    #[serde(default)]
    pub gateway: Option<Ipv4Addr>,
}

/// The place of the guest.
#[derive(Clone, Debug, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Launched {
    /// Where everything of it goes.
    pub placement: Placement,
    /// This process, as the node counts it.
    pub pid: i32,
    /// What its user should know.
    #[serde(default)]
    pub notices: Vec<AgentNotice>,
}

/// What asking has led to.
#[derive(Clone, Debug, Default, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct AgentChanges {
    /// What its user should know.
    #[serde(default)]
    pub notices: Vec<AgentNotice>,
    /// How far the guest's CPUs are its own; absent where its threads were moved meanwhile.
    #[serde(default)]
    pub isolation: Option<String>,
}

/// Something that the agent tells of the host.
#[derive(Clone, Debug, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct AgentNotice {
    /// Whether something is not as it should be.
    pub warning: bool,
    /// For people.
    pub text: String,
}

/// Why there is no place.
#[derive(Debug)]
pub(super) enum Unlaunched {
    Refused(Refusal),
    Ended,
}

/// The agent.
#[derive(Clone, Debug)]
pub(super) struct PodAgent {
    program: &'static str,
    socket: PathBuf,
}

impl PodAgent {
    pub(super) fn at(program: &'static str, socket: &Path) -> Self {
        Self { program, socket: socket.to_owned() }
    }

    /// Asks for the guest's place, and waits for as long as that can still come. With it comes the guest's socket, which the
    /// agent has made where all of the node's are.
    pub(super) fn launch(
        &self,
        instance: &Value,
        pod: &PodName,
        signals: &Signals,
    ) -> Result<(Launched, Option<UnixListener>), Unlaunched> {
        let (mut told, mut pause) = (None, FIRST);
        loop {
            let request = HostRequest::Launch { instance, pod };
            let why = match ask_for_descriptors::<_, Launched>(&self.socket, &request, WITHIN) {
                Ok((launched, sockets)) => {
                    self.tell(&launched.notices);
                    return Ok((launched, sockets.into_iter().next().map(UnixListener::from)));
                }
                Err(AskError::Refused(r)) if !PASSING.contains(&r.reason.as_str()) => {
                    return Err(Unlaunched::Refused(r));
                }
                Err(e) => chain(&e),
            };
            if told.as_ref() != Some(&why) {
                eprintln!("{}: waiting for the node's agent: {why}", self.program);
                told = Some(why);
            }
            if signals.wait(pause) {
                return Err(Unlaunched::Ended);
            }
            pause = pause.saturating_mul(2).min(LAST);
        }
    }

    /// Has an interface made in the pod's network.
    pub(super) fn network(
        &self,
        owner: &str,
        slot: u8,
        binding: NetworkBinding,
    ) -> Result<(PodLink, Vec<OwnedFd>), AskError> {
        let end = Instant::now() + COMMITTED_WITHIN;
        let request = HostRequest::Network { owner, slot, binding };
        loop {
            match ask_for_descriptors(&self.socket, &request, WITHIN) {
                Err(AskError::Absent { .. } | AskError::Broken { .. }) if Instant::now() < end => {
                    std::thread::sleep(FIRST);
                }
                done => return done,
            }
        }
    }

    /// Has the host's part done, now that the guest is armed.
    pub(super) fn commit(&self, owner: &str) -> Result<AgentChanges, AskError> {
        let end = Instant::now() + COMMITTED_WITHIN;
        loop {
            match ask::<_, AgentChanges>(&self.socket, &HostRequest::Commit { owner }, WITHIN) {
                Err(AskError::Absent { .. } | AskError::Broken { .. }) if Instant::now() < end => {
                    std::thread::sleep(FIRST);
                }
                done => {
                    let changes = done?;
                    self.tell(&changes.notices);
                    return Ok(changes);
                }
            }
        }
    }

    /// Has the threads of a guest that runs brought to the groups that they belong to. Nobody waits long for that.
    pub(super) fn sort(&self, owner: &str) -> Result<(), AskError> {
        ask::<_, AgentChanges>(&self.socket, &HostRequest::Commit { owner }, SORTED_WITHIN).map(drop)
    }

    /// The guest has ended: what the agent made of this process's control group goes. Without it, it goes a moment later.
    pub(super) fn release(&self, owner: &str) {
        let _ = ask::<_, Value>(&self.socket, &HostRequest::Release { owner }, RELEASED_WITHIN);
    }

    /// The agent looks each second anyway: it need not be there.
    pub(super) fn route(&self, owner: &str) {
        let _ = ask::<_, Value>(&self.socket, &HostRequest::Route { owner }, FIRST);
    }

    fn tell(&self, notices: &[AgentNotice]) {
        for notice in notices {
            let kind = if notice.warning { "warning: " } else { "" };
            eprintln!("{}: host: {kind}{}", self.program, notice.text);
        }
    }
}
