//! What any number of containers may have: `/dev/kvm`, what networks of guests need, and the way to the node's agent.
//!
//! A user's pod must not name a folder of its host (`hostPath`), and a guest's launcher asks the agent for its place: so the folder
//! with the agent's socket is a resource like the others. The folder, not the socket: an agent that is started anew makes another.
//!
//! Source: KubeVirt, `pkg/virt-handler/device-manager`: names, nodes, and 1000 devices of each.

use crate::catalogue::Listed;
use crate::{Allocation, AllocationError, FolderMount};

/// Devices of each, so that as many containers can have one. The kubelet knows no device that may be had without end.
const COUNT: usize = 1000;

/// Something of the host's that any number of containers may have.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Shared {
    /// The resource: `devices.kubevirt.io/kvm`.
    pub name: &'static str,
    /// Where the host has it.
    pub path: &'static str,
    /// What it is.
    pub kind: SharedKind,
    /// Whether the host has it.
    pub is_there: bool,
}

/// What containers get.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum SharedKind {
    /// A device node, at the same path inside.
    Node,
    /// A folder that they cannot write to.
    Folder {
        /// Where they see it.
        inside: &'static str,
    },
}

impl Shared {
    /// Those that KubeVirt's launcher asks for, as if the host had none.
    #[must_use]
    pub const fn of_kubevirt() -> [Self; 3] {
        const fn node(name: &'static str, path: &'static str) -> Shared {
            Shared { name, path, kind: SharedKind::Node, is_there: false }
        }
        [
            node("devices.kubevirt.io/kvm", "/dev/kvm"),
            node("devices.kubevirt.io/tun", "/dev/net/tun"),
            node("devices.kubevirt.io/vhost-net", "/dev/vhost-net"),
        ]
    }

    /// The folder where the node's agent listens for pods, as if there were none.
    #[must_use]
    pub const fn agent() -> Self {
        let kind = SharedKind::Folder { inside: "/run/pinion/agent" };
        Self { name: "pinion.dev/agent", path: "/run/pinion/pods", kind, is_there: false }
    }

    /// All devices that stand for it.
    pub(crate) fn list(&self) -> Vec<Listed> {
        let listed = |number| Listed { id: self.id(number), healthy: self.is_there, nodes: Vec::new() };
        (0..COUNT).map(listed).collect()
    }

    /// What a container gets that was given some of them.
    pub(crate) fn allocate<'a>(
        &self,
        given: impl IntoIterator<Item = &'a str>,
    ) -> Result<Allocation, AllocationError> {
        let of_this = |id: &str| (0..COUNT).any(|number| self.id(number) == id);
        for id in given {
            if !of_this(id) {
                return Err(AllocationError::Unknown { name: self.name.to_owned(), id: id.to_owned() });
            }
        }
        let (name, path) = (self.name.to_owned(), self.path);
        match self.kind {
            SharedKind::Node if !self.is_there => Err(AllocationError::NoNode { name, path }),
            SharedKind::Folder { .. } if !self.is_there => Err(AllocationError::NoAgent { name, path }),
            SharedKind::Node => Ok(Allocation { nodes: vec![path.into()], ..Allocation::default() }),
            SharedKind::Folder { inside } => {
                let mount = FolderMount { host: path.into(), inside: inside.into() };
                Ok(Allocation { mounts: vec![mount], ..Allocation::default() })
            }
        }
    }

    fn id(&self, number: usize) -> String {
        let (_, short) = self.name.rsplit_once('/').unwrap_or(("", self.name));
        format!("{short}{number}")
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_node_is_given_where_it_is_there_and_under_its_own_ids() {
        let [kvm, tun, _] = Shared::of_kubevirt();
        let there = Shared { is_there: true, ..kvm };
        assert_eq!(there.allocate(["kvm0", "kvm999"]).unwrap().nodes, [std::path::PathBuf::from("/dev/kvm")]);
        assert!(there.allocate(["kvm0"]).unwrap().environment.is_empty());
        assert_eq!(
            there.allocate(["kvm1000"]).unwrap_err().to_string(),
            "devices.kubevirt.io/kvm has no device kvm1000"
        );
        let absent = tun.allocate(["tun0"]).unwrap_err().to_string();
        assert_eq!(absent, "devices.kubevirt.io/tun cannot be given: this host has no /dev/net/tun");
        assert!(tun.list().iter().all(|listed| !listed.healthy));
    }

    #[test]
    fn the_way_to_the_agent_is_a_folder_once_and_no_node() {
        let there = Shared { is_there: true, ..Shared::agent() };
        let mount = FolderMount { host: "/run/pinion/pods".into(), inside: "/run/pinion/agent".into() };
        let expected = Allocation { mounts: vec![mount], ..Allocation::default() };
        assert_eq!(there.allocate(["agent0", "agent999"]), Ok(expected));
        assert!(there.allocate(["kvm0"]).is_err());
        assert!(there.list().len() == 1000 && there.list().iter().all(|listed| listed.healthy));
        let absent = Shared::agent().allocate(["agent0"]).unwrap_err().to_string();
        assert!(absent.contains("/run/pinion/pods") && absent.contains("start the node agent"), "{absent}");
    }
}
