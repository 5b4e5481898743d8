//! A look at an object: what is to be done is worked out by `pinion-reconcile`, and done here.
//!
//! Called by the workers, for an object by one of them at a time. Everything is read from the world, which can be a moment
//! behind what this replica has written itself; so each request says what it is about by its identity, and doing it twice
//! does it once.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;
use std::time::Duration;

use jiff::Timestamp;
use pinion_api::{Quantity, VirtualMachineInstance};
use pinion_nodes::NowhereToRun;
use pinion_reconcile::instance::{self, Instance, Phase, Seen, Step};
use pinion_reconcile::pod::{Launcher, LauncherImages, PodView, launcher_pod};
use pinion_reconcile::{Event, Meta, machine, replica_set, status_patch};
use serde_json::Value;

use crate::api::{Api, Created, RequestError, now};
use crate::clerk::{Booked, Clerk};
use crate::kinds::Kind;
use crate::metrics::Metrics;
use crate::queue::{Key, Queue};
use crate::world::World;

/// How long a claim that is missing is waited for before it is looked for again.
const CLAIM_AGAIN: Duration = Duration::from_secs(5);

/// What the workers have.
#[derive(Clone, Debug)]
pub(crate) struct Desk {
    /// What there is.
    pub(crate) world: Arc<World>,
    /// Places on nodes.
    pub(crate) clerk: Arc<Clerk>,
    /// What is to be looked at.
    pub(crate) queue: Arc<Queue>,
    /// The API server.
    pub(crate) api: Api,
    /// What is counted.
    pub(crate) metrics: Metrics,
    /// Image of the launcher, and when it is pulled.
    pub(crate) launcher: (LauncherImages, String),
}

impl Desk {
    /// Looks at an object, once.
    ///
    /// # Errors
    /// [`RequestError`]: it is looked at again.
    pub(crate) async fn look(&self, key: &Key) -> Result<(), RequestError> {
        match key.kind {
            Kind::Machine => self.machine(key).await,
            Kind::Instance => self.instance(key).await,
            Kind::ReplicaSet => self.replica_set(key).await,
            _ => Ok(()),
        }
    }

    async fn machine(&self, key: &Key) -> Result<(), RequestError> {
        let name = (key.namespace.clone(), key.name.clone());
        let Some((machine, instance)) = self.world.machine(&name) else { return Ok(()) };
        let next = machine::next(machine::Seen { machine: &machine, instance: instance.as_deref() }, now());
        let meta = &machine.meta;
        for step in &next.steps {
            match step {
                machine::Step::CreateInstance(object) => self.make_instance(object).await?,
                machine::Step::DeleteInstance(uid) => {
                    let instance = Meta { uid: uid.clone(), ..named(meta) };
                    self.api.delete(Kind::Instance, &instance).await?;
                }
                machine::Step::DropFinalizer => {
                    return self.api.drop_finalizer(Kind::Machine, meta, machine::FINALIZER).await;
                }
                machine::Step::LookAgain(at) => self.queue.add(key.clone(), until(*at)),
            }
        }
        if let Some(patch) = status_patch(machine::KIND, meta, machine.status.as_ref(), &next.status) {
            self.api.apply(Kind::Machine, meta, &patch, false).await?;
        }
        self.tell(Kind::Machine, meta, &next.events);
        Ok(())
    }

    async fn replica_set(&self, key: &Key) -> Result<(), RequestError> {
        let name = (key.namespace.clone(), key.name.clone());
        let Some((set, own)) = self.world.replica_set(&name) else { return Ok(()) };
        let own: Vec<&Instance> = own.iter().map(Arc::as_ref).collect();
        let next = replica_set::next(&set, &own, now());
        for step in &next.steps {
            match step {
                replica_set::Step::CreateInstance(object) => self.make_instance(object).await?,
                replica_set::Step::DeleteInstance(name, uid) => {
                    let namespace = set.meta.namespace.clone();
                    let instance =
                        Meta { name: name.clone(), namespace, uid: uid.clone(), ..Meta::default() };
                    self.api.delete(Kind::Instance, &instance).await?;
                }
            }
        }
        if let Some(patch) = status_patch(replica_set::KIND, &set.meta, set.status.as_ref(), &next.status) {
            self.api.apply(Kind::ReplicaSet, &set.meta, &patch, false).await?;
        }
        self.tell(Kind::ReplicaSet, &set.meta, &next.events);
        Ok(())
    }

    /// What was made is in the world at once: the next look must not make another.
    async fn make_instance(&self, object: &Value) -> Result<(), RequestError> {
        if let Created::Made(made) = self.api.create(Kind::Instance, object).await? {
            let concerned = self.world.made(Kind::Instance, &made);
            concerned.into_iter().for_each(|key| self.queue.add(key, Duration::ZERO));
        }
        Ok(())
    }

