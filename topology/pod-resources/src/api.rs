//! What goes over the wire: version v1 of the kubelet's API for which pod has what. Generated from `proto/`.

#![expect(
    missing_docs,
    clippy::allow_attributes,
    clippy::too_many_lines,
    reason = "generated; the kubelet's own description says what each field means"
)]

tonic::include_proto!("v1");
