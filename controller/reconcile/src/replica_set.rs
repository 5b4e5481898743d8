//! What is to be done next for a replica set: how many of its instances there are to be.

use std::cmp::Reverse;
use std::collections::BTreeSet;

use jiff::Timestamp;
use pinion_api::{
    Document, LabelSelector, Place, Problems, ReplicaSetStatus, Requirement,
    VirtualMachineInstanceReplicaSet, parse_at,
};
use serde_json::{Value, json};
use sha2::{Digest, Sha256};

use crate::condition::{Conditions, text};
use crate::event::Event;
use crate::instance::{self, Instance, Phase};
use crate::object::Meta;

/// The kind.
pub const KIND: &str = "VirtualMachineInstanceReplicaSet";
/// Most instances that are made or deleted at a look: the next look goes on.
const AT_ONCE: usize = 100;

/// A replica set as it is stored.
#[derive(Clone, Debug)]
pub struct ReplicaSet {
    /// Its metadata.
    pub meta: Meta,
    /// What it is; or what is wrong with it.
    pub spec: Result<Box<VirtualMachineInstanceReplicaSet>, Problems>,
    /// The template as it is written.
    pub template: Value,
    /// Its status.
    pub status: Option<Value>,
}

/// A thing to do.
#[derive(Clone, Debug, PartialEq)]
pub enum Step {
    /// Make this instance.
    CreateInstance(Value),
    /// Delete the instance of that name and identity.
    DeleteInstance(String, String),
}

/// What is to be done, and what is to be said.
#[derive(Clone, Debug, PartialEq)]
pub struct Next {
    /// In this order.
    pub steps: Vec<Step>,
    /// Its status.
    pub status: Value,
    /// What is told of it.
    pub events: Vec<Event>,
}

impl ReplicaSet {
    /// Reads one. It never fails: what is wrong is in it.
    #[must_use]
    pub fn of(object: &Value) -> Self {
        let read = parse_at(Place::Cluster, object.to_string());
        let spec = read.map(|documents| match documents.into_iter().next() {
            Some(Document::ReplicaSet(set)) => set,
            _ => Box::default(),
        });
        Self {
            meta: Meta::of(object),
            spec,
            template: object.pointer("/spec/template").cloned().unwrap_or_default(),
            status: object.get("status").filter(|status| status.is_object()).cloned(),
        }
    }

    /// Its n-th name: always the same, so that two controllers that make one make the same one.
    fn name(&self, number: usize) -> String {
        let digest = Sha256::digest(format!("{}/{number}", self.meta.uid));
        let suffix: String = digest.iter().take(3).map(|byte| format!("{byte:02x}")).collect();
        format!("{}-{suffix}", self.meta.name)
    }
}

/// What is to be done next; `own` are the instances that are this set's, in any order.
///
/// 1. An instance that has ended is deleted, and another takes its place.
/// 2. Of those that are too many, first go those that do not run, and of these the youngest.
#[must_use]
pub fn next(set: &ReplicaSet, own: &[&Instance], now: Timestamp) -> Next {
    let mut active: Vec<&Instance> =
        own.iter().copied().filter(|i| i.meta.deleted.is_none() && !i.phase().is_final()).collect();
    let mut next = Next { steps: Vec::new(), status: status(set, &active, now), events: Vec::new() };
    let Ok(spec) = set.spec.as_ref().map(|set| &set.spec) else { return next };
    if set.meta.deleted.is_some() || spec.paused == Some(true) {
        return next;
    }
    for ended in own.iter().filter(|i| i.meta.deleted.is_none() && i.phase().is_final()).take(AT_ONCE) {
        next.delete(ended, "it has ended");
    }
    let wanted = usize::try_from(spec.replicas.unwrap_or(1)).unwrap_or(0);
    if active.len() > wanted {
        active.sort_by_key(|i| (is_running(i), Reverse(i.meta.created), i.meta.name.clone()));
        let many = active.len().saturating_sub(wanted).min(AT_ONCE);
        active.iter().take(many).for_each(|i| next.delete(i, "there are more than the set wants"));
    }
    let taken: BTreeSet<&str> = own.iter().map(|i| i.meta.name.as_str()).collect();
    let free = (0usize..).map(|number| set.name(number)).filter(|name| !taken.contains(name.as_str()));
    for name in free.take(wanted.saturating_sub(active.len()).min(AT_ONCE)) {
        next.steps.push(Step::CreateInstance(instance::of_template(&set.template, (&set.meta, KIND), &name)));
        next.events.push(Event::normal("SuccessfulCreate", format!("instance {name:?} is made")));
    }
    next
}

fn is_running(instance: &Instance) -> bool {
    instance.phase() == Phase::Running
}

impl Next {
    fn delete(&mut self, instance: &Instance, why: &str) {
        let meta = &instance.meta;
        self.steps.push(Step::DeleteInstance(meta.name.clone(), meta.uid.clone()));
        self.events
            .push(Event::normal("SuccessfulDelete", format!("instance {:?} is deleted: {why}", meta.name)));
    }
}

fn status(set: &ReplicaSet, active: &[&Instance], now: Timestamp) -> Value {
    let is_ready = |instance: &&&Instance| {
        let list = instance.status.as_ref().and_then(|s| s.get("conditions")).and_then(Value::as_array);
        list.into_iter().flatten().any(|c| text(c, "type") == "Ready" && text(c, "status") == "True")
    };
    let count = |count: usize| i32::try_from(count).unwrap_or(i32::MAX);
    let mut conditions = Conditions::over(set.status.as_ref(), now);
    let selector = match &set.spec {
        Ok(set) => {
            if set.spec.paused == Some(true) {
                conditions.set("ReplicaPaused", Some(true), "Paused", "it leaves its instances alone");
            }
            selector_text(&set.spec.selector)
        }
        Err(problems) => {
            let message = format!("it cannot be acted on: {problems}");
            conditions.set("ReplicaFailure", Some(true), "InvalidSpec", &message);
            String::new()
        }
    };
    let status = ReplicaSetStatus {
        replicas: Some(count(active.len())),
        ready_replicas: Some(count(active.iter().filter(is_ready).count())),
        label_selector: Some(selector).filter(|text| !text.is_empty()),
        conditions: conditions.done(),
    };
    json!(status)
}

/// A selector as `kubectl -l` has it.
fn selector_text(selector: &LabelSelector) -> String {
    let exact = selector.match_labels.iter().map(|(key, value)| format!("{key}={value}"));
    let test = |test: &Requirement| {
        let values = test.values.join(",");
        match test.operator.as_str() {
            "In" => format!("{} in ({values})", test.key),
            "NotIn" => format!("{} notin ({values})", test.key),
            "Exists" => test.key.clone(),
            _ => format!("!{}", test.key),
        }
    };
    exact.chain(selector.match_expressions.iter().map(test)).collect::<Vec<_>>().join(",")
}