    /// Looks at an instance. What no node takes, and what was booked just now, is looked at again at once with that in mind,
    /// so that its status is written once.
    async fn instance(&self, key: &Key) -> Result<(), RequestError> {
        let name = (key.namespace.clone(), key.name.clone());
        let Some((instance, pod)) = self.world.instance(&name) else {
            self.clerk.waits_no_more(key);
            // It went without being asked: nobody had looked at it when it was stored.
            for uid in self.clerk.booked_for(&format!("{}/{}", key.namespace, key.name)) {
                self.clerk.unbook(&self.api, &uid).await?;
                self.wake_waiting();
            }
            return Ok(());
        };
        let mut news = News::default();
        let mut pod = pod;
        loop {
            let booked = self.clerk.booked(&instance.meta.uid);
            let next = self.next(&instance, pod.as_deref(), booked.as_deref(), &news);
            let again = self.follow(key, &instance, &mut pod, &next.steps, &mut news).await?;
            if again {
                continue;
            }
            if next.steps.contains(&Step::DropFinalizer) {
                return Ok(());
            }
            return self.say(&instance, &next).await;
        }
    }

    fn next(
        &self,
        instance: &Instance,
        pod: Option<&PodView>,
        booked: Option<&str>,
        news: &News,
    ) -> instance::Next {
        let node = pod.and_then(|pod| pod.node.as_deref());
        let report = node.zip(pod).and_then(|(node, pod)| self.clerk.report(node, &pod.meta.uid));
        let held = node.and_then(|node| self.clerk.held(node, &instance.meta.full_name()));
        let trouble = node.and_then(|node| self.clerk.trouble(node));
        let nowhere = news.nowhere.as_ref().map(ToString::to_string);
        let seen = Seen {
            instance,
            pod,
            booked,
            nowhere: nowhere.as_deref(),
            missing_claim: news.missing_claim.as_deref(),
            report: report.as_ref(),
            held: held.as_ref(),
            node_trouble: trouble.as_deref(),
            image: instance.spec.as_ref().map_or("", |guest| self.launcher.0.of(guest)),
        };
        instance::next(seen, now())
    }

    /// Whether it is to be looked at again at once.
    async fn follow(
        &self,
        key: &Key,
        instance: &Instance,
        pod: &mut Option<Arc<PodView>>,
        steps: &[Step],
        news: &mut News,
    ) -> Result<bool, RequestError> {
        for step in steps {
            match step {
                Step::Book => {
                    let Ok(guest) = &instance.spec else { continue };
                    if self.misses_claim(key, guest, news).await? {
                        return Ok(true);
                    }
                    let booked = self.clerk.book(&self.api, key, (&instance.meta.uid, guest)).await?;
                    let outcome = if matches!(booked, Booked::There) { "booked" } else { "nowhere" };
                    self.metrics.bookings.with_label_values(&[outcome]).inc();
                    if let Booked::Nowhere(nowhere) = booked {
                        news.nowhere = Some(nowhere);
                    }
                    self.count_waiting();
                    return Ok(true);
                }
                Step::CreatePod => {
                    let Ok(guest) = &instance.spec else { continue };
                    if self.misses_claim(key, guest, news).await? {
                        return Ok(true);
                    }
                    if let Some(made) = self.make_pod(instance, news).await? {
                        *pod = Some(Arc::new(made));
                        return Ok(true);
                    }
                }
                Step::DeletePod => {
                    if let Some(pod) = pod.as_deref() {
                        self.api.delete(Kind::Pod, &pod.meta).await?;
                    }
                }
                Step::Avoid(node, why) => self.clerk.avoid(node, why),
                Step::Unbook => {
                    self.clerk.unbook(&self.api, &instance.meta.uid).await?;
                    self.wake_waiting();
                }
                Step::DropFinalizer => {
                    self.clerk.waits_no_more(key);
                    tracing::info!("instance {} is gone", instance.meta.full_name());
                    self.api.drop_finalizer(Kind::Instance, &instance.meta, instance::FINALIZER).await?;
                }
                Step::LookAgain(after) => {
                    self.queue.add(key.clone(), Duration::try_from(*after).unwrap_or(Duration::ZERO));
                }
            }
        }
        Ok(false)
    }

    /// The pod of an instance that has its place. What was made is in the world at once.
    async fn make_pod(&self, instance: &Instance, news: &News) -> Result<Option<PodView>, RequestError> {
        let (Ok(guest), Some(node)) = (&instance.spec, self.clerk.booked(&instance.meta.uid)) else {
            return Ok(None);
        };
        let launcher = Launcher {
            images: &self.launcher.0,
            pull_policy: &self.launcher.1,
            node: &node,
            threads_per_core: self.clerk.threads_per_core(&node),
            attempt: instance.attempts(),
            block_claims: &news.block_claims,
            claim_bytes: &news.claim_bytes,
        };
        let object = launcher_pod(&instance.meta, guest, &launcher);
        match self.api.create(Kind::Pod, &object).await? {
            Created::Made(made) => {
                let _ = self.world.made(Kind::Pod, &made);
                Ok(Some(PodView::of(&made)))
            }
            // The watch tells of it.
            Created::WasThere => Ok(None),
        }
    }

