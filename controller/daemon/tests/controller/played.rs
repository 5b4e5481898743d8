//! Nodes that are played: a kubelet that starts whatever it is given, and an agent that says of every guest that it runs.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use jiff::Timestamp;
use kube::api::{Api, DeleteParams, DynamicObject, ListParams, Patch, PatchParams, PostParams};
use kube::{Client, ResourceExt};
use pinion_machine::Outline;
use pinion_nodes::{GuestPhase, GuestReport, LedgerSpec, LedgerStatus};
use pinion_planner::{HoldingState, Shape};
use serde_json::{Value, json};

use crate::objects::objects;

const EACH: Duration = Duration::from_millis(50);
/// The node lifecycle controller takes a node for dead after 40 s.
const HEARTBEAT: u32 = 100;

/// What the played kubelets do.
#[derive(Clone, Debug, Default)]
pub(crate) struct Script {
    /// Nodes that turn every pod away, and why.
    pub(crate) turn_away: Arc<Mutex<BTreeMap<String, String>>>,
    /// Whether agents say nothing.
    pub(crate) silent: Arc<Mutex<bool>>,
    /// How guests end that are to: by the instance's name, the launcher's exit code.
    pub(crate) end: Arc<Mutex<BTreeMap<String, i64>>>,
}

pub(crate) fn ledgers(client: &Client) -> Api<DynamicObject> {
    objects(client, "pinion.dev", "v1alpha1", "NodeLedger", "")
}

/// Makes a node of that many cores, of which the first is the host's, and its ledger.
pub(crate) async fn add(client: &Client, name: &str, cores: u32) {
    let nodes = objects(client, "", "v1", "Node", "");
    let node = json!({"apiVersion": "v1", "kind": "Node", "metadata": {"name": name, "labels": {
        "kubernetes.io/hostname": name, "kubernetes.io/arch": "amd64", "kubernetes.io/os": "linux",
    }}});
    create(&nodes, &node).await;
    beat(&nodes, name).await;
    let machine = Shape::new(1, cores).memory(64 << 30).build();
    let status = LedgerStatus {
        machine: Outline::of(&machine, |_| true),
        housekeeping: "0".parse().unwrap(),
        heard: Some(Timestamp::now()),
        version: "played".into(),
        ..LedgerStatus::default()
    };
    let ledger =
        json!({"apiVersion": "pinion.dev/v1alpha1", "kind": "NodeLedger", "metadata": {"name": name}});
    create(&ledgers(client), &ledger).await;
    write(client, name, &status).await;
}

async fn create(api: &Api<DynamicObject>, object: &Value) {
    let object: DynamicObject = serde_json::from_value(object.clone()).unwrap();
    api.create(&PostParams::default(), &object).await.unwrap();
}

async fn write(client: &Client, node: &str, status: &LedgerStatus) {
    let patch = Patch::Merge(json!({"status": status}));
    ledgers(client).patch_status(node, &PatchParams::default(), &patch).await.unwrap();
}

async fn beat(nodes: &Api<DynamicObject>, name: &str) {
    let now = Timestamp::from_second(Timestamp::now().as_second()).unwrap().to_string();
    let room = json!({
        "cpu": "64", "memory": "64Gi", "pods": "200", "hugepages-2Mi": "0",
        "devices.kubevirt.io/kvm": "1000", "pinion.dev/agent": "1000",
    });
    let status = json!({"status": {
        "capacity": room, "allocatable": room,
        "conditions": [{"type": "Ready", "status": "True", "reason": "KubeletReady", "lastHeartbeatTime": now,
            "lastTransitionTime": "2026-11-22T00:00:00Z"}],
    }});
    nodes.patch_status(name, &PatchParams::default(), &Patch::Merge(status)).await.unwrap();
}

/// Plays all nodes for ever.
pub(crate) async fn play(client: Client, names: Vec<String>, script: Script) {
    let pods = objects(&client, "", "v1", "Pod", "default");
    let nodes = objects(&client, "", "v1", "Node", "");
    let mut count = 0u32;
    loop {
        count = count.wrapping_add(1);
        if count.is_multiple_of(HEARTBEAT) {
            for name in &names {
                beat(&nodes, name).await;
            }
        }
        let list = pods.list(&ListParams::default()).await.map(|list| list.items).unwrap_or_default();
        for pod in &list {
            kubelet(&pods, pod, &script).await;
        }
        if !*script.silent.lock().unwrap() {
            for name in &names {
                agent(&client, name, &list).await;
            }
        }
        tokio::time::sleep(EACH).await;
    }
}

