//! `VirtualMachineInstance`: one guest. Also the template of a `VirtualMachine`.

use std::collections::BTreeMap;

use serde_json::Value;

use crate::domain::Domain;
use crate::metadata::ObjectMeta;
use crate::network::Network;
use crate::probe::{AccessCredential, Probe};
use crate::scheduling::{Affinity, DnsConfig, ResourceClaim, Toleration, TopologySpreadConstraint};
use crate::schema::Status::{Cluster, Planned, Refused, System, Works};
use crate::volume::{UtilityVolume, Volume};

/// Choosing a node.
const CLUSTER: &str = "it chooses among the nodes of a cluster; on one host remove it";
/// Neighbours.
pub(crate) const NEIGHBOURS: &str = "which guests are on a node already is not weighed when one is chosen; use nodeSelector or affinity.nodeAffinity";
/// The pod around a guest.
const POD: &str = "it is about the pod around the guest, and on one host there is none; remove it";
/// Probes.
const PROBE: &str = "nothing probes the guest; remove it";
/// Claims.
const CLAIMS: &str = "dynamic resource allocation is not done; remove it";

object! {
    "A virtual machine instance: one guest."
    VirtualMachineInstance {
        api_version "apiVersion": String, Works("`kubevirt.io/v1`."), "API version.";
        kind "kind": String, Works("`VirtualMachineInstance`."), "Kind.";
        metadata "metadata": ObjectMeta, Works(""), "Name, labels and annotations.";
        spec "spec": InstanceSpec, Works(""), "What it is.";
        status "status": Option<Value>, System("written by the system; accepted in a dump and not read"), "What became of it.";
    }

    "What a guest is."
    InstanceSpec {
        domain "domain": Domain, Works(""), "Its hardware.";
        networks "networks": Vec<Network>, Works(""), "What its interfaces are connected to.";
        volumes "volumes": Vec<Volume>, Works(""), "What its disks hold.";
        termination_grace_period_seconds "terminationGracePeriodSeconds": Option<i64>, Works("30 where absent; 0 forces at once."), "Seconds from the power button to force.";
        hostname "hostname": Option<String>, Works("Told to the guest by `cloudInitNoCloud` or `cloudInitConfigDrive`, one of which must be there on one host, and by DHCP in a cluster; the instance's name where absent."), "Host name inside the guest.";
        architecture "architecture": Option<Architecture>, Works(""), "Architecture of the guest.";
        eviction_strategy "evictionStrategy": Option<EvictionStrategy>, Works(""), "What happens when its node is drained.";
        start_strategy "startStrategy": Option<String>, Planned("a guest starts running; remove it"), "`Paused`: stop before the first instruction.";
        node_selector "nodeSelector": BTreeMap<String, String>, Cluster(CLUSTER), "Labels its node must have.";
        affinity "affinity": Option<Affinity>, Cluster(CLUSTER), "Nodes and neighbours it wants.";
        scheduler_name "schedulerName": Option<String>, Planned("Pinion chooses the node, and the scheduler only binds the pod to it; remove it"), "Scheduler that chooses its node.";
        tolerations "tolerations": Vec<Toleration>, Cluster(CLUSTER), "Taints it tolerates.";
        topology_spread_constraints "topologySpreadConstraints": Vec<TopologySpreadConstraint>, Planned(NEIGHBOURS), "How guests spread over nodes.";
        priority_class_name "priorityClassName": Option<String>, Cluster(CLUSTER), "Its priority in a full cluster.";
        service_account_name "serviceAccountName": Option<String>, Planned("the guest gets no token of the cluster; remove it"), "Service account of its pod.";
        subdomain "subdomain": Option<String>, Cluster(POD), "Domain of its name in the cluster.";
        dns_policy "dnsPolicy": Option<String>, Cluster(POD), "Where its pod gets name resolution from.";
        dns_config "dnsConfig": Option<DnsConfig>, Cluster(POD), "Name resolution of its pod.";
        utility_volumes "utilityVolumes": Vec<UtilityVolume>, Planned("memory dumps and backups are not done; remove it"), "Volumes for dumps and backups.";
        access_credentials "accessCredentials": Vec<AccessCredential>, Planned("secrets live in a cluster; put keys and passwords into cloudInitNoCloud user data"), "Keys and passwords put into the guest.";
        liveness_probe "livenessProbe": Option<Probe>, Planned(PROBE), "Whether it must be started again.";
        readiness_probe "readinessProbe": Option<Probe>, Planned(PROBE), "Whether it can serve.";
        resource_claims "resourceClaims": Vec<ResourceClaim>, Planned(CLAIMS), "Claims of dynamic resource allocation.";
    }
}

choice! {
    "Architecture of a guest."
    Architecture {
        Amd64 "amd64", Works(""), "x86-64.";
        Arm64 "arm64", Refused("Pinion runs amd64 guests only"), "64-bit Arm.";
        S390x "s390x", Refused("Pinion runs amd64 guests only"), "IBM Z.";
    }

    "What happens when a guest's node is drained."
    EvictionStrategy {
        None "None", Works(""), "It goes with the node.";
        LiveMigrate "LiveMigrate", Refused("a deterministic guest does not migrate; use None"), "It must migrate.";
        LiveMigrateIfPossible "LiveMigrateIfPossible", Refused("a deterministic guest does not migrate; use None"), "It migrates where it can.";
        External "External", Refused("a deterministic guest does not migrate; use None"), "Someone else decides.";
    }
}
