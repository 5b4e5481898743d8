//! What goes over the wire: version v1beta1 of the kubelet's API for device plugins. Generated from `proto/`.

#![expect(
    missing_docs,
    clippy::allow_attributes,
    clippy::too_many_lines,
    reason = "generated; the kubelet's own description says what each field means"
)]

tonic::include_proto!("v1beta1");

/// What plugin and kubelet call this version.
pub const VERSION: &str = "v1beta1";
/// The health of a device that may be given.
pub const HEALTHY: &str = "Healthy";
/// The health of one that may not.
pub const UNHEALTHY: &str = "Unhealthy";
/// The kubelet's socket, in its folder.
pub const KUBELET_SOCKET: &str = "kubelet.sock";
