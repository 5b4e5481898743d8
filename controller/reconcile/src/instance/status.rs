//! The status of an instance, under KubeVirt's names.

use std::collections::BTreeMap;

use pinion_api::{
    CurrentTopology, InstanceStatus, InterfaceStatus, MemoryStatus, PhaseTransition, Quantity,
    VirtualMachineInstance, VolumeStatus,
};
use pinion_nodes::GuestPhase;
use pinion_planner::{HeldFloating, Holding};
use serde_json::{Map, Value, json};

use super::phase::Found;
use super::{Phase, Plan};
use crate::condition::{Conditions, text, written};
use crate::pod::{USER, overhead_bytes};

/// The interface of a pod that its network is on.
const POD_INTERFACE: &str = "eth0";
/// Most mismatches that a condition names.
const NAMED: usize = 5;

pub(super) fn status(plan: &Plan<'_>, found: &Found) -> Value {
    let seen = plan.seen;
    let pod = seen.pod;
    let node = pod.and_then(|pod| pod.node.clone());
    let mut status = InstanceStatus {
        phase: Some(plan.phase.as_str().to_owned()),
        phase_transition_timestamps: transitions(plan),
        reason: found.reason.as_ref().map(|(reason, _)| (*reason).to_owned()),
        conditions: conditions(plan, found),
        active_pods: pod
            .filter(|pod| !pod.is_over())
            .map(|pod| BTreeMap::from([(pod.meta.uid.clone(), node.clone().unwrap_or_default())]))
            .unwrap_or_default(),
        node_name: node,
        qos_class: pod.map(|pod| pod.qos.clone()).filter(|qos| !qos.is_empty()),
        ..InstanceStatus::default()
    };
    if let Ok(guest) = &seen.instance.spec {
        fill_in(&mut status, guest, plan);
    }
    let mut value = json!(status);
    let mut own = Map::new();
    if plan.attempts > 0 {
        own.insert("attempts".to_owned(), plan.attempts.into());
    }
    if let Some(held) = plan.seen.held.filter(|_| plan.phase == Phase::Running) {
        own.insert("placement".to_owned(), placement(held));
    }
    if !own.is_empty() {
        value["pinion"] = own.into();
    }
    value
}

/// CPUs as the kernel lists them, memory by node and page size, functions by address. A guest without CPUs of its own says
/// how many vCPUs float over which.
fn placement(held: &Holding) -> Value {
    let mut value = json!({"memory": held.memory, "devices": held.devices});
    if !held.cpus.is_empty() {
        value["cpus"] = held.cpus.to_string().into();
    }
    let floating = |part: &HeldFloating| json!({"cpus": part.cpus.to_string(), "vcpus": part.vcpus});
    if !held.floating.is_empty() {
        value["floating"] = held.floating.iter().map(floating).collect();
    }
    value
}

fn fill_in(status: &mut InstanceStatus, guest: &VirtualMachineInstance, plan: &Plan<'_>) {
    let topology = guest.spec.topology();
    status.current_cpu_topology = Some(CurrentTopology {
        sockets: Some(topology.sockets),
        cores: Some(topology.cores),
        threads: Some(topology.threads),
    });
    let memory = guest.spec.guest_memory().map(Quantity::from_bytes);
    let runs = plan.phase == Phase::Running;
    status.memory = Some(MemoryStatus {
        at_boot: memory.clone().filter(|_| runs),
        current: memory.clone().filter(|_| runs),
        requested: memory,
        overhead: Some(Quantity::from_bytes(overhead_bytes(guest))),
    });
    if plan.seen.pod.is_some() {
        status.launcher_image = Some(plan.seen.image.to_owned());
        status.runtime_user = Some(USER);
    }
    status.interfaces = interfaces(guest, plan);
    let volume = |name: &String| VolumeStatus { name: name.clone(), ..VolumeStatus::default() };
    status.volume_status = guest.spec.volumes.iter().map(|v| volume(&v.name)).collect();
}

/// A guest on the pod network has its pod's addresses, whichever way it is on it.
fn interfaces(guest: &VirtualMachineInstance, plan: &Plan<'_>) -> Vec<InterfaceStatus> {
    let addresses = plan.seen.pod.map(|pod| pod.addresses.as_slice()).unwrap_or_default();
    let of = |interface: &pinion_api::Interface| {
        let network = guest.spec.networks.iter().find(|network| network.name == interface.name);
        let on_pod = network.is_some_and(|network| network.pod.is_some());
        let ips = if on_pod { addresses.to_vec() } else { Vec::new() };
        InterfaceStatus {
            name: Some(interface.name.clone()),
            mac: interface.mac_address.clone(),
            ip: ips.first().cloned(),
            ips,
            pod_interface: on_pod.then(|| POD_INTERFACE.to_owned()),
            ..InterfaceStatus::default()
        }
    };
    guest.spec.domain.devices.interfaces.iter().map(of).collect()
}

