//! The planner: `plan(&Machine, &Occupancy, &Request) -> Result<Placement, Refusal>`.
//!
//! Pure: no I/O, no clock, no randomness; the same inputs give the same bytes.
//! Called by the command line, the node agent and the controller. Nothing else in
//! the tree decides placement.

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

pub use instance::{DeviceNames, InstanceError};
pub use occupancy::{HeldFloating, HeldMemory, Holding, HoldingState, Occupancy};
pub use placement::{Cell, Device, Emulator, IoThread, Placement, Vcpu};
pub use plan::plan;
pub use refusal::{Holder, Nearest, Refusal, RefusalReason, Shortage};
pub use request::{
    CpuPolicy, CpuRequest, DeviceRequest, GuestTopology, IoThreadPlace, IoThreadRequest, MemoryRequest,
    NumaPolicy, Request,
};
pub use shape::Shape;
