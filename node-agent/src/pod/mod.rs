//! Guests in pods: who asks from a pod, what the kubelet gave its container, and that container's control group.
//!
//! Called by the daemon: who asks and what it was given on a thread of its own, since the kubelet may be slow; control groups
//! by the keeper. Nothing that a pod says of itself is believed: its process, control group and log folder are looked at.

mod asker;
mod container;
mod given;
mod group;
mod limits;
mod nodes;
mod seccomp;
#[cfg(test)]
mod tests;

pub use asker::{PodName, PodPlace};
pub(crate) use asker::{identify, is_in_pod};
pub(crate) use container::Containers;
pub use given::PodSources;
pub(crate) use given::{Given, look};
pub(crate) use limits::raise as raise_limits;
pub(crate) use nodes::give as give_device_nodes;
pub use seccomp::{SECCOMP_PROFILE, write_seccomp_profile};