/// When it came to each phase; those that it went through between two looks came at the same time as the last.
fn transitions(plan: &Plan<'_>) -> Vec<PhaseTransition> {
    let old = plan
        .seen
        .instance
        .status
        .as_ref()
        .and_then(|s| s.get("phaseTransitionTimestamps"))
        .and_then(Value::as_array);
    let known = old.map(Vec::as_slice).unwrap_or_default().iter().map(|old| {
        let some = |name: &str| Some(text(old, name).to_owned()).filter(|text| !text.is_empty());
        PhaseTransition { phase: some("phase"), at: some("phaseTransitionTimestamp") }
    });
    let mut list: Vec<PhaseTransition> = known.collect();
    let has = |list: &[PhaseTransition], phase: Phase| {
        list.iter().any(|t| t.phase.as_deref() == Some(phase.as_str()))
    };
    let transition =
        |phase: Phase, at| PhaseTransition { phase: Some(phase.as_str().to_owned()), at: Some(written(at)) };
    if list.is_empty() {
        list.push(transition(Phase::Pending, plan.seen.instance.meta.created.unwrap_or(plan.now)));
    }
    if !has(&list, plan.phase) {
        list.push(transition(plan.phase, plan.now));
    }
    list
}

fn conditions(plan: &Plan<'_>, found: &Found) -> Vec<pinion_api::Condition> {
    let seen = plan.seen;
    let mut conditions = Conditions::over(seen.instance.status.as_ref(), plan.now);
    let (reason, message) =
        found.reason.as_ref().map_or(("", ""), |(reason, message)| (*reason, message.as_str()));
    ready(plan, (reason, message), &mut conditions);
    match (reason, seen.pod.and_then(|pod| pod.node.as_ref())) {
        // The name and the words that `kubectl describe` and KubeVirt's tools look for.
        ("Unschedulable", _) => conditions.set("PodScheduled", Some(false), "Unschedulable", message),
        (_, Some(_)) => conditions.set("PodScheduled", Some(true), "", ""),
        _ => {}
    }
    if matches!(
        reason,
        "ErrImagePull"
            | "ImagePullBackOff"
            | "FailedPvcNotFound"
            | "FailedCreate"
            | "InvalidSpec"
            | "TurnedAway"
    ) {
        conditions.set("Synchronized", Some(false), reason, message);
    }
    if let Some(report) = seen.report.filter(|_| plan.phase == Phase::Running) {
        deterministic(report, &mut conditions);
        if report.phase == GuestPhase::Paused {
            conditions.set("Paused", Some(true), "PausedByUser", "its vCPUs stand still");
        }
    }
    conditions.set(
        "LiveMigratable",
        Some(false),
        "NotMigratable",
        "a deterministic guest stays where it was placed",
    );
    conditions.done()
}

fn ready(plan: &Plan<'_>, (reason, message): (&str, &str), conditions: &mut Conditions<'_>) {
    let seen = plan.seen;
    if let Some(trouble) = seen.node_trouble.filter(|_| !plan.phase.is_final()) {
        return conditions.set("Ready", Some(false), "NodeNotReady", trouble);
    }
    match (plan.phase, seen.pod) {
        (_, Some(pod)) if pod.meta.deleted.is_some() => {
            conditions.set("Ready", Some(false), "PodTerminating", "its pod is terminating");
        }
        (Phase::Running, Some(pod)) if pod.is_ready => conditions.set("Ready", Some(true), "", ""),
        (Phase::Running, _) => conditions.set("Ready", Some(false), "PodNotReady", "its pod is not ready"),
        _ if reason.is_empty() => {
            conditions.set("Ready", Some(false), "GuestNotRunning", "the guest does not run")
        }
        _ => conditions.set("Ready", Some(false), reason, message),
    }
}

/// The certificate's verdict.
fn deterministic(report: &pinion_nodes::GuestReport, conditions: &mut Conditions<'_>) {
    let mut named: Vec<&str> = report.mismatches.iter().take(NAMED).map(String::as_str).collect();
    let left = report.mismatches.len().saturating_sub(NAMED);
    let more = format!("and {left} more");
    if left > 0 {
        named.push(&more);
    }
    let message = named.join("; ");
    match report.verdict.as_str() {
        "holds" => conditions.set("Deterministic", Some(true), "Holds", "everything is where the plan says"),
        "drifted" => conditions.set("Deterministic", Some(false), "Drifted", &message),
        "unverifiable" => conditions.set("Deterministic", None, "Unverifiable", &message),
        _ => conditions.set("Deterministic", None, "NotVerified", "there is no certificate yet"),
    }
}
