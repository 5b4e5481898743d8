//! What a container gets with the units that it was given: device nodes, the addresses by name, and folders.
//!
//! Source: KubeVirt's launcher, which looks for the addresses of its devices in `PCI_RESOURCE_…`; the kernel's
//! `Documentation/driver-api/vfio.rst` for the nodes.

use std::collections::BTreeMap;
use std::path::PathBuf;

use pinion_machine::Bdf;

use crate::cdi::cdi_name;
use crate::{Health, Unit, UnitId};

/// The node by which all VFIO groups are opened.
pub(crate) const CONTAINER: &str = "/dev/vfio/vfio";

/// Functions that have a node of their own (`/dev/vfio/devices/vfioN`, kernels with `CONFIG_VFIO_DEVICE_CDEV`).
pub type VfioNodes = BTreeMap<Bdf, PathBuf>;

/// What comes with some units.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Allocation {
    /// Variables of the container's environment.
    pub environment: BTreeMap<String, String>,
    /// Device nodes, each at the same path inside; read and written.
    pub nodes: Vec<PathBuf>,
    /// The same devices by their names in the CDI document ([`crate::cdi_document`]); none for nodes that are shared.
    pub cdi_names: Vec<String>,
    /// Folders of the host that it sees.
    pub mounts: Vec<FolderMount>,
}

/// A folder of the host that a container sees, and cannot write to.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct FolderMount {
    /// On the host.
    pub host: PathBuf,
    /// In the container.
    pub inside: PathBuf,
}

/// Why units cannot be given.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum AllocationError {
    /// There is no such unit.
    #[error("{name} has no device {id}")]
    Unknown {
        /// The resource.
        name: String,
        /// What was asked for.
        id: String,
    },
    /// It cannot be given now.
    #[error("Device {id} of {name} cannot be given: {}", causes(.health))]
    Unhealthy {
        /// The resource.
        name: String,
        /// The unit.
        id: UnitId,
        /// Why not.
        health: Health,
    },
    /// The host lacks what it stands for.
    #[error("{name} cannot be given: this host has no {path}")]
    NoNode {
        /// The resource.
        name: String,
        /// The node.
        path: &'static str,
    },
    /// No agent has made its folder.
    #[error("{name} cannot be given: this host has no {path}; start the node agent (`pinion agent`)")]
    NoAgent {
        /// The resource.
        name: String,
        /// The folder.
        path: &'static str,
    },
}

fn causes(health: &Health) -> String {
    let causes: Vec<String> = health.causes().iter().map(ToString::to_string).collect();
    causes.join("; ")
}

/// What a container gets that was given these units of a resource, in the order in which it was given them.
///
/// # Errors
/// [`AllocationError`] for the first unit that there is not, or that cannot be given.
pub fn allocation<'a>(
    name: &str,
    units: &[Unit],
    given: impl IntoIterator<Item = &'a str>,
    own_nodes: &VfioNodes,
) -> Result<Allocation, AllocationError> {
    let mut addresses: Vec<String> = Vec::new();
    let mut nodes = vec![PathBuf::from(CONTAINER)];
    let mut cdi_names = Vec::new();
    for id in given {
        let unknown = || AllocationError::Unknown { name: name.to_owned(), id: id.to_owned() };
        let unit = units.iter().find(|u| u.id.to_string() == id).ok_or_else(unknown)?;
        if !unit.health.is_healthy() {
            let health = unit.health.clone();
            return Err(AllocationError::Unhealthy { name: name.to_owned(), id: unit.id, health });
        }
        match unit.id {
            UnitId::Function(_) => addresses.extend(unit.functions.iter().map(ToString::to_string)),
            UnitId::Mediated(id) => addresses.push(id.to_string()),
        }
        nodes.extend(nodes_of(unit, own_nodes));
        cdi_names.push(cdi_name(unit.id));
    }
    let environment = BTreeMap::from([(environment_name(name, units), addresses.join(","))]);
    Ok(Allocation { environment, nodes, cdi_names, mounts: Vec::new() })
}

