//! Device nodes that any number of containers open: `/dev/kvm` and what networks of guests need.
//!
//! Source: KubeVirt, `pkg/virt-handler/device-manager`: names, nodes, and 1000 devices of each.

use crate::catalogue::Listed;
use crate::{Allocation, AllocationError};

/// Devices of each, so that as many containers can have one. The kubelet knows no device that may be had without end.
const COUNT: usize = 1000;

/// A node that any number of containers open.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct SharedNode {
    /// The resource: `devices.kubevirt.io/kvm`.
    pub name: &'static str,
    /// The node, on the host and in the container.
    pub path: &'static str,
    /// Whether the host has it.
    pub is_there: bool,
}

impl SharedNode {
    /// Those that KubeVirt's launcher asks for, as if the host had none.
    #[must_use]
    pub const fn of_kubevirt() -> [Self; 3] {
        [
            Self { name: "devices.kubevirt.io/kvm", path: "/dev/kvm", is_there: false },
            Self { name: "devices.kubevirt.io/tun", path: "/dev/net/tun", is_there: false },
            Self { name: "devices.kubevirt.io/vhost-net", path: "/dev/vhost-net", is_there: false },
        ]
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
        if !self.is_there {
            return Err(AllocationError::NoNode { name: self.name.to_owned(), path: self.path });
        }
        Ok(Allocation { nodes: vec![self.path.into()], ..Allocation::default() })
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
        let [kvm, tun, _] = SharedNode::of_kubevirt();
        let there = SharedNode { is_there: true, ..kvm };
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
}
