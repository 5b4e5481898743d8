//! Who may ask what. Reads `/proc`; decides nothing else.
//!
//! - Anybody who may connect may read.
//! - Root, the agent's own user and the members of the agent's group may reserve, but not a process that is a guest.
//! - A process in a pod reserves nothing: it may ask for what its pod was given, whoever it is, and has the host made ready
//!   only as the agent finds that it needs.
//! - What is held may be changed by the process that holds it, and by the one that started that. By nobody else, root
//!   or not: a guest's process that was taken over may be root's too.

use pinion_endpoint::{Peer, Refusal};
use procfs::process::Process;

use super::protocol::AgentRequest;
use crate::ledger::{LedgerDocument, LedgerEntry};
use pinion_planner::HoldingState;

/// Whose agent this is.
#[derive(Clone, Copy, Debug)]
pub(super) struct Authority {
    pub(super) uid: u32,
    /// The group whose members may run guests, if any.
    pub(super) group: Option<u32>,
}

impl Authority {
    /// Whether a request is allowed.
    pub(super) fn check(
        self,
        peer: Peer,
        request: &AgentRequest,
        ledger: &LedgerDocument,
        in_pod: bool,
    ) -> Result<(), Refusal> {
        let denied = |message: String| Err(Refusal::new("NotPermitted", message));
        if !request.is_change() {
            return Ok(());
        }
        let Some(owner) = request.owner() else {
            if matches!(request, AgentRequest::Launch { .. }) {
                // Who asks is looked at by what the kubelet knows of it.
                return Ok(());
            }
            if in_pod {
                let message =
                    "a process in a pod has what the kubelet gave its container: it asks to be launched";
                return Err(Refusal::new("InPod", message));
            }
            if !self.may_reserve(peer) {
                return denied(format!(
                    "user {} may not run guests on this node: ask its operator",
                    peer.uid
                ));
            }
            let is_guest =
                |e: &&LedgerEntry| e.process.pid == peer.pid && e.holding.state == HoldingState::Committed;
            return match ledger.holdings.iter().find(is_guest) {
                Some(entry) => denied(format!("process {} is {} itself", peer.pid, entry.holding.owner)),
                None => Ok(()),
            };
        };
        let Some(entry) = ledger.holdings.iter().find(|e| e.holding.owner == owner) else {
            return Err(Refusal::new("NotHeld", format!("{owner:?} holds nothing on this node")));
        };
        let holder = &entry.process;
        let is_theirs = matches!(request, AgentRequest::Prepare { .. } | AgentRequest::Transfer { .. });
        if entry.pod.is_some() && is_theirs {
            return denied(format!("{owner:?} is in a pod: what it needs of the host, the agent knows"));
        }
        if peer.pid > 0 && (holder.pid == peer.pid || holder.is_child_of(peer.pid)) {
            return Ok(());
        }
        denied(format!("process {} neither is {owner:?} nor has started it", peer.pid))
    }

    fn may_reserve(self, peer: Peer) -> bool {
        if peer.uid == 0 || peer.uid == self.uid {
            return true;
        }
        let Some(group) = self.group else { return false };
        let groups = || Process::new(peer.pid).and_then(|p| p.status()).map(|s| s.groups).unwrap_or_default();
        peer.gid == group || groups().contains(&group)
    }
}

#[cfg(test)]
mod tests {
    use pinion_planner::Holding;

    use super::*;
    use crate::ledger::Holder;
    use crate::settings::HostWishes;

    const GUEST: &str = "default/a";

    fn me() -> Peer {
        let pid = Holder::current().unwrap().pid;
        Peer { pid, uid: 4242, gid: 4242 }
    }

    fn holding(state: HoldingState) -> Holding {
        Holding {
            owner: GUEST.into(),
            state,
            cpus: "2-3".parse().unwrap(),
            floating: vec![],
            memory: vec![],
            devices: vec![],
        }
    }

