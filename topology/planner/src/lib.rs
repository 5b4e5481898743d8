//! The planner: `plan(&Machine, &Occupancy, &Request) -> Result<Placement, Refusal>`.
//!
//! Pure: no I/O, no clock, no randomness; the same inputs give the same bytes.
//! Called by the command line, the node agent and the controller. Nothing else in
//! the tree decides placement.

#![forbid(unsafe_code)]

mod occupancy;
mod placement;
mod refusal;
mod request;

pub use occupancy::{HeldFloating, HeldMemory, Holding, HoldingState, Occupancy};
pub use placement::{Cell, Device, Emulator, IoThread, Placement, Vcpu};
pub use refusal::{Holder, Nearest, Refusal, RefusalReason, Shortage};
pub use request::{
    CpuPolicy, CpuRequest, DeviceRequest, GuestTopology, IoThreadPlace, IoThreadRequest, MemoryRequest,
    NumaPolicy, Request,
};