/// The nodes of a unit alone: its group's, and those of its functions where the kernel has them.
pub(crate) fn nodes_of(unit: &Unit, own_nodes: &VfioNodes) -> Vec<PathBuf> {
    let group = unit.group.iter().map(|group| PathBuf::from(format!("/dev/vfio/{group}")));
    group.chain(unit.functions.iter().filter_map(|f| own_nodes.get(f).cloned())).collect()
}

/// The variable that says which of its units a container has of a resource: in capitals, with `_` for `/` and `.`; a dash
/// stays. Mediated devices have one of their own.
#[must_use]
pub fn environment_name(resource: &str, units: &[Unit]) -> String {
    let is_mediated = units.iter().any(|unit| matches!(unit.id, UnitId::Mediated(_)));
    let prefix = if is_mediated { "MDEV_PCI_RESOURCE" } else { "PCI_RESOURCE" };
    format!("{prefix}_{}", resource.to_uppercase().replace(['/', '.'], "_"))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::Cause;

    fn unit(addresses: &[&str], group: u32) -> Unit {
        let functions: Vec<Bdf> = addresses.iter().map(|a| a.parse().unwrap()).collect();
        Unit {
            id: UnitId::Function(functions[0]),
            functions,
            parent: None,
            group: Some(group),
            nodes: vec![],
            health: Health::Healthy,
        }
    }

    #[test]
    fn a_container_gets_the_nodes_of_its_groups_and_the_addresses_in_order() {
        let units = [unit(&["31:00.0", "31:00.1"], 10), unit(&["32:00.0"], 20)];
        let own = VfioNodes::from([("31:00.0".parse().unwrap(), PathBuf::from("/dev/vfio/devices/vfio3"))]);
        let given = ["0000:32:00.0", "0000:31:00.0"];
        let allocation = allocation("example.com/gpu-a.b", &units, given, &own).unwrap();
        let nodes = ["/dev/vfio/vfio", "/dev/vfio/20", "/dev/vfio/10", "/dev/vfio/devices/vfio3"];
        assert_eq!(allocation.nodes, nodes.map(PathBuf::from));
        assert_eq!(allocation.cdi_names, ["pinion.dev/vfio=0000:32:00.0", "pinion.dev/vfio=0000:31:00.0"]);
        let addresses = "0000:32:00.0,0000:31:00.0,0000:31:00.1".to_owned();
        let name = "PCI_RESOURCE_EXAMPLE_COM_GPU-A_B".to_owned();
        assert_eq!(allocation.environment, BTreeMap::from([(name, addresses)]));
    }

    #[test]
    fn a_container_with_a_mediated_device_gets_its_group_and_its_name() {
        let id = "83c12a25-5f5e-4d4c-9d15-b2a5e7e7a2c1";
        let mediated = Unit {
            id: id.parse().unwrap(),
            functions: vec![],
            parent: Some("31:00.0".parse().unwrap()),
            ..unit(&["31:00.0"], 77)
        };
        let allocation = allocation("nvidia.com/GRID_T4-1B", &[mediated], [id], &VfioNodes::new()).unwrap();
        assert_eq!(allocation.nodes, ["/dev/vfio/vfio", "/dev/vfio/77"].map(PathBuf::from));
        let name = "MDEV_PCI_RESOURCE_NVIDIA_COM_GRID_T4-1B".to_owned();
        assert_eq!(allocation.environment, BTreeMap::from([(name, id.to_owned())]));
        assert_eq!(allocation.cdi_names, [format!("pinion.dev/vfio={id}")]);
    }

    #[test]
    fn what_is_not_there_or_cannot_be_given_is_refused() {
        let gone = Health::Unhealthy(vec![Cause::Gone("0000:31:00.0".parse().unwrap())]);
        let units = [Unit { health: gone, ..unit(&["31:00.0"], 10) }];
        let refused = |id| allocation("a.b/c", &units, [id], &VfioNodes::new()).unwrap_err().to_string();
        assert_eq!(
            refused("0000:31:00.0"),
            "Device 0000:31:00.0 of a.b/c cannot be given: 0000:31:00.0 is gone from the machine"
        );
        assert_eq!(refused("7"), "a.b/c has no device 7");
    }
}
