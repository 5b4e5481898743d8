//! A host that the node's agent keeps.
//!
//! Each request is a connection of its own, and may be asked again: an agent that is started anew meanwhile is waited
//! for.

use std::path::PathBuf;
use std::thread;
use std::time::{Duration, Instant};

use pinion_endpoint::{AskError, ask};
use pinion_node_agent::{
    ANSWERED_WITHIN, AgentRequest, Changes, HostWishes, Isolation, Ledger, LedgerDocument,
};
use pinion_planner::{Occupancy, Placement};
use serde_json::Value;

use super::Unplaced;
use super::{Claim, Planned};
use crate::failure::Failure;
use crate::run::report;

/// How long an agent that is gone is waited for.
const BACK_WITHIN: Duration = Duration::from_secs(10);
const AGAIN: Duration = Duration::from_millis(100);
/// How often a plan is made anew because somebody was quicker.
const PLANS: usize = 50;

/// The agent.
#[derive(Clone, Debug)]
pub(crate) struct AgentHost {
    socket: PathBuf,
}

/// What the agent holds for a guest; dropping it gives that back.
#[derive(Debug)]
pub(crate) struct AgentClaim {
    host: AgentHost,
    owner: String,
    held: bool,
}

impl AgentHost {
    /// The agent of a ledger, where one runs.
    pub(super) fn find(ledger: &Ledger) -> Option<Self> {
        let host = Self { socket: ledger.agent_socket() };
        match ask::<_, LedgerDocument>(&host.socket, &AgentRequest::Ledger, ANSWERED_WITHIN) {
            Ok(_) => Some(host),
            // It is there, but says no: better its words than to go behind its back.
            Err(AskError::Refused(_)) => Some(host),
            Err(_) => None,
        }
    }

    /// Asks; an agent that is gone is waited for.
    pub(super) fn ask(&self, request: &AgentRequest) -> Result<Value, AskError> {
        let end = Instant::now() + BACK_WITHIN;
        loop {
            match ask(&self.socket, request, ANSWERED_WITHIN) {
                Err(AskError::Absent { .. } | AskError::Broken { .. }) if Instant::now() < end => {
                    thread::sleep(AGAIN);
                }
                done => return done,
            }
        }
    }

    fn changes(&self, request: &AgentRequest) -> Result<Changes, AskError> {
        let value = self.ask(request)?;
        Ok(serde_json::from_value(value).unwrap_or_default())
    }

    pub(super) fn reserve(
        &self,
        plan: impl Fn(&Occupancy) -> Planned,
    ) -> Result<(Claim, Placement), Unplaced> {
        let failed = |e: AskError| Unplaced::Failed(Failure::failed(e));
        let mut left = PLANS;
        loop {
            let value = self.ask(&AgentRequest::Ledger).map_err(failed)?;
            let document: LedgerDocument =
                serde_json::from_value(value).map_err(|e| Unplaced::Failed(Failure::failed(e)))?;
            let (holding, placement) = plan(&document.occupancy())?;
            let owner = holding.owner.clone();
            let request = AgentRequest::Reserve { generation: document.generation, holding };
            match self.ask(&request) {
                Ok(_) => {
                    let claim = AgentClaim { host: self.clone(), owner, held: true };
                    return Ok((Claim::Agent(claim), placement));
                }
                Err(AskError::Refused(r)) if r.reason == "LedgerChanged" && left > 0 => left -= 1,
                Err(e) => return Err(failed(e)),
            }
        }
    }

    pub(super) fn prepare(&self, claim: &AgentClaim, wishes: HostWishes, bind: bool) -> Result<(), Failure> {
        let owner = claim.owner.clone();
        let changes = self.changes(&AgentRequest::Prepare { owner, wishes, bind }).map_err(|e| match e {
            AskError::Refused(r) if r.reason == "DeviceBlocked" => Failure::invalid(r),
            e => Failure::failed(e),
        })?;
        changes.notices.iter().for_each(report::notice_text);
        Ok(())
    }

    pub(super) fn commit(&self, name: &str, claim: &AgentClaim) -> Option<Isolation> {
        match self.changes(&AgentRequest::Commit { owner: claim.owner.clone() }) {
            Ok(changes) => {
                changes.notices.iter().for_each(report::notice_text);
                changes.isolation
            }
            Err(e) => {
                report::warning(name, &e);
                None
            }
        }
    }

    pub(super) fn route(&self, claim: &AgentClaim) {
        // The agent looks each second anyway.
        let _ = ask::<_, Value>(&self.socket, &AgentRequest::Route { owner: claim.owner.clone() }, AGAIN);
    }
}

impl AgentClaim {
    pub(super) fn owner(&self) -> &str {
        &self.owner
    }

    pub(super) const fn host(&self) -> &AgentHost {
        &self.host
    }

    pub(super) fn keep(mut self) {
        self.held = false;
    }
}

impl Drop for AgentClaim {
    fn drop(&mut self) {
        if self.held {
            // Once the process is dead, the entry is void all the same.
            let request = AgentRequest::Release { owner: self.owner.clone() };
            let _ = ask::<_, Value>(&self.host.socket, &request, ANSWERED_WITHIN);
        }
    }
}
