//! Nodes that are played: driven by watches, so that a thousand of them cost little themselves.
//!
//! A kubelet says of a pod that it runs as soon as it is bound to its node, and an agent says of the pod's guest that it
//! runs as soon as the pod does.

use std::collections::{BTreeMap, BTreeSet, HashMap};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use futures_util::StreamExt;
use jiff::Timestamp;
use kube::api::{Api, DeleteParams, DynamicObject, Patch, PatchParams, PostParams};
use kube::runtime::WatchStreamExt;
use kube::runtime::watcher::{Config, Event, watcher};
use kube::{Client, ResourceExt};
use pinion_machine::Outline;
use pinion_nodes::{GuestPhase, GuestReport, LedgerSpec, LedgerStatus};
use pinion_planner::{HoldingState, Shape};
use serde_json::{Value, json};
use tokio::sync::{Notify, Semaphore};
use tokio::task::JoinSet;

use crate::objects::objects;

/// Cores of a node; the first is the host's.
const CORES: u32 = 33;
/// How often an agent is heard.
const HEARD_EACH: Duration = Duration::from_secs(60);
/// Requests of the played nodes at the same time.
const AT_ONCE: usize = 16;

/// When what happened to each machine.
#[derive(Debug, Default)]
pub(crate) struct Moments(Mutex<HashMap<String, [Option<Instant>; 4]>>);

const NAMES: [&str; 3] = ["pod there", "pod bound", "Running"];

impl Moments {
    fn all(&self) -> MutexGuard<'_, HashMap<String, [Option<Instant>; 4]>> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// It is about to be made.
    pub(crate) fn created(&self, name: &str) {
        self.came(name, 0);
    }

    fn came(&self, name: &str, to: usize) {
        if let Some(moment) = self.all().entry(name.to_owned()).or_default().get_mut(to) {
            moment.get_or_insert_with(Instant::now);
        }
    }

    /// How many of them run.
    pub(crate) fn running(&self) -> usize {
        self.all().values().filter(|moments| moments[3].is_some()).count()
    }

    /// From the beginning to each moment, the shortest first.
    pub(crate) fn spans(&self) -> Vec<(&'static str, Vec<Duration>)> {
        let all = self.all();
        let of = |(number, name): (usize, &'static str)| {
            let span = |moments: &[Option<Instant>; 4]| {
                Some(moments.get(number + 1).copied()??.duration_since(moments[0]?))
            };
            let mut spans: Vec<Duration> = all.values().filter_map(span).collect();
            spans.sort();
            (name, spans)
        };
        NAMES.into_iter().enumerate().map(of).collect()
    }
}

/// What is known of a node.
#[derive(Debug, Default)]
struct Node {
    booked: LedgerSpec,
    status: LedgerStatus,
    /// Guests whose pods run: owners by the pods' identities.
    running: BTreeMap<String, String>,
}

/// Plays the nodes until it is dropped.
#[derive(Debug)]
pub(crate) struct Player {
    _tasks: JoinSet<()>,
}

struct Stage {
    client: Client,
    nodes: Mutex<HashMap<String, Node>>,
    changed: Mutex<BTreeSet<String>>,
    news: Notify,
    moments: Arc<Moments>,
    turns: Arc<Semaphore>,
}

impl Player {
    /// Makes the nodes with their ledgers, and plays them.
    pub(crate) async fn start(
        client: Client,
        count: usize,
        moments: Arc<Moments>,
    ) -> Result<Self, kube::Error> {
        let names: Vec<String> = (0..count).map(|number| format!("node-{number:04}")).collect();
        let mut making: JoinSet<Result<(), kube::Error>> = JoinSet::new();
        let status = status();
        let turns = Arc::new(Semaphore::new(AT_ONCE));
        for name in names.clone() {
            let (client, status, turns) = (client.clone(), status.clone(), Arc::clone(&turns));
            making.spawn(async move {
                let _turn = turns.acquire_owned().await;
                make(&client, &name, &status).await
            });
        }
        while let Some(done) = making.join_next().await {
            done.unwrap_or(Ok(()))?;
        }
        let node = || Node { status: status.clone(), ..Node::default() };
        let nodes = names.iter().map(|name| (name.clone(), node())).collect();
        let stage = Arc::new(Stage {
            client,
            nodes: Mutex::new(nodes),
            changed: Mutex::default(),
            news: Notify::new(),
            moments,
            turns,
        });
        let mut tasks = JoinSet::new();
        tasks.spawn(Arc::clone(&stage).kubelets());
        tasks.spawn(Arc::clone(&stage).ledgers());
        tasks.spawn(Arc::clone(&stage).instances());
        tasks.spawn(Arc::clone(&stage).agents());
        tasks.spawn(stage.hearts(names));
        Ok(Self { _tasks: tasks })
    }
}

