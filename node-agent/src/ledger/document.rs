//! The ledger's document: its JSON, and the rules that any copy of it must keep.
//!
//! Pure data. A file is hostile until [`LedgerDocument::check`] has passed.

use std::collections::HashSet;

use jiff::Timestamp;
use pinion_machine::CpuSet;
use pinion_planner::{Holding, Occupancy};
use serde::{Deserialize, Serialize};

use super::holder::Holder;
use crate::pod::PodPlace;
use crate::settings::{HostChanges, HostWishes};

/// The version of this document.
pub(super) const API_VERSION: &str = "pinion.dev/v1alpha1";
/// The kind of this document.
pub(super) const KIND: &str = "Ledger";

/// Who holds what on this host.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct LedgerDocument {
    /// Always `pinion.dev/v1alpha1`.
    pub api_version: String,
    /// Always `Ledger`.
    pub kind: String,
    /// Counts every change.
    pub generation: u64,
    /// CPUs that are never dedicated.
    #[serde(default)]
    pub housekeeping: CpuSet,
    /// Who holds what, in the order it was taken.
    pub holdings: Vec<LedgerEntry>,
    /// What was changed of the host for them.
    #[serde(default, skip_serializing_if = "HostChanges::is_empty")]
    pub changes: HostChanges,
}

/// One guest's entry.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct LedgerEntry {
    /// What it holds.
    #[serde(flatten)]
    pub holding: Holding,
    /// What it wishes of the host.
    #[serde(default, skip_serializing_if = "HostWishes::is_empty")]
    pub host: HostWishes,
    /// The pod that its process is in, if it is in one.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub pod: Option<PodPlace>,
    /// The process it lives in; once that is dead the entry is void.
    pub process: Holder,
    /// When it was taken.
    pub since: Timestamp,
}

/// A rule that a ledger's text breaks.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub(super) enum Broken {
    #[error("It is {kind:?} of {api_version:?}, not {KIND:?} of {API_VERSION:?}")]
    Version { kind: String, api_version: String },
    #[error("It has two entries of {0:?}")]
    Twice(String),
    #[error("It gives CPUs {cpus} to both {first:?} and {second:?}")]
    Overlap { cpus: CpuSet, first: String, second: String },
    #[error("It gives process {pid} to {owner:?}")]
    Pid { pid: i32, owner: String },
}

impl Default for LedgerDocument {
    fn default() -> Self {
        Self {
            api_version: API_VERSION.into(),
            kind: KIND.into(),
            generation: 0,
            housekeeping: CpuSet::new(),
            holdings: Vec::new(),
            changes: HostChanges::default(),
        }
    }
}

impl LedgerDocument {
    /// What the planner needs of it.
    #[must_use]
    pub fn occupancy(&self) -> Occupancy {
        Occupancy {
            generation: self.generation,
            housekeeping: self.housekeeping.clone(),
            holdings: self.holdings.iter().map(|e| e.holding.clone()).collect(),
        }
    }

    /// Takes out the entries whose process is dead.
    pub(super) fn drop_void(&mut self) {
        self.holdings.retain(|entry| entry.process.is_alive());
    }

    /// Says which rule it breaks, if any.
    pub(super) fn check(&self) -> Result<(), Broken> {
        if self.api_version != API_VERSION || self.kind != KIND {
            return Err(Broken::Version { kind: self.kind.clone(), api_version: self.api_version.clone() });
        }
        let mut owners = HashSet::new();
        for (index, entry) in self.holdings.iter().enumerate() {
            let owner = &entry.holding.owner;
            if !owners.insert(owner) {
                return Err(Broken::Twice(owner.clone()));
            }
            if entry.process.pid <= 0 {
                return Err(Broken::Pid { pid: entry.process.pid, owner: owner.clone() });
            }
            for earlier in self.holdings.iter().take(index) {
                let cpus = earlier.holding.cpus.intersection(&entry.holding.cpus);
                if !cpus.is_empty() {
                    let first = earlier.holding.owner.clone();
                    return Err(Broken::Overlap { cpus, first, second: owner.clone() });
                }
            }
        }
        Ok(())
    }
}
