//! What is filled in when an object is made: as little as can be, so that who applies his file again changes nothing.
//!
//! Defaults of single fields are not written into objects: whoever reads a spec fills them in, the same everywhere.

use pinion_api::{VirtualMachine, VirtualMachineInstance};
use serde_json::{Value, json};

use crate::{Change, Kind};

/// Name of the interface and network that an instance gets which asks for none. KubeVirt's name.
pub const POD_INTERFACE: &str = "default";

/// The JSON patch (RFC 6902) that completes a new object; empty where there is nothing to add, or where it is not even an
/// object: its refusal comes later.
///
/// - An instance that names neither interfaces nor networks gets one on the pod network, unless `autoattachPodInterface` is
///   false. KubeVirt attaches it by `bridge`; here it is `masquerade`, which leaves the pod its address.
/// - Instances and machines get their finalizer, which saves a request each.
#[must_use]
pub fn complete(change: Change<'_>) -> Vec<Value> {
    if change.old.is_some() || !change.object.is_object() {
        return Vec::new();
    }
    let mut patch = Vec::new();
    match change.kind {
        Kind::Machine => finalizer(change.object, VirtualMachine::FINALIZER, &mut patch),
        Kind::Instance => {
            finalizer(change.object, VirtualMachineInstance::FINALIZER, &mut patch);
            pod_interface(change.object, &mut patch);
        }
        Kind::ReplicaSet => {}
    }
    patch
}

fn finalizer(object: &Value, name: &str, patch: &mut Vec<Value>) {
    let Some(metadata) = object.get("metadata").filter(|metadata| metadata.is_object()) else { return };
    match metadata.get("finalizers") {
        None | Some(Value::Null) => {
            patch.push(json!({"op": "add", "path": "/metadata/finalizers", "value": [name]}))
        }
        Some(Value::Array(list)) if !list.iter().any(|one| one == name) => {
            patch.push(json!({"op": "add", "path": "/metadata/finalizers/-", "value": name}));
        }
        Some(_) => {}
    }
}

fn pod_interface(object: &Value, patch: &mut Vec<Value>) {
    let is_empty = |value: Option<&Value>| match value {
        None | Some(Value::Null) => true,
        Some(Value::Array(list)) => list.is_empty(),
        Some(_) => false,
    };
    let Some(devices) = object.pointer("/spec/domain/devices").filter(|devices| devices.is_object()) else {
        return;
    };
    let unwanted = devices.get("autoattachPodInterface") == Some(&Value::Bool(false));
    if unwanted || !is_empty(devices.get("interfaces")) || !is_empty(object.pointer("/spec/networks")) {
        return;
    }
    let interface = json!([{"name": POD_INTERFACE, "masquerade": {}}]);
    let network = json!([{"name": POD_INTERFACE, "pod": {}}]);
    patch.push(json!({"op": "add", "path": "/spec/domain/devices/interfaces", "value": interface}));
    patch.push(json!({"op": "add", "path": "/spec/networks", "value": network}));
}
