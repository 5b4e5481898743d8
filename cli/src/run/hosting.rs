//! The host that guests run on: who keeps its ledger and its settings.
//!
//! Where a node agent runs, it does, and is asked over its socket; otherwise this command does both itself, under the
//! ledger's lock. Whichever it is, the ledger's file is the same.

mod agent;
mod claim;
mod local;

use std::path::Path;
use std::time::Duration;

use pinion_machine::{Bdf, Machine};
use pinion_node_agent::{HostWishes, Isolation, Ledger, PagesWish};
use pinion_planner::{Holding, Occupancy, Placement, Refusal};

use crate::failure::Failure;
use agent::AgentHost;
pub(crate) use claim::Claim;
use local::LocalHost;

/// Who keeps the host.
pub(crate) enum Hosting {
    /// This command.
    Local(Box<LocalHost>),
    /// The node's agent.
    Agent(AgentHost),
}

/// What stands in the way of a reservation.
#[derive(Debug, thiserror::Error)]
pub(crate) enum Unplaced {
    #[error(transparent)]
    Refused(Box<Refusal>),
    #[error("{0:?}")]
    Failed(Failure),
}

/// What a plan gives.
pub(crate) type Planned = Result<(Holding, Placement), Unplaced>;

impl Hosting {
    /// Whoever keeps a ledger.
    pub(crate) fn at(ledger: &Path) -> Self {
        let ledger = Ledger::at(ledger);
        match AgentHost::find(&ledger) {
            Some(agent) => Self::Agent(agent),
            None => Self::Local(Box::new(LocalHost::new(&ledger))),
        }
    }

    /// Whether a node agent keeps the host.
    pub(crate) const fn is_agent(&self) -> bool {
        matches!(self, Self::Agent(_))
    }

    /// Makes everything as the guests that are there need it.
    ///
    /// # Errors
    /// When the ledger cannot be read or changed.
    pub(crate) fn settle(&mut self) -> Result<(), Failure> {
        match self {
            Self::Local(host) => host.settle(),
            // It always is.
            Self::Agent(_) => Ok(()),
        }
    }

    /// Plans and reserves, so that nobody comes between.
    ///
    /// # Errors
    /// What the plan says, or why nothing could be reserved.
    pub(crate) fn reserve(
        &self,
        plan: impl Fn(&Occupancy) -> Planned,
    ) -> Result<(Claim, Placement), Unplaced> {
        match self {
            Self::Local(host) => host.reserve(plan),
            Self::Agent(host) => host.reserve(plan),
        }
    }

    /// Binds the devices of a guest that has its place, and says what it wishes of the host.
    ///
    /// # Errors
    /// [`Failure::Invalid`] where a device must not be bound.
    pub(crate) fn prepare(
        &mut self,
        machine: &Machine,
        placement: &Placement,
        claim: &mut Claim,
        wishes: HostWishes,
    ) -> Result<(), Failure> {
        let devices: Vec<Bdf> = placement.devices.iter().map(|d| d.address).collect();
        match (self, claim) {
            (Self::Local(host), Claim::Local(reservation)) => {
                host.prepare(machine, reservation, wishes, &devices)
            }
            (Self::Agent(host), Claim::Agent(claim)) => host.prepare(claim, wishes, !devices.is_empty()),
            // A claim is of the host that gave it.
            _ => Ok(()),
        }
    }

    /// The guest's threads are on their CPUs: now nobody else may run there.
    pub(crate) fn isolate(&mut self, name: &str, pid: i32, claim: &mut Claim) -> Option<Isolation> {
        match (self, claim) {
            (Self::Local(host), Claim::Local(reservation)) => host.isolate(name, pid, reservation),
            (Self::Agent(host), Claim::Agent(claim)) => host.commit(name, claim),
            _ => None,
        }
    }

    /// How long to wait before [`Hosting::tend`]; `None` where nothing needs it.
    pub(crate) fn pause(&self) -> Option<Duration> {
        match self {
            Self::Local(host) => host.pause(),
            Self::Agent(_) => None,
        }
    }

    /// Looks after the settings while guests run.
    pub(crate) fn tend(&mut self) {
        if let Self::Local(host) = self {
            host.tend();
        }
    }

    /// A guest has set up vectors anew.
    pub(crate) fn route(&mut self, claim: &Claim) {
        match (self, claim) {
            (Self::Local(host), _) => host.route(),
            (Self::Agent(host), Claim::Agent(claim)) => host.route(claim),
            (Self::Agent(_), Claim::Local(_)) => {}
        }
    }

    /// A guest has ended.
    pub(crate) fn let_go(&mut self) {
        if let Self::Local(host) = self {
            host.let_go();
        }
    }
}

/// What a guest wishes of the host.
pub(crate) fn wishes(placement: &Placement, quiet: bool, pages: &[PagesWish]) -> HostWishes {
    let wishes = if quiet { HostWishes::of(placement) } else { HostWishes::default() };
    HostWishes { huge_pages: pages.to_vec(), ..wishes }
}

/// What is told of a guest's CPUs, in words.
pub(crate) const fn meaning(isolation: Isolation) -> &'static str {
    match isolation {
        Isolation::Isolated => "nothing else runs on its CPUs, and the scheduler moves nothing there",
        Isolation::Exclusive => "nothing else runs on its CPUs",
        Isolation::Pinned => "its threads stay on its CPUs, but other tasks may run there",
    }
}