    fn ledger(state: HoldingState) -> LedgerDocument {
        let entry = LedgerEntry {
            holding: holding(state),
            host: HostWishes::default(),
            pod: None,
            process: Holder::current().unwrap(),
            since: jiff::Timestamp::UNIX_EPOCH,
        };
        LedgerDocument { holdings: vec![entry], ..LedgerDocument::default() }
    }

    fn reason(authority: Authority, peer: Peer, request: &AgentRequest) -> Option<String> {
        authority.check(peer, request, &ledger(HoldingState::Reserved), false).err().map(|r| r.reason)
    }

    const NOBODY: Authority = Authority { uid: 1, group: None };

    #[test]
    fn reading_is_for_all_and_reserving_for_those_who_may() {
        let reserve = AgentRequest::Reserve { generation: 0, holding: holding(HoldingState::Reserved) };
        assert_eq!(reason(NOBODY, me(), &AgentRequest::Ledger), None);
        assert_eq!(reason(NOBODY, me(), &reserve).as_deref(), Some("NotPermitted"));
        assert_eq!(reason(NOBODY, Peer { uid: 0, ..me() }, &reserve), None);
        assert_eq!(reason(Authority { uid: 4242, ..NOBODY }, me(), &reserve), None);
        assert_eq!(reason(Authority { group: Some(4242), ..NOBODY }, me(), &reserve), None);
    }

    #[test]
    fn what_is_held_is_its_holders_and_who_started_that() {
        let release = AgentRequest::Release { owner: GUEST.into() };
        assert_eq!(reason(NOBODY, me(), &release), None);
        let parent = Peer { pid: nix::unistd::getppid().as_raw(), ..me() };
        assert_eq!(reason(NOBODY, parent, &release), None);
        for pid in [1, 0, -1] {
            let other = Peer { pid, uid: 0, gid: 0 };
            assert_eq!(reason(NOBODY, other, &release).as_deref(), Some("NotPermitted"), "{pid}");
        }
        let absent = AgentRequest::Release { owner: "default/b".into() };
        assert_eq!(reason(NOBODY, me(), &absent).as_deref(), Some("NotHeld"));
    }

    #[test]
    fn a_guest_reserves_nothing() {
        let reserve = AgentRequest::Reserve { generation: 0, holding: holding(HoldingState::Reserved) };
        let peer = Peer { uid: 0, ..me() };
        let refused = NOBODY.check(peer, &reserve, &ledger(HoldingState::Committed), false).unwrap_err();
        assert!(refused.message.contains(GUEST), "{refused}");
    }

    #[test]
    fn a_process_in_a_pod_reserves_nothing_and_has_nothing_prepared_as_it_wishes() {
        let mut held = ledger(HoldingState::Reserved);
        let check = |request: &AgentRequest, held: &LedgerDocument| {
            let root = Peer { uid: 0, ..me() };
            NOBODY.check(root, request, held, true).err().map(|r| r.reason)
        };
        let reserve = AgentRequest::Reserve { generation: 0, holding: holding(HoldingState::Reserved) };
        assert_eq!(check(&reserve, &held).as_deref(), Some("InPod"));
        let prepare =
            AgentRequest::Prepare { owner: GUEST.into(), wishes: HostWishes::default(), bind: false };
        let transfer = AgentRequest::Transfer { owner: GUEST.into(), pid: 1 };
        assert_eq!(check(&prepare, &held), None, "a guest that is not in a pod");
        held.holdings[0].pod = Some(crate::pod::PodPlace {
            namespace: "default".into(),
            name: "a".into(),
            uid: "12".into(),
            pod_group: "kubepods/pod12".into(),
            group: "kubepods/pod12/ab".into(),
            housekeeping: "0".parse().unwrap(),
        });
        for request in [prepare, transfer] {
            assert_eq!(check(&request, &held).as_deref(), Some("NotPermitted"), "{request}");
        }
        for request in
            [AgentRequest::Commit { owner: GUEST.into() }, AgentRequest::Release { owner: GUEST.into() }]
        {
            assert_eq!(check(&request, &held), None, "{request}");
        }
    }
}
