//! `VirtualMachine`: an instance and when it is to run.

use serde_json::Value;

use crate::data_volume::DataVolumeTemplate;
use crate::metadata::ObjectMeta;
use crate::schema::Status::{Cluster, ClusterBoth, Part, Planned, Refused, System, Works};
use crate::vmi::InstanceSpec;

/// Instance types are objects of the cluster.
const INSTANCETYPE: &str = "instance types and preferences live in a cluster; write CPU, memory and devices into \
     the template";
/// `pinion run` starts a guest once.
const RESTART: &str = "on one host a guest is started by `pinion run` and not started again when it ends; use Once, \
     and a service manager to run it again";

object! {
    "A virtual machine: the instance it makes and when it is to run."
    VirtualMachine {
        api_version "apiVersion": String, Works("`kubevirt.io/v1`."), "API version.";
        kind "kind": String, Works("`VirtualMachine`."), "Kind.";
        metadata "metadata": ObjectMeta, Works(""), "Name, labels and annotations.";
        spec "spec": VirtualMachineSpec, Works(""), "What it is.";
        status "status": Option<Value>, System("written by the system; accepted in a dump and not read"), "What became of it.";
    }

    "What a virtual machine is."
    VirtualMachineSpec {
        running "running": Option<bool>, ClusterBoth(false, RESTART), "Whether it runs (deprecated in favour of `runStrategy`).";
        run_strategy "runStrategy": Option<RunStrategy>, Works("On one host, `pinion run` is the start that it speaks of."), "When it runs.";
        instancetype "instancetype": Option<Matcher>, Planned(INSTANCETYPE), "Instance type to take CPU and memory from.";
        preference "preference": Option<Matcher>, Planned(INSTANCETYPE), "Preference to take device choices from.";
        template "template": InstanceTemplate, Works(""), "The instance it makes.";
        data_volume_templates "dataVolumeTemplates": Vec<DataVolumeTemplate>, Planned("data volumes are made by CDI in a cluster; use a hostDisk volume"), "Data volumes to make with it.";
        update_volumes_strategy "updateVolumesStrategy": Option<String>, Planned("volumes are not swapped under a guest; remove it"), "How changed volumes are applied.";
    }

    "The instance a virtual machine makes."
    InstanceTemplate {
        metadata "metadata": Option<ObjectMeta>, Works("Labels and annotations of the instance."), "Metadata of the instance.";
        spec "spec": InstanceSpec, Works(""), "Spec of the instance.";
    }

    "A reference to an instance type or preference."
    Matcher {
        name "name": Option<String>, Part, "Its name.";
        kind "kind": Option<String>, Part, "Its kind.";
        revision_name "revisionName": Option<String>, Part, "The revision to use.";
        infer_from_volume "inferFromVolume": Option<String>, Part, "The volume that says which.";
        infer_from_volume_failure_policy "inferFromVolumeFailurePolicy": Option<String>, Part, "What to do if it does not say.";
    }
}

choice! {
    "When a virtual machine runs."
    RunStrategy {
        Always "Always", Cluster(RESTART), "Always; started again however it ends.";
        RerunOnFailure "RerunOnFailure", Cluster(RESTART), "Started again if it fails.";
        Once "Once", Works(""), "Once.";
        Manual "Manual", Works(""), "When it is told to.";
        Halted "Halted", Works(""), "Not, until this is changed; on one host `pinion run` runs it.";
        WaitAsReceiver "WaitAsReceiver", Refused("there is no live migration"), "As the target of a migration.";
    }
}
