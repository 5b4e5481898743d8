//! What an API server may store of `kubevirt.io/v1`: the rules of `pinion-api`, put to each change of an object.
//!
//! Called by the webhook's server, on whatever thread it likes. Pure: no I/O, no clock. What is allowed here can still be
//! refused for want of room; that is the controller's to say, in a condition. An object that is stored already may always be
//! changed in everything but what it asks for: a newer version with stricter rules must not stand in the way of a status, or
//! of an end.

#![forbid(unsafe_code)]

mod cause;
mod complete;
mod verdict;

use pinion_api::{Place, parse_at};
use serde_json::Value;

pub use cause::{Cause, CauseKind};
pub use complete::{POD_INTERFACE, complete};
pub use verdict::Verdict;

/// The kinds that are looked at.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Kind {
    /// `VirtualMachine`.
    Machine,
    /// `VirtualMachineInstance`.
    Instance,
    /// `VirtualMachineInstanceReplicaSet`.
    ReplicaSet,
}

/// A change of an object.
#[derive(Clone, Copy, Debug)]
pub struct Change<'a> {
    /// Of what kind it is.
    pub kind: Kind,
    /// What it would be.
    pub object: &'a Value,
    /// What it was; `None` for a new one.
    pub old: Option<&'a Value>,
}

impl Kind {
    /// All of them.
    pub const ALL: [Self; 3] = [Self::Machine, Self::Instance, Self::ReplicaSet];

    /// As objects say it.
    #[must_use]
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Machine => "VirtualMachine",
            Self::Instance => "VirtualMachineInstance",
            Self::ReplicaSet => "VirtualMachineInstanceReplicaSet",
        }
    }

    /// The kind of that name.
    #[must_use]
    pub fn of(name: &str) -> Option<Self> {
        Self::ALL.into_iter().find(|kind| kind.as_str() == name)
    }
}

/// Whether a change may be stored.
///
/// 1. Whoever leaves `spec` as it was may store it.
/// 2. What must not change after an object was made is told, and nothing else: the rest would be about a spec that nobody
///    wants.
/// 3. Everything that is wrong with it is told at once.
#[must_use]
pub fn validate(change: Change<'_>) -> Verdict {
    if let Some(old) = change.old {
        if old.get("spec") == change.object.get("spec") {
            return Verdict::Allowed;
        }
        let fixed = cause::fixed(change.kind, old, change.object);
        if !fixed.is_empty() {
            return Verdict::Refused(fixed);
        }
    }
    match parse_at(Place::Cluster, change.object.to_string()) {
        Ok(_) => Verdict::Allowed,
        Err(problems) => Verdict::Refused(problems.iter().map(Cause::of).collect()),
    }
}

#[cfg(test)]
mod tests;