/// Starts it, ends it, turns it away, takes it off.
async fn kubelet(pods: &Api<DynamicObject>, pod: &DynamicObject, script: &Script) {
    let name = pod.name_any();
    let Some(node) = pod.data.pointer("/spec/nodeName").and_then(Value::as_str) else { return };
    let phase = pod.data.pointer("/status/phase").and_then(Value::as_str).unwrap_or_default();
    if pod.metadata.deletion_timestamp.is_some() {
        let now = DeleteParams { grace_period_seconds: Some(0), ..DeleteParams::default() };
        let _ = pods.delete(&name, &now).await;
        return;
    }
    let instance = pod.labels().get("vm.kubevirt.io/name").cloned().unwrap_or_default();
    let away = script.turn_away.lock().unwrap().get(node).cloned();
    let end = script.end.lock().unwrap().get(&instance).copied();
    let status = match (phase, away, end) {
        ("Pending", Some(reason), _) => {
            json!({"phase": "Failed", "reason": reason, "message": "it does not fit"})
        }
        ("Pending", None, _) => json!({
            "phase": "Running", "podIPs": [{"ip": "10.244.0.9"}], "podIP": "10.244.0.9", "qosClass": "Guaranteed",
            "conditions": [{"type": "Ready", "status": "True"}, {"type": "PodScheduled", "status": "True"}],
            "containerStatuses": [state(&json!({"running": {"startedAt": "2026-11-22T00:00:00Z"}}))],
        }),
        ("Running", _, Some(code)) => json!({
            "phase": if code == 0 { "Succeeded" } else { "Failed" },
            "conditions": [{"type": "Ready", "status": "False"}],
            "containerStatuses": [state(&json!({"terminated": {"exitCode": code, "message": "as the script says"}}))],
        }),
        _ => return,
    };
    let _ = pods.patch_status(&name, &PatchParams::default(), &Patch::Merge(json!({"status": status}))).await;
}

fn state(state: &Value) -> Value {
    json!({"name": "compute", "image": "x", "imageID": "x", "ready": true, "restartCount": 0, "state": state})
}

/// Says what runs, on the CPUs that were booked.
async fn agent(client: &Client, node: &str, pods: &[DynamicObject]) {
    let Ok(ledger) = ledgers(client).get(node).await else { return };
    let part = |name: &str| ledger.data.get(name).cloned().unwrap_or_default();
    let spec: LedgerSpec = serde_json::from_value(part("spec")).unwrap_or_default();
    let mut status: LedgerStatus = serde_json::from_value(part("status")).unwrap_or_default();
    let (guests, holdings) = (status.guests.clone(), status.holdings.clone());
    let owner = |pod: &DynamicObject| format!("default/{}", pod.labels().get("vm.kubevirt.io/name").unwrap());
    let runs = |pod: &&DynamicObject| {
        pod.data.pointer("/spec/nodeName").and_then(Value::as_str) == Some(node)
            && pod.data.pointer("/status/phase").and_then(Value::as_str) == Some("Running")
    };
    let running: Vec<&DynamicObject> = pods.iter().filter(runs).collect();
    let owners: BTreeSet<String> = running.iter().map(|pod| owner(pod)).collect();
    status.holdings.retain(|holding| owners.contains(&holding.owner));
    status.guests.retain(|guest| running.iter().any(|pod| pod.uid().as_deref() == Some(&guest.pod_uid)));
    for pod in running {
        let (uid, owner) = (pod.uid().unwrap_or_default(), owner(pod));
        let booked = spec.bookings.iter().find(|booking| booking.holding.owner == owner);
        if status.guests.iter().any(|guest| guest.pod_uid == uid) {
            continue;
        }
        let Some(booked) = booked else { continue };
        let mut holding = booked.holding.clone();
        holding.state = HoldingState::Committed;
        status.guests.push(GuestReport {
            pod_uid: uid,
            owner,
            phase: GuestPhase::Running,
            verdict: "holds".into(),
            mismatches: Vec::new(),
            cpus: holding.cpus.clone(),
            message: None,
            since: Timestamp::now(),
        });
        status.holdings.push(holding);
    }
    if (&status.guests, &status.holdings) != (&guests, &holdings) {
        status.generation += 1;
        write(client, node, &status).await;
    }
}
