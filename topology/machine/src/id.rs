//! Typed ids. All are the operating system's own numbers, which may be sparse.

use std::fmt;

use serde::{Deserialize, Serialize};

macro_rules! id {
    ($(#[$doc:meta])* $name:ident) => {
        $(#[$doc])*
        #[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
        #[serde(transparent)]
        pub struct $name(pub u32);

        impl fmt::Display for $name {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                self.0.fmt(f)
            }
        }
    };
}

id!(
    /// A hardware thread, by OS index (`/sys/devices/system/cpu/cpuN`).
    CpuId
);
id!(
    /// A NUMA node, by OS index (`/sys/devices/system/node/nodeN`).
    NodeId
);
id!(
    /// A physical core, numbered by the lowest CPU on it, so that it is unique in the machine.
    CoreId
);
id!(
    /// A last-level (L3) cache domain, numbered by the lowest CPU that shares it.
    L3Id
);
id!(
    /// A package (socket), by OS index (`topology/physical_package_id`).
    PackageId
);
id!(
    /// A die inside a package, by OS index (`topology/die_id`).
    DieId
);