    /// Whether a claim of an instance is not there: it is looked for again in a while. How large claims are, and which of them
    /// have no file system, is noted; they are looked at once.
    async fn misses_claim(
        &self,
        key: &Key,
        guest: &VirtualMachineInstance,
        news: &mut News,
    ) -> Result<bool, RequestError> {
        if std::mem::replace(&mut news.has_claims, true) {
            return Ok(false);
        }
        for name in guest.spec.volumes.iter().filter_map(|volume| volume.any_claim()) {
            match self.api.get(Kind::Claim, &key.namespace, name).await {
                Ok(claim) => {
                    if claim.pointer("/spec/volumeMode").and_then(Value::as_str) == Some("Block") {
                        news.block_claims.insert(name.to_owned());
                    }
                    let capacity = claim.pointer("/status/capacity/storage").and_then(Value::as_str);
                    let bytes =
                        capacity.and_then(|text| text.parse::<Quantity>().ok()).and_then(|q| q.whole());
                    news.claim_bytes.extend(bytes.map(|bytes| (name.to_owned(), bytes)));
                }
                Err(error) if error.is_absent() => {
                    news.missing_claim = Some(name.to_owned());
                    self.queue.add(key.clone(), CLAIM_AGAIN);
                    return Ok(true);
                }
                Err(error) => return Err(error),
            }
        }
        Ok(false)
    }

    /// Writes an instance's status, and tells what happened.
    async fn say(&self, instance: &Instance, next: &instance::Next) -> Result<(), RequestError> {
        let meta = &instance.meta;
        if let Some(mut patch) = status_patch(instance::KIND, meta, instance.status.as_ref(), &next.status) {
            if let Some(node) = next.status.get("nodeName") {
                patch["metadata"]["labels"] = serde_json::json!({"kubevirt.io/nodeName": node});
            }
            self.api.apply(Kind::Instance, meta, &patch, true).await?;
            self.observe(instance, &next.status);
        }
        self.tell(Kind::Instance, meta, &next.events);
        Ok(())
    }

    /// Counts a phase that was come to.
    fn observe(&self, instance: &Instance, status: &Value) {
        let phase = status.get("phase").and_then(Value::as_str).map_or(Phase::Pending, Phase::of);
        let before = instance.phase();
        if phase == before && instance.status.is_some() {
            return;
        }
        let at = now();
        let seconds = |from: Timestamp| at.duration_since(from).as_secs_f64().max(0.0);
        if let Some(created) = instance.meta.created {
            self.metrics.from_creation.with_label_values(&[phase.as_str()]).observe(seconds(created));
        }
        let came = instance
            .status
            .as_ref()
            .and_then(|s| s.pointer("/phaseTransitionTimestamps"))
            .and_then(Value::as_array);
        let last = came
            .and_then(|list| list.last())
            .and_then(|t| t.get("phaseTransitionTimestamp"))
            .and_then(Value::as_str);
        let since = last.and_then(|text| text.parse().ok()).or(instance.meta.created);
        if let Some(since) = since.filter(|_| phase != before) {
            let labels = [phase.as_str(), before.as_str()];
            self.metrics.between_phases.with_label_values(&labels).observe(seconds(since));
        }
        if let Some(deleted) = instance.meta.deleted.filter(|_| phase.is_final()) {
            self.metrics.from_deletion.with_label_values(&[phase.as_str()]).observe(seconds(deleted));
        }
    }

    fn count_waiting(&self) {
        self.metrics.waiting.set(i64::try_from(self.clerk.waiting_count()).unwrap_or(i64::MAX));
    }

    /// There is room again.
    pub(crate) fn wake_waiting(&self) {
        self.clerk.waiting().into_iter().for_each(|key| self.queue.add(key, Duration::ZERO));
    }

    /// Nobody waits for events.
    fn tell(&self, kind: Kind, meta: &Meta, events: &[Event]) {
        if events.is_empty() {
            return;
        }
        for event in events {
            tracing::info!("{} {}: {}: {}", kind.name(), meta.full_name(), event.reason, event.message);
        }
        let (api, meta, events) = (self.api.clone(), meta.clone(), events.to_vec());
        drop(tokio::spawn(async move { api.tell(kind, &meta, &events).await }));
    }
}

/// What was found out at this look.
#[derive(Debug, Default)]
struct News {
    nowhere: Option<NowhereToRun>,
    /// Whether its claims have been looked at.
    has_claims: bool,
    missing_claim: Option<String>,
    block_claims: BTreeSet<String>,
    claim_bytes: BTreeMap<String, u64>,
}

/// The name alone.
fn named(meta: &Meta) -> Meta {
    Meta { name: meta.name.clone(), namespace: meta.namespace.clone(), ..Meta::default() }
}

fn until(at: Timestamp) -> Duration {
    Duration::try_from(at.duration_since(now())).unwrap_or(Duration::ZERO)
}