fn status() -> LedgerStatus {
    let machine = Shape::new(2, CORES / 2 + 1).memory(256 << 30).build();
    LedgerStatus {
        machine: Outline::of(&machine, |_| true),
        housekeeping: "0".parse().unwrap_or_default(),
        heard: Some(Timestamp::now()),
        version: "played".into(),
        ..LedgerStatus::default()
    }
}

async fn make(client: &Client, name: &str, status: &LedgerStatus) -> Result<(), kube::Error> {
    let create = async |api: Api<DynamicObject>, object: Value| -> Result<(), kube::Error> {
        let object: DynamicObject = serde_json::from_value(object).map_err(kube::Error::SerdeError)?;
        api.create(&PostParams::default(), &object).await.map(drop)
    };
    let nodes = objects(client, "", "v1", "Node", "");
    create(
        nodes.clone(),
        json!({"apiVersion": "v1", "kind": "Node", "metadata": {"name": name, "labels": {
            "kubernetes.io/hostname": name, "kubernetes.io/arch": "amd64", "kubernetes.io/os": "linux",
        }}}),
    )
    .await?;
    let room = json!({
        "cpu": "128", "memory": "512Gi", "pods": "200", "devices.kubevirt.io/kvm": "1000", "pinion.dev/agent": "1000",
    });
    let ready = json!({"status": {
        "capacity": room, "allocatable": room,
        "conditions": [{"type": "Ready", "status": "True", "reason": "KubeletReady",
            "lastHeartbeatTime": "2026-11-22T00:00:00Z", "lastTransitionTime": "2026-11-22T00:00:00Z"}],
    }});
    nodes.patch_status(name, &PatchParams::default(), &Patch::Merge(ready)).await?;
    // Each new node gets the taint of one that is not ready, and nobody is there who takes it away.
    let untainted = Patch::Merge(json!({"spec": {"taints": null}}));
    nodes.patch(name, &PatchParams::default(), &untainted).await?;
    let ledgers = objects(client, "pinion.dev", "v1alpha1", "NodeLedger", "");
    create(
        ledgers.clone(),
        json!({"apiVersion": "pinion.dev/v1alpha1", "kind": "NodeLedger", "metadata": {"name": name}}),
    )
    .await?;
    ledgers
        .patch_status(name, &PatchParams::default(), &Patch::Merge(json!({"status": status})))
        .await
        .map(drop)
}

impl Stage {
    fn nodes(&self) -> MutexGuard<'_, HashMap<String, Node>> {
        self.nodes.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn change(&self, node: &str) {
        self.changed.lock().unwrap_or_else(PoisonError::into_inner).insert(node.to_owned());
        self.news.notify_one();
    }

    /// Starts pods that are bound, and takes off those that are deleted.
    async fn kubelets(self: Arc<Self>) {
        let pods = objects(&self.client, "", "v1", "Pod", "default");
        let ours = Config::default().labels("kubevirt.io=virt-launcher");
        let mut stream = watcher(pods.clone(), ours).default_backoff().boxed();
        while let Some(event) = stream.next().await {
            let Ok(Event::Apply(pod) | Event::InitApply(pod)) = event else { continue };
            let (name, instance) =
                (pod.name_any(), pod.labels().get("vm.kubevirt.io/name").cloned().unwrap_or_default());
            self.moments.came(&instance, 1);
            let text =
                |path: &str| pod.data.pointer(path).and_then(Value::as_str).unwrap_or_default().to_owned();
            let (node, phase) = (text("/spec/nodeName"), text("/status/phase"));
            if node.is_empty() {
                continue;
            }
            self.moments.came(&instance, 2);
            if phase == "Running" {
                if let Some(known) = self.nodes().get_mut(&node) {
                    known.running.insert(pod.uid().unwrap_or_default(), format!("default/{instance}"));
                }
                self.change(&node);
                continue;
            }
            let (pods, turns) = (pods.clone(), Arc::clone(&self.turns));
            let is_deleted = pod.metadata.deletion_timestamp.is_some();
            tokio::spawn(async move {
                let _turn = turns.acquire_owned().await;
                if is_deleted {
                    let now = DeleteParams { grace_period_seconds: Some(0), ..DeleteParams::default() };
                    let _ = pods.delete(&name, &now).await;
                } else {
                    let _ = pods.patch_status(&name, &PatchParams::default(), &Patch::Merge(running())).await;
                }
            });
        }
    }

