//! A Kubernetes cluster in the lab: etcd, API server, scheduler and controller manager of Kubernetes itself on this machine,
//! and lab hosts with containerd, kubelet and kube-proxy as nodes.
//!
//! Called by tests and by `cargo xtask cluster`. All of it dies with the thread that brings it up.

#![forbid(unsafe_code)]

mod authority;
mod cluster;
mod control_plane;
mod error;
mod node;
mod process;
mod programs;
mod relay;

pub use cluster::{Cluster, Options};
pub use error::ClusterError;
pub use node::{NodeImage, node_shape, unpacked};
pub use programs::ClusterPrograms;
