//! What a guest holds, for as long as `pinion run` keeps it.

use pinion_node_agent::{AgentRequest, LedgerError, Reservation};

use super::agent::AgentClaim;
use crate::failure::Failure;

/// What a guest holds.
#[derive(Debug)]
pub(crate) enum Claim {
    /// An entry that this command writes.
    Local(Reservation),
    /// An entry that the agent writes.
    Agent(AgentClaim),
}

impl Claim {
    /// Hands it to the process that the guest lives in.
    ///
    /// # Errors
    /// Where that cannot be written.
    pub(crate) fn transfer(&mut self, pid: i32) -> Result<(), Failure> {
        match self {
            Self::Local(reservation) => reservation.transfer(pid).map_err(Failure::failed),
            Self::Agent(claim) => {
                let owner = claim.owner().to_owned();
                claim.host().ask(&AgentRequest::Transfer { owner, pid }).map(|_| ()).map_err(Failure::failed)
            }
        }
    }

    /// Leaves it to the process that the guest lives in.
    pub(crate) fn keep(self) {
        match self {
            Self::Local(reservation) => reservation.keep(),
            Self::Agent(claim) => claim.keep(),
        }
    }

    /// Gives it back; the guest's process must be gone.
    ///
    /// # Errors
    /// Where that cannot be written; it is void all the same.
    pub(crate) fn release(self) -> Result<(), LedgerError> {
        match self {
            Self::Local(reservation) => reservation.release(),
            // Dropping it does so.
            Self::Agent(claim) => {
                drop::<AgentClaim>(claim);
                Ok(())
            }
        }
    }
}
