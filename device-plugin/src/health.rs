//! Whether a unit can be given to a guest, and why not.
//!
//! Asked whenever the machine has changed. The reason codes are labels of metrics and do not change between versions.

use std::fmt;

use pinion_machine::{Bdf, Binding, Machine, Obstacle, binding, obstacles};

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
    Gone(Bdf),
}

impl Cause {
    /// A stable name: the label of metrics.
    #[must_use]
    pub const fn reason(&self) -> &'static str {
        match self {
            Self::Obstacle(obstacle) => obstacle.reason(),
            Self::Unbound { .. } => "Unbound",
            Self::Gone(_) => "Gone",
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
