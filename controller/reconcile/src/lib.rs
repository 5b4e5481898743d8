//! What is to be done next for a virtual machine, an instance or a replica set of `kubevirt.io/v1`.
//!
//! Called by the controller with what it sees, whenever that changes, and again after each step; on whatever thread it likes.
//! Pure: no I/O, the clock is an input. Each function looks at the whole of what is there and never at what was done before:
//! a controller that was killed at any point goes on by asking again. It must never decide where a guest runs; that is
//! `pinion-nodes`.

#![forbid(unsafe_code)]

mod condition;
mod event;
pub mod instance;
pub mod machine;
mod object;
pub mod pod;
pub mod replica_set;

pub use event::Event;
pub use object::{MANAGER, Meta, Owner, status_patch};

#[cfg(test)]
mod tests;
