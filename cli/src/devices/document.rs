//! The list of devices, as `-o json` prints it and the tables are drawn from.
//!
//! Its field names are a promise to programs: they are added to, never renamed.

use pinion_machine::{Bdf, Binding, Machine, Obstacle, PciFunction};
use serde::Serialize;

/// All functions that are no bridges, by address.
#[derive(Debug, Serialize)]
#[serde(rename_all = "camelCase")]
pub(super) struct DeviceList<'a> {
    #[serde(skip_serializing_if = "Option::is_none")]
    iommu: Option<bool>,
    #[serde(skip_serializing_if = "Option::is_none")]
    interrupt_remapping: Option<bool>,
    pub(super) items: Vec<Device<'a>>,
}

/// A function, and what can be done with it.
#[derive(Debug, Serialize)]
#[serde(rename_all = "camelCase")]
pub(super) struct Device<'a> {
    #[serde(flatten)]
    pub(super) function: &'a PciFunction,
    /// What has to be given away together with it, itself included.
    pub(super) group_members: Vec<Bdf>,
    assignable: bool,
    binding: BindingState,
    #[serde(serialize_with = "told")]
    pub(super) obstacles: Vec<Obstacle>,
}

/// Whether the group is bound to the pass-through driver.
#[derive(Debug, Serialize)]
#[serde(rename_all = "camelCase", tag = "state")]
enum BindingState {
    Ready,
    Unbound { members: Vec<Unbound> },
}

/// A function that still has to be bound.
#[derive(Debug, Serialize)]
#[serde(rename_all = "camelCase")]
struct Unbound {
    address: Bdf,
    #[serde(skip_serializing_if = "Option::is_none")]
    driver: Option<String>,
}

/// What is wrong, for programs.
#[derive(Debug, Serialize)]
#[serde(rename_all = "camelCase")]
pub(super) struct Told {
    pub(super) reason: &'static str,
    pub(super) message: String,
    pub(super) remedy: String,
}

fn told<S: serde::Serializer>(obstacles: &[Obstacle], serializer: S) -> Result<S::Ok, S::Error> {
    serializer.collect_seq(obstacles.iter().map(|o| Told {
        reason: o.reason(),
        message: o.to_string(),
        remedy: o.remedy(),
    }))
}

impl<'a> DeviceList<'a> {
    /// The devices of a machine.
    pub(super) fn of(machine: &'a Machine) -> Self {
        let functions = machine.pci.iter().filter(|f| !pinion_machine::is_bridge(f));
        Self {
            iommu: machine.kernel.iommu,
            interrupt_remapping: machine.kernel.interrupt_remapping,
            items: functions.map(|f| Device::of(machine, f)).collect(),
        }
    }
}

impl<'a> Device<'a> {
    fn of(machine: &Machine, function: &'a PciFunction) -> Self {
        let address = function.address;
        let obstacles = pinion_machine::obstacles(machine, address);
        let binding = match pinion_machine::binding(machine, address) {
            Binding::Ready => BindingState::Ready,
            Binding::Unbound { members } => BindingState::Unbound {
                members: members.into_iter().map(|(address, driver)| Unbound { address, driver }).collect(),
            },
        };
        let group_members = pinion_machine::group(machine, address);
        Self { function, group_members, assignable: obstacles.is_empty(), binding, obstacles }
    }

    /// One word for where it stands.
    pub(super) fn state(&self) -> &'static str {
        match self.binding {
            BindingState::Ready if self.assignable => "ready",
            BindingState::Unbound { .. } if self.assignable => "free",
            _ if self.obstacles.iter().all(Obstacle::is_use) => "in use",
            _ => "blocked",
        }
    }
}
