//! The hardware model: what a machine is made of, as the planner sees it.
//!
//! Owns the vocabulary (`CpuId`, `NodeId`, `Bdf`, `PageSize`, `CpuSet`) and the
//! plain data of [`Machine`]. It does no I/O: discovery fills it in, the planner
//! and the map read it. What may be passed through at all follows from these facts, and is
//! told here as well. It must never contain a placement decision.

#![forbid(unsafe_code)]

mod assignable;
mod cpu_set;
mod id;
mod machine;
mod outline;
mod pci;
mod size;

pub use assignable::{Binding, Obstacle, PASS_THROUGH_DRIVER, binding, group, is_bridge, obstacles};
pub use cpu_set::{CpuListError, CpuSet};
pub use id::{CoreId, CpuId, DieId, L3Id, NodeId, PackageId};
pub use machine::{
    Core, Cpu, Distances, HugePagePool, KernelFacts, L3Domain, Machine, Node, Package, Power, Source,
};
pub use outline::{Outline, OutlineDevice, OutlineDomain, OutlineError, OutlineNode};
pub use pci::{
    Bdf, BdfError, HostUse, MediatedDevice, MediatedId, MediatedIdError, PciBar, PciBarKind, PciFunction,
    PciLink, Sriov, Subsystem,
};
pub use size::{PageSize, PageSizeError};
