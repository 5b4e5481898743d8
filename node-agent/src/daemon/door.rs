//! The two sockets that the agent listens on: one for the host, and one that goes into pods.
//!
//! Opened by the daemon's main thread; what comes by either is answered on that thread. A pod sees the folder of the second one,
//! so that an agent that is started anew is found again: nothing else may ever be in it, and it stays when the agent ends.

use std::fs::{self, Permissions};
use std::io;
use std::os::unix::fs::{PermissionsExt, chown};
use std::os::unix::net::UnixListener;

use nix::unistd::{getegid, geteuid};
use pinion_endpoint::{Peer, Refusal};

use super::protocol::AgentRequest;
use super::{AgentError, failed};
use crate::ledger::Ledger;

/// Which socket a request came by.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Door {
    /// The host's: `pinion run` and whoever looks after the node.
    Host,
    /// That of pods, where only guests' launchers have something to ask.
    Pods,
}

/// Opens both. The host's comes first: who has it is the one agent of the ledger.
pub(super) fn open(ledger: &Ledger, group: Option<u32>) -> Result<[(UnixListener, Door); 2], AgentError> {
    let socket = ledger.agent_socket();
    let host = pinion_endpoint::bind(&socket, 0o600)?;
    let opened = chown(&socket, None, group)
        .and_then(|()| fs::set_permissions(&socket, Permissions::from_mode(mode(group))));
    opened.map_err(failed("let others use the agent's socket"))?;
    make_folder(ledger).map_err(failed("make the folder of the agent's socket for pods"))?;
    // A launcher may be any user; the kernel says which process asks.
    let pods = pinion_endpoint::bind(&ledger.pods_socket(), 0o666)?;
    Ok([(host, Door::Host), (pods, Door::Pods)])
}

/// Takes both sockets away.
pub(super) fn close(ledger: &Ledger) {
    for socket in [ledger.agent_socket(), ledger.pods_socket()] {
        // A socket that is left is replaced by the next agent.
        let _ = fs::remove_file(socket);
    }
}

/// Everybody may read where no group is named; what they may ask is another matter.
const fn mode(group: Option<u32>) -> u32 {
    if group.is_some() { 0o660 } else { 0o666 }
}

/// Whoever made it, it is the agent's, and nobody else writes there.
fn make_folder(ledger: &Ledger) -> io::Result<()> {
    let folder = ledger.pods_folder();
    fs::create_dir_all(&folder)?;
    chown(&folder, Some(geteuid().as_raw()), Some(getegid().as_raw()))?;
    fs::set_permissions(&folder, Permissions::from_mode(0o755))
}

impl Door {
    /// Whether a request may come by it at all.
    pub(super) fn admit(self, request: &AgentRequest) -> Result<(), Refusal> {
        let is_for_pods = match request {
            AgentRequest::Launch { .. }
            | AgentRequest::Prepare { .. }
            | AgentRequest::Commit { .. }
            | AgentRequest::Network { .. }
            | AgentRequest::Route { .. }
            | AgentRequest::Release { .. } => true,
            AgentRequest::Ledger
            | AgentRequest::Status
            | AgentRequest::Reserve { .. }
            | AgentRequest::Transfer { .. } => false,
        };
        if self == Self::Host || is_for_pods {
            return Ok(());
        }
        let message = format!("a pod asks for nothing but its own guest, and {request} is the host's");
        Err(Refusal::new("NotPermitted", message))
    }

    /// A refusal as it may be told: a pod does not learn which guests of others there are.
    pub(super) fn told(self, peer: Peer, refusal: Refusal) -> Refusal {
        match refusal.reason.as_str() {
            "NotHeld" | "NotPermitted" if self == Self::Pods => {
                Refusal::new("NotPermitted", format!("process {} holds no such guest", peer.pid))
            }
            _ => refusal,
        }
    }
}

#[cfg(test)]
mod tests;
