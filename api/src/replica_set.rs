//! `VirtualMachineInstanceReplicaSet`: a number of like instances.

use crate::metadata::ObjectMeta;
use crate::scheduling::LabelSelector;
use crate::schema::Status::{System, Works};
use crate::status::ReplicaSetStatus;
use crate::vm::InstanceTemplate;

object! {
    "A number of like instances, which take each other's place."
    VirtualMachineInstanceReplicaSet {
        api_version "apiVersion": String, Works("`kubevirt.io/v1`."), "API version.";
        kind "kind": String, Works("`VirtualMachineInstanceReplicaSet`."), "Kind.";
        metadata "metadata": ObjectMeta, Works(""), "Name, labels and annotations.";
        spec "spec": ReplicaSetSpec, Works(""), "What it is.";
        status "status": Option<ReplicaSetStatus>, System("written by the system; accepted in a dump and not read"), "What became of it.";
    }

    "What a replica set is."
    ReplicaSetSpec {
        paused "paused": Option<bool>, Works("False where absent."), "Whether it leaves its instances alone.";
        replicas "replicas": Option<i32>, Works("1 where absent."), "How many instances there are to be.";
        selector "selector": LabelSelector, Works("Must fit the template."), "Which instances are its own.";
        template "template": InstanceTemplate, Works(""), "The instance it makes.";
    }
}
