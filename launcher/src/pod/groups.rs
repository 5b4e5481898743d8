//! The control groups of a guest's threads, which the node's agent keeps: a launcher in a pod may not change any.
//!
//! Called by the session's thread while it puts threads back.

use std::io;

use super::agent::PodAgent;
use crate::backend::ThreadGroups;

/// Those of one guest.
#[derive(Clone, Debug)]
pub(super) struct KeptGroups {
    pub(super) agent: PodAgent,
    /// `namespace/name` of the guest.
    pub(super) owner: String,
}

impl ThreadGroups for KeptGroups {
    fn sort(&self) -> io::Result<()> {
        self.agent.sort(&self.owner).map_err(io::Error::other)
    }
}
