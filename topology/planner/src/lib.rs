//! The planner: `plan(&Machine, &Occupancy, &Request) -> Result<Placement, Refusal>`.
//!
//! Pure: no I/O, no clock, no randomness; the same inputs give the same bytes.
//! Called by the command line, the node agent and the controller, on whatever thread they
//! like. Nothing else in the tree decides placement.
//!
//! How a plan is made, module by module: `demand` is the request in guest cores and pages;
//! `stock` counts what is free, once; `search` tries sharing levels and numbers of nodes,
//! `sets` chooses several nodes, `cells` splits the guest cores over them, `memory` the
//! pages, `domains` chooses L3 domains on a node, `devices` and `io_threads` theirs;
//! `score` is the order in which all of that is weighed; `plan` lays the choice out, and
//! `explain` says why there is none. `within` is the machine as a guest in a pod sees it.

#![forbid(unsafe_code)]

mod cells;
mod demand;
mod devices;
mod domains;
mod explain;
mod instance;
mod io_threads;
mod memory;
mod message;
mod occupancy;
mod placement;
mod plan;
mod refusal;
mod request;
mod score;
mod search;
mod sets;
mod shape;
mod stock;
mod within;

pub use instance::{DeviceNames, InstanceError};
pub use occupancy::{HeldFloating, HeldMemory, Holding, HoldingState, Occupancy};
pub use placement::{Cell, Device, Emulator, IoThread, Placement, Vcpu, vector_cpu};
pub use plan::plan;
pub use refusal::{Holder, Nearest, Refusal, RefusalReason, Shortage};
pub use request::{
    CpuPolicy, CpuRequest, DeviceRequest, GuestTopology, IoThreadPlace, IoThreadRequest, MemoryRequest,
    NumaPolicy, Request, Within,
};
pub use shape::Shape;
