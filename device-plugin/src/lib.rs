//! What of the host's devices the kubelet is offered, and what a container gets that asks for some.
//!
//! `offer` says which units of which resource there are and whether each can be given; `preferred` which of them are
//! nearest to each other; `allocation` what comes with them; `shared` what any number of containers may have; `catalogue` all of
//! that by the name of a resource. All of it is pure: it is given the [`pinion_machine::Machine`]
//! and the names of devices, and neither reads the host nor changes it.

#![forbid(unsafe_code)]

mod allocation;
mod catalogue;
mod cdi;
mod health;
mod offer;
mod preferred;
mod shared;
mod socket;

pub use allocation::{Allocation, AllocationError, FolderMount, VfioNodes, allocation, environment_name};
pub use catalogue::{Catalogue, Listed};
pub use cdi::cdi_document;
pub use health::{Cause, Health};
pub use offer::{Offer, Offered, Problem, Unit, UnitId, UnitIdError};
pub use preferred::preferred;
pub use shared::{Shared, SharedKind};
pub use socket::socket_name;
