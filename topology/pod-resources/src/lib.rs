//! Which container has which CPUs, memory and devices for itself, as the kubelet tells: the client of its pod-resources API.
//!
//! Called by the command line and by the node's agent, on a thread that may wait. It reads; it must never be asked for what
//! a device plugin itself offers, since the kubelet may know less.

#![forbid(unsafe_code)]

pub mod api;
#[cfg(feature = "fake")]
pub mod fake;
mod pods;

pub use pods::{ContainerHolds, HeldDevice, HeldMemory, POD_RESOURCES, Pods, PodsError, pods};
