//! Whether a unit can be given to a guest, and why not.
//!
//! Asked whenever the machine has changed. The reason codes are labels of metrics and do not change between versions.

use std::fmt;

use pinion_machine::{Bdf, Binding, Machine, MediatedId, Obstacle, binding, obstacles};

use crate::UnitId;

/// Whether a unit can be given.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Health {
    /// It can.
    Healthy,
    /// It cannot, for at least one cause.
    Unhealthy(Vec<Cause>),
}

/// Why a unit cannot be given.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum Cause {
    /// Something stands in the way of passing it through.
    #[error("{0}")]
    Obstacle(Obstacle),
    /// A driver of the host has a function of its group.
    #[error("{address} is bound to {driver}, not to vfio-pci")]
    Unbound {
        /// The function.
        address: Bdf,
        /// The driver that has it, in words.
        driver: String,
    },
    /// It was there, and is no more.
    #[error("{0} is gone from the machine")]
    Gone(UnitId),
    /// A mediated device that nobody could open.
    #[error("{0} has no IOMMU group: no driver has it")]
    NoGroup(MediatedId),
    /// The kernel recovers it from an error, or could not.
    #[error("{0} has reported an error that the kernel has not recovered it from")]
    Recovering(Bdf),
    /// It has reported a fatal error, from which the kernel has recovered it.
    #[error("{0} has reported a fatal error")]
    FatalError(Bdf),
    /// Its configuration space reads as ones.
    #[error("{0} does not answer: its link is down, or it has lost power")]
    NoAnswer(Bdf),
}

impl Cause {
    /// A stable name: the label of metrics.
    #[must_use]
    pub const fn reason(&self) -> &'static str {
        match self {
            Self::Obstacle(obstacle) => obstacle.reason(),
            Self::Unbound { .. } => "Unbound",
            Self::Gone(_) => "Gone",
            Self::NoGroup(_) => "NoGroup",
            Self::Recovering(_) => "Recovering",
            Self::FatalError(_) => "FatalError",
            Self::NoAnswer(_) => "NoAnswer",
        }
    }

    /// What to do about it.
    #[must_use]
    pub fn remedy(&self) -> String {
        match self {
            Self::Obstacle(obstacle) => obstacle.remedy(),
            Self::Unbound { address, .. } => format!("`sudo pinion devices bind {address}`"),
            Self::Gone(_) => {
                "put the device back, or look in the kernel's log for why it left the bus".to_owned()
            }
            Self::NoGroup(_) => {
                "load its driver: `modprobe vfio_mdev` before Linux 5.16, that of the vendor since".to_owned()
            }
            Self::Recovering(address) => {
                format!(
                    "the kernel's log says more under AER; replace the device, or take {address} out and rescan the bus"
                )
            }
            Self::FatalError(address) => format!(
                "the kernel's log says more under AER; if the device is to be trusted, `sudo pinion devices unbind {address}` \
                 and bind it again"
            ),
            Self::NoAnswer(_) => "look at its slot and its power, and at the kernel's log".to_owned(),
        }
    }
}

impl Health {
    /// Of functions that are given together.
    #[must_use]
    pub(crate) fn of(machine: &Machine, functions: &[Bdf]) -> Self {
        let mut causes: Vec<Cause> = Vec::new();
        for address in functions {
            causes.extend(obstacles(machine, *address).into_iter().map(Cause::Obstacle));
        }
        let unbound = functions.iter().flat_map(|address| match binding(machine, *address) {
            Binding::Ready => Vec::new(),
            Binding::Unbound { members } => members,
        });
        causes.extend(unbound.map(|(address, driver)| Cause::Unbound {
            address,
            driver: driver.unwrap_or_else(|| "no driver".to_owned()),
        }));
        let mut told: Vec<Cause> = Vec::new();
        for cause in causes {
            if !told.contains(&cause) {
                told.push(cause);
            }
        }
        if told.is_empty() { Self::Healthy } else { Self::Unhealthy(told) }
    }

    /// It with more causes.
    #[must_use]
    pub(crate) fn and(self, more: Vec<Cause>) -> Self {
        match self {
            _ if more.is_empty() => self,
            Self::Healthy => Self::Unhealthy(more),
            Self::Unhealthy(mut causes) => {
                causes.extend(more);
                Self::Unhealthy(causes)
            }
        }
    }

    /// Whether it can be given.
    #[must_use]
    pub const fn is_healthy(&self) -> bool {
        matches!(self, Self::Healthy)
    }

    /// Why not; empty where it can be.
    #[must_use]
    pub fn causes(&self) -> &[Cause] {
        match self {
            Self::Healthy => &[],
            Self::Unhealthy(causes) => causes,
        }
    }
}

impl fmt::Display for Health {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(if self.is_healthy() { "Healthy" } else { "Unhealthy" })
    }
}
