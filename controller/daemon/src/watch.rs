//! The watches: what the API server tells goes into the world and to the clerk, and whom it concerns into the queue.
//!
//! A task for each kind. A watch that breaks is begun anew; what has gone meanwhile is found by what is not there any more.

use std::collections::BTreeSet;
use std::sync::Arc;
use std::time::Duration;

use futures_util::{StreamExt, TryStreamExt};
use kube::Client;
use kube::api::DynamicObject;
use kube::runtime::WatchStreamExt;
use kube::runtime::watcher::{Config, Event, watcher};
use serde_json::Value;
use tokio::sync::watch::Sender;

use crate::clerk::Clerk;
use crate::kinds::Kind;
use crate::metrics::Metrics;
use crate::queue::{Key, Queue};
use crate::world::{Name, World};

/// The label of pods that are looked at.
const OUR_PODS: &str = "kubevirt.io=virt-launcher";
/// News that come at the same time are looked at together.
const TOGETHER: Duration = Duration::from_millis(5);

/// Where news go.
#[derive(Clone, Debug)]
pub(crate) struct Sink {
    /// What there is.
    pub(crate) world: Arc<World>,
    /// Nodes and their ledgers.
    pub(crate) clerk: Arc<Clerk>,
    /// Whom it concerns.
    pub(crate) queue: Arc<Queue>,
    /// What is counted.
    pub(crate) metrics: Metrics,
}

/// Watches a kind for ever; `seen` is told once all that there was has been seen.
pub(crate) async fn watch(client: Client, kind: Kind, sink: Sink, seen: Arc<Sender<BTreeSet<Kind>>>) {
    let config = if kind == Kind::Pod { Config::default().labels(OUR_PODS) } else { Config::default() };
    let mut listed: BTreeSet<Name> = BTreeSet::new();
    let stream = watcher(kind.all(&client), config).default_backoff();
    let mut stream = stream.map_err(|error| tracing::warn!("watching {}: {error}", kind.plural())).boxed();
    while let Some(event) = stream.next().await {
        let Ok(event) = event else { continue };
        match event {
            Event::Init => listed.clear(),
            Event::InitApply(object) => {
                listed.insert(name_of(&object));
                sink.apply(kind, object);
            }
            Event::Apply(object) => sink.apply(kind, object),
            Event::Delete(object) => sink.remove(kind, &name_of(&object)),
            Event::InitDone => {
                for name in sink.known(kind).difference(&listed) {
                    sink.remove(kind, name);
                }
                listed.clear();
                seen.send_if_modified(|seen| seen.insert(kind));
            }
        }
    }
}

fn name_of(object: &DynamicObject) -> Name {
    let metadata = &object.metadata;
    (metadata.namespace.clone().unwrap_or_default(), metadata.name.clone().unwrap_or_default())
}

impl Sink {
    fn apply(&self, kind: Kind, mut object: DynamicObject) {
        // Nobody here reads it, and it is most of an object.
        object.metadata.managed_fields = None;
        let object = match serde_json::to_value(&object) {
            Ok(object) => object,
            Err(error) => return tracing::warn!("{}: {error}", kind.plural()),
        };
        self.apply_value(kind, &object);
    }

    /// An object is as it says.
    pub(crate) fn apply_value(&self, kind: Kind, object: &Value) {
        let concerned = match kind {
            Kind::Node => self.clerk.node(object),
            Kind::Ledger => {
                let (mut concerned, owners) = self.clerk.ledger(object);
                concerned.extend(owners.iter().filter_map(|owner| instance_key(owner)));
                concerned
            }
            _ => self.world.apply(kind, object),
        };
        self.look(kind, concerned);
    }

    fn remove(&self, kind: Kind, name: &Name) {
        let concerned = match kind {
            Kind::Node => {
                self.clerk.node_gone(&name.1);
                Vec::new()
            }
            Kind::Ledger => {
                self.clerk.ledger_gone(&name.1);
                Vec::new()
            }
            _ => self.world.remove(kind, name),
        };
        self.look(kind, concerned);
    }

    fn look(&self, kind: Kind, concerned: Vec<Key>) {
        concerned.into_iter().for_each(|key| self.queue.add(key, TOGETHER));
        self.metrics.queue.set(i64::try_from(self.queue.len()).unwrap_or(i64::MAX));
        if !matches!(kind, Kind::Node | Kind::Ledger) {
            let count = i64::try_from(self.world.count(kind)).unwrap_or(i64::MAX);
            self.metrics.objects.with_label_values(&[kind.plural()]).set(count);
        }
    }

    fn known(&self, kind: Kind) -> BTreeSet<Name> {
        match kind {
            Kind::Node | Kind::Ledger => {
                self.clerk.names(kind).into_iter().map(|name| (String::new(), name)).collect()
            }
            _ => self.world.names(kind),
        }
    }
}

/// The instance that an agent calls `namespace/name`.
fn instance_key(owner: &str) -> Option<Key> {
    let (namespace, name) = owner.split_once('/')?;
    Some(Key { kind: Kind::Instance, namespace: namespace.to_owned(), name: name.to_owned() })
}
