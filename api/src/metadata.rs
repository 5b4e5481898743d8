//! `metadata`: names, labels, annotations, and what the API server writes.
//!
//! A dump of a running object (`kubectl get -o yaml`) is accepted: what only the server
//! writes is taken as it is and not acted on.

use std::collections::BTreeMap;

use crate::schema::Status::{Cluster, System, Works};

/// Why a server-set field is accepted and not acted on.
const SERVER: &str = "written by the API server; accepted, and not acted on";

object! {
    "Name, labels and annotations of an object."
    ObjectMeta {
        name "name": Option<String>, Works(""), "Name of the object: a DNS subdomain.";
        generate_name "generateName": Option<String>, Cluster("only an API server makes up names; give metadata.name"), "Prefix of a generated name.";
        namespace "namespace": Option<String>, Works("`default` where absent."), "Namespace of the object.";
        labels "labels": BTreeMap<String, String>, Works("Kept."), "Labels.";
        annotations "annotations": BTreeMap<String, String>, Works("Kept; hook sidecars are refused. `pinion.dev/backend` is `native`, `libvirt` or `auto`: what runs the guest."), "Annotations.";
        uid "uid": Option<String>, System(SERVER), "Identity of the object.";
        resource_version "resourceVersion": Option<String>, System(SERVER), "Version of the object.";
        generation "generation": Option<i64>, System(SERVER), "Generation of the spec.";
        creation_timestamp "creationTimestamp": Option<String>, System(SERVER), "When it was made.";
        deletion_timestamp "deletionTimestamp": Option<String>, System(SERVER), "When it is to go.";
        deletion_grace_period_seconds "deletionGracePeriodSeconds": Option<i64>, System(SERVER), "How long it has to go.";
        finalizers "finalizers": Vec<String>, System(SERVER), "Who must agree before it goes.";
        owner_references "ownerReferences": Vec<OwnerReference>, System(SERVER), "Whose it is.";
        managed_fields "managedFields": Vec<serde_json::Value>, System(SERVER), "Who wrote which field.";
        self_link "selfLink": Option<String>, System(SERVER), "Its address.";
    }

    "An owner of an object."
    OwnerReference {
        api_version "apiVersion": String, Works(""), "API version of the owner.";
        kind "kind": String, Works(""), "Kind of the owner.";
        name "name": String, Works(""), "Name of the owner.";
        uid "uid": String, Works(""), "Identity of the owner.";
        controller "controller": Option<bool>, Works(""), "Whether it is the managing one.";
        block_owner_deletion "blockOwnerDeletion": Option<bool>, Works(""), "Whether the owner waits for it.";
    }
}
