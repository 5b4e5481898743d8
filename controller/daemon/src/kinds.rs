//! The kinds of objects that are read and written, as the API server addresses them.

use kube::api::DynamicObject;
use kube::core::{ApiResource, GroupVersionKind};
use kube::{Api, Client};

/// A kind.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub(crate) enum Kind {
    /// `VirtualMachine`.
    Machine,
    /// `VirtualMachineInstance`.
    Instance,
    /// `VirtualMachineInstanceReplicaSet`.
    ReplicaSet,
    /// `Pod`.
    Pod,
    /// `Node`.
    Node,
    /// `NodeLedger`.
    Ledger,
    /// `PersistentVolumeClaim`.
    Claim,
    /// `Lease`.
    Lease,
    /// `CustomResourceDefinition`.
    Definition,
}

impl Kind {
    /// Those that are watched.
    pub(crate) const WATCHED: [Self; 6] =
        [Self::Machine, Self::Instance, Self::ReplicaSet, Self::Pod, Self::Node, Self::Ledger];

    const fn parts(self) -> (&'static str, &'static str, &'static str, &'static str) {
        match self {
            Self::Machine => ("kubevirt.io", "v1", "VirtualMachine", "virtualmachines"),
            Self::Instance => ("kubevirt.io", "v1", "VirtualMachineInstance", "virtualmachineinstances"),
            Self::ReplicaSet => {
                ("kubevirt.io", "v1", "VirtualMachineInstanceReplicaSet", "virtualmachineinstancereplicasets")
            }
            Self::Pod => ("", "v1", "Pod", "pods"),
            Self::Node => ("", "v1", "Node", "nodes"),
            Self::Ledger => ("pinion.dev", "v1alpha1", "NodeLedger", "nodeledgers"),
            Self::Claim => ("", "v1", "PersistentVolumeClaim", "persistentvolumeclaims"),
            Self::Lease => ("coordination.k8s.io", "v1", "Lease", "leases"),
            Self::Definition => {
                ("apiextensions.k8s.io", "v1", "CustomResourceDefinition", "customresourcedefinitions")
            }
        }
    }

    /// As addresses and metrics have it.
    #[must_use]
    pub(crate) const fn plural(self) -> &'static str {
        self.parts().3
    }

    /// As objects have it.
    #[must_use]
    pub(crate) const fn name(self) -> &'static str {
        self.parts().2
    }

    /// As events refer to it.
    #[must_use]
    pub(crate) fn version(self) -> String {
        let (group, version, ..) = self.parts();
        if group.is_empty() { version.to_owned() } else { format!("{group}/{version}") }
    }

    fn resource(self) -> ApiResource {
        let (group, version, kind, plural) = self.parts();
        ApiResource::from_gvk_with_plural(&GroupVersionKind::gvk(group, version, kind), plural)
    }

    /// All of them, wherever they are.
    #[must_use]
    pub(crate) fn all(self, client: &Client) -> Api<DynamicObject> {
        Api::all_with(client.clone(), &self.resource())
    }

    /// Those of a namespace; of the cluster where it is empty.
    #[must_use]
    pub(crate) fn of(self, client: &Client, namespace: &str) -> Api<DynamicObject> {
        match namespace {
            "" => self.all(client),
            namespace => Api::namespaced_with(client.clone(), namespace, &self.resource()),
        }
    }
}
