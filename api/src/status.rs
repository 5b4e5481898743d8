//! What the system writes about its objects: `status`, under KubeVirt's names.
//!
//! Only what Pinion writes is here; a status that KubeVirt wrote may have more, and keeps it.

use std::collections::BTreeMap;

use crate::Quantity;
use crate::schema::Status::Works;

object! {
    "Something that is so, or is not, with its reason."
    Condition {
        kind "type": String, Works(""), "What is so.";
        status "status": String, Works("`True`, `False` or `Unknown`."), "Whether it is.";
        reason "reason": Option<String>, Works("One word, which does not change between versions."), "Why.";
        message "message": Option<String>, Works(""), "Why, for people.";
        last_probe_time "lastProbeTime": Option<String>, Works("RFC 3339."), "When it was last looked at.";
        last_transition_time "lastTransitionTime": Option<String>, Works("RFC 3339."), "When it last changed.";
    }

    "What became of an instance."
    InstanceStatus {
        phase "phase": Option<String>, Works("`Pending`, `Scheduling`, `Scheduled`, `Running`, `Succeeded`, `Failed` or `Unknown`."), "Where it is in its life.";
        phase_transition_timestamps "phaseTransitionTimestamps": Vec<PhaseTransition>, Works(""), "When it came to each phase.";
        reason "reason": Option<String>, Works(""), "Why it is where it is, in a word.";
        conditions "conditions": Vec<Condition>, Works("`Ready`, `Deterministic`, `Paused`, `Provisioning`, `Synchronized`."), "What is so of it.";
        node_name "nodeName": Option<String>, Works(""), "The node it runs on.";
        active_pods "activePods": BTreeMap<String, String>, Works("Nodes by the identity of the pod."), "Pods it lives in.";
        launcher_image "launcherContainerImageVersion": Option<String>, Works(""), "Image of its launcher.";
        qos_class "qosClass": Option<String>, Works("`Guaranteed`, `Burstable` or `BestEffort`."), "Class of its pod.";
        runtime_user "runtimeUser": Option<i64>, Works(""), "User id that its launcher runs as.";
        current_cpu_topology "currentCPUTopology": Option<CurrentTopology>, Works(""), "Sockets, cores and threads that the guest has.";
        memory "memory": Option<MemoryStatus>, Works(""), "Memory that the guest has.";
        interfaces "interfaces": Vec<InterfaceStatus>, Works(""), "Its interfaces.";
        volume_status "volumeStatus": Vec<VolumeStatus>, Works(""), "Its volumes.";
        guest_os_info "guestOSInfo": Option<GuestOsInfo>, Works("From the guest agent."), "What runs inside.";
        revision "virtualMachineRevisionName": Option<String>, Works(""), "Revision of the machine that it was made of.";
    }

    "When an instance came to a phase."
    PhaseTransition {
        phase "phase": Option<String>, Works(""), "The phase.";
        at "phaseTransitionTimestamp": Option<String>, Works("RFC 3339."), "When.";
    }

    "Sockets, cores and threads."
    CurrentTopology {
        sockets "sockets": Option<u32>, Works(""), "Sockets.";
        cores "cores": Option<u32>, Works(""), "Cores of each socket.";
        threads "threads": Option<u32>, Works(""), "Threads of each core.";
    }

    "Memory of a guest."
    MemoryStatus {
        at_boot "guestAtBoot": Option<Quantity>, Works(""), "What it was booted with.";
        current "guestCurrent": Option<Quantity>, Works(""), "What it has.";
        requested "guestRequested": Option<Quantity>, Works(""), "What its spec asks for.";
        overhead "memoryOverhead": Option<Quantity>, Works(""), "What its launcher needs besides.";
    }

    "An interface of a guest."
    InterfaceStatus {
        name "name": Option<String>, Works(""), "Its name in the spec.";
        mac "mac": Option<String>, Works(""), "Its MAC address.";
        ip "ipAddress": Option<String>, Works(""), "Its first IP address.";
        ips "ipAddresses": Vec<String>, Works(""), "Its IP addresses.";
        interface_name "interfaceName": Option<String>, Works("From the guest agent."), "Its name inside the guest.";
        pod_interface "podInterfaceName": Option<String>, Works(""), "The interface of the pod that it is on.";
        source "infoSource": Option<String>, Works(""), "Who says so.";
        link_state "linkState": Option<String>, Works("`up` or `down`."), "Whether its link is up.";
        queues "queueCount": Option<i32>, Works(""), "Its queues.";
    }

    "A volume of a guest."
    VolumeStatus {
        name "name": String, Works(""), "Its name in the spec.";
        target "target": String, Works(""), "Its name inside the guest.";
        phase "phase": Option<String>, Works(""), "Where it is in its life.";
        reason "reason": Option<String>, Works(""), "Why, in a word.";
        message "message": Option<String>, Works(""), "Why, for people.";
        size "size": Option<i64>, Works(""), "Its size, bytes.";
    }

    "What runs inside a guest."
    GuestOsInfo {
        name "name": Option<String>, Works(""), "Its name.";
        id "id": Option<String>, Works(""), "Its name, as a word.";
        version "version": Option<String>, Works(""), "Its version.";
        version_id "versionId": Option<String>, Works(""), "Its version, as a word.";
        pretty_name "prettyName": Option<String>, Works(""), "Its name and version.";
        kernel_release "kernelRelease": Option<String>, Works(""), "Release of its kernel.";
        kernel_version "kernelVersion": Option<String>, Works(""), "Version of its kernel.";
        machine "machine": Option<String>, Works(""), "Architecture of its kernel.";
    }

    "What became of a virtual machine."
    MachineStatus {
        printable_status "printableStatus": Option<String>, Works(""), "Where it is in its life, for people.";
        ready "ready": Option<bool>, Works(""), "Whether its instance is ready.";
        created "created": Option<bool>, Works(""), "Whether it has an instance.";
        conditions "conditions": Vec<Condition>, Works(""), "What is so of it.";
        run_strategy "runStrategy": Option<String>, Works(""), "The run strategy that holds.";
        state_change_requests "stateChangeRequests": Vec<StateChangeRequest>, Works(""), "What was asked for and is not done yet.";
        start_failure "startFailure": Option<StartFailure>, Works(""), "Instances that failed one after the other.";
        desired_generation "desiredGeneration": Option<i64>, Works(""), "Generation of its spec.";
        observed_generation "observedGeneration": Option<i64>, Works(""), "Generation that was acted on.";
    }

    "A start or stop that was asked for."
    StateChangeRequest {
        action "action": String, Works("`Start` or `Stop`."), "What.";
        uid "uid": Option<String>, Works(""), "Identity of the instance that is meant.";
        data "data": BTreeMap<String, String>, Works(""), "More of it.";
    }

    "Instances that failed one after the other."
    StartFailure {
        count "consecutiveFailCount": Option<i64>, Works(""), "How many.";
        last_uid "lastFailedVMIUID": Option<String>, Works(""), "Identity of the last.";
        retry_after "retryAfterTimestamp": Option<String>, Works("RFC 3339."), "When the next is made.";
    }

    "What became of a replica set."
    ReplicaSetStatus {
        replicas "replicas": Option<i32>, Works(""), "How many instances there are.";
        ready_replicas "readyReplicas": Option<i32>, Works(""), "How many of them are ready.";
        label_selector "labelSelector": Option<String>, Works(""), "Its selector as text.";
        conditions "conditions": Vec<Condition>, Works(""), "What is so of it.";
    }
}