    /// Learns what is booked.
    async fn ledgers(self: Arc<Self>) {
        let ledgers = objects(&self.client, "pinion.dev", "v1alpha1", "NodeLedger", "");
        let mut stream = watcher(ledgers, Config::default()).default_backoff().boxed();
        while let Some(event) = stream.next().await {
            let Ok(Event::Apply(ledger) | Event::InitApply(ledger)) = event else { continue };
            let spec = ledger.data.get("spec").cloned().unwrap_or_default();
            let booked: LedgerSpec = serde_json::from_value(spec).unwrap_or_default();
            let name = ledger.name_any();
            let is_new = self.nodes().get_mut(&name).is_some_and(|node| {
                let is_new = node.booked != booked;
                node.booked = booked;
                is_new
            });
            if is_new {
                self.change(&name);
            }
        }
    }

    /// Sees who runs.
    async fn instances(self: Arc<Self>) {
        let instances = objects(&self.client, "kubevirt.io", "v1", "VirtualMachineInstance", "default");
        let mut stream = watcher(instances, Config::default()).default_backoff().boxed();
        while let Some(event) = stream.next().await {
            let Ok(Event::Apply(instance) | Event::InitApply(instance)) = event else { continue };
            if instance.data.pointer("/status/phase").and_then(Value::as_str) == Some("Running") {
                self.moments.came(&instance.name_any(), 3);
            }
        }
    }

    /// Says of each node what has changed there. All of it is said before the next, so that nothing older comes after it.
    async fn agents(self: Arc<Self>) {
        loop {
            self.news.notified().await;
            let changed = std::mem::take(&mut *self.changed.lock().unwrap_or_else(PoisonError::into_inner));
            let mut writes = JoinSet::new();
            for name in changed {
                let Some(status) = self.nodes().get_mut(&name).and_then(told) else { continue };
                let (client, turns) = (self.client.clone(), Arc::clone(&self.turns));
                writes.spawn(async move {
                    let _turn = turns.acquire_owned().await;
                    let ledgers = objects(&client, "pinion.dev", "v1alpha1", "NodeLedger", "");
                    let _ = ledgers.patch_status(&name, &PatchParams::default(), &Patch::Merge(status)).await;
                });
            }
            let _ = writes.join_all().await;
        }
    }

    /// Agents are heard of, one after the other.
    async fn hearts(self: Arc<Self>, names: Vec<String>) {
        let ledgers = objects(&self.client, "pinion.dev", "v1alpha1", "NodeLedger", "");
        let pause = HEARD_EACH / u32::try_from(names.len()).unwrap_or(u32::MAX);
        for name in names.iter().cycle() {
            let heard = Patch::Merge(json!({"status": {"heard": Timestamp::now()}}));
            let _ = ledgers.patch_status(name, &PatchParams::default(), &heard).await;
            tokio::time::sleep(pause).await;
        }
    }
}

fn running() -> Value {
    let state = json!({"running": {"startedAt": "2026-11-22T00:00:00Z"}});
    json!({"status": {
        "phase": "Running", "podIPs": [{"ip": "10.244.0.9"}], "podIP": "10.244.0.9", "qosClass": "Guaranteed",
        "conditions": [{"type": "Ready", "status": "True"}, {"type": "PodScheduled", "status": "True"}],
        "containerStatuses": [
            {"name": "compute", "image": "x", "imageID": "x", "ready": true, "restartCount": 0, "state": state},
        ],
    }})
}

/// What an agent has to say, if that is news.
fn told(node: &mut Node) -> Option<Value> {
    let mut is_news = false;
    for (uid, owner) in &node.running {
        let booked = node.booked.bookings.iter().find(|booking| booking.holding.owner == *owner);
        let Some(booked) = booked.filter(|_| !node.status.guests.iter().any(|guest| guest.pod_uid == *uid))
        else {
            continue;
        };
        let mut holding = booked.holding.clone();
        holding.state = HoldingState::Committed;
        node.status.guests.push(GuestReport {
            pod_uid: uid.clone(),
            owner: owner.clone(),
            phase: GuestPhase::Running,
            verdict: "holds".into(),
            mismatches: Vec::new(),
            cpus: holding.cpus.clone(),
            message: None,
            since: Timestamp::now(),
        });
        node.status.holdings.push(holding);
        is_news = true;
    }
    node.status.generation += u64::from(is_news);
    is_news.then(|| json!({"status": node.status}))
}
