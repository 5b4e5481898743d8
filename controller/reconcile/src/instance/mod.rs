//! What is to be done next for a virtual machine instance.
//!
//! An instance goes one way: it is booked on a node, gets a pod there, is armed and verified by the node's agent, runs, and
//! ends. A pod that the kubelet turns away before anything of it ran is replaced by another, elsewhere; one in which the
//! guest has run is not: the instance has ended with it.

mod phase;
mod status;

use jiff::{SignedDuration, Timestamp};
use pinion_api::{Document, Place, Problems, VirtualMachineInstance, parse_at};
use pinion_nodes::GuestReport;
use pinion_planner::Holding;
use serde_json::{Value, json};

use crate::event::Event;
use crate::object::Meta;
use crate::pod::PodView;

pub use phase::Phase;

/// Keeps an instance until its pod is gone.
pub const FINALIZER: &str = VirtualMachineInstance::FINALIZER;
/// The kind.
pub const KIND: &str = "VirtualMachineInstance";

/// How long a scheduler may look for room for a pod on the node that it is for.
const SCHEDULED_WITHIN: SignedDuration = SignedDuration::from_secs(10);

/// An instance as it is stored.
#[derive(Clone, Debug)]
pub struct Instance {
    /// Its metadata.
    pub meta: Meta,
    /// What it asks for, with every default; or what is wrong with it: an older version has let it in.
    pub spec: Result<VirtualMachineInstance, Problems>,
    /// Its status.
    pub status: Option<Value>,
}

/// What there is of an instance.
#[derive(Clone, Copy, Debug)]
pub struct Seen<'a> {
    /// It.
    pub instance: &'a Instance,
    /// Its pod.
    pub pod: Option<&'a PodView>,
    /// The node that it is booked on.
    pub booked: Option<&'a str>,
    /// Why no node takes it, where that was asked just now.
    pub nowhere: Option<&'a str>,
    /// A claim of its that is not there, where that was asked just now.
    pub missing_claim: Option<&'a str>,
    /// What the agent of its node says of it.
    pub report: Option<&'a GuestReport>,
    /// What it has of its node, as the agent's ledger says.
    pub held: Option<&'a Holding>,
    /// What is wrong with its node.
    pub node_trouble: Option<&'a str>,
    /// Image of the launcher.
    pub image: &'a str,
}

/// A thing to do.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Step {
    /// Find a node and book the guest there; then ask again.
    Book,
    /// Make its pod on the node where it is booked.
    CreatePod,
    /// Delete its pod.
    DeletePod,
    /// Book nobody on that node for a while: why.
    Avoid(String, String),
    /// Give its place back.
    Unbook,
    /// Let it go.
    DropFinalizer,
    /// Look again after so long.
    LookAgain(SignedDuration),
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

/// An instance as a template has it, which that owner manages.
pub(crate) fn of_template(template: &Value, (owner, kind): (&Meta, &str), name: &str) -> Value {
    let of = |field: &str| {
        let found = template.get("metadata").and_then(|metadata| metadata.get(field)).cloned();
        found.filter(Value::is_object).unwrap_or_else(|| json!({}))
    };
    json!({
        "apiVersion": "kubevirt.io/v1",
        "kind": KIND,
        "metadata": {
            "name": name,
            "namespace": owner.namespace,
            "labels": of("labels"),
            "annotations": of("annotations"),
            "ownerReferences": [owner.reference(kind)],
            "finalizers": [FINALIZER],
        },
        "spec": template.get("spec").cloned().unwrap_or_default(),
    })
}

impl Instance {
    /// Reads one. It never fails: what is wrong is in it.
    #[must_use]
    pub fn of(object: &Value) -> Self {
        let read = parse_at(Place::Cluster, object.to_string());
        let spec = read.map(|documents| {
            let first = documents.into_iter().next();
            first.map(Document::into_instance).unwrap_or_default()
        });
        let status = object.get("status").filter(|status| status.is_object()).cloned();
        Self { meta: Meta::of(object), spec, status }
    }

    /// Where it was in its life when its status was written last.
    #[must_use]
    pub fn phase(&self) -> Phase {
        let text = self.status.as_ref().and_then(|status| status.get("phase")).and_then(Value::as_str);
        text.map_or(Phase::Pending, Phase::of)
    }

    /// How many pods it had: counted by those that were turned away.
    #[must_use]
    pub fn attempts(&self) -> u32 {
        let count = self.status.as_ref().and_then(|status| status.pointer("/pinion/attempts"));
        count.and_then(Value::as_u64).and_then(|count| u32::try_from(count).ok()).unwrap_or(0)
    }
}

/// What is to be done next.
#[must_use]
pub fn next(seen: Seen<'_>, now: Timestamp) -> Next {
    let before = seen.instance.phase();
    let found = phase::found(seen, before);
    let mut plan = Plan { seen, now, phase: found.phase, steps: Vec::new(), events: Vec::new(), attempts: 0 };
    plan.attempts = seen.instance.attempts();
    plan.walk(found.replace.clone());
    plan.tell(before);
    let status = status::status(&plan, &found);
    Next { steps: plan.steps, status, events: plan.events }
}

/// What is being worked out.
struct Plan<'a> {
    seen: Seen<'a>,
    now: Timestamp,
    phase: Phase,
    steps: Vec<Step>,
    events: Vec<Event>,
    attempts: u32,
}

impl Plan<'_> {
    /// 1. Who is to go, goes: first the pod, in its own time; then the place; the finalizer last, so that nothing of an
    ///    instance is left once its name is free.
    /// 2. Who has ended keeps its pod, whose log is what is left of it, but not its place.
    /// 3. A pod that nothing ran in, and never will, makes room for another: the node it was turned away from is avoided.
    /// 4. Who has no pod gets a place, then a pod.
    fn walk(&mut self, replace: Option<phase::Replace>) {
        let seen = self.seen;
        if seen.instance.meta.deleted.is_some() {
            return self.end();
        }
        if self.phase.is_final() {
            if seen.booked.is_some() && seen.pod.is_none_or(PodView::is_over) {
                self.steps.push(Step::Unbook);
            }
            return;
        }
        if let (Some(replace), Some(pod)) = (replace, seen.pod) {
            if let Some(wait) =
                replace.not_before.map(|at| at.duration_since(self.now)).filter(|wait| wait.is_positive())
            {
                self.steps.push(Step::LookAgain(wait));
                return;
            }
            if pod.meta.deleted.is_none() {
                self.events
                    .push(Event::warning("PodReplaced", format!("pod {}: {}", pod.meta.name, replace.why)));
                if let Some(node) = pod.node.as_deref().or(seen.booked) {
                    self.steps.push(Step::Avoid(node.to_owned(), replace.why));
                }
                self.attempts = self.attempts.saturating_add(1);
                self.steps.push(Step::Unbook);
                self.steps.push(Step::DeletePod);
            }
            return;
        }
        if seen.pod.is_some() || seen.instance.spec.is_err() {
            return;
        }
        if seen.missing_claim.is_some() {
            return;
        }
        match (seen.booked, seen.nowhere) {
            (Some(_), _) => self.steps.push(Step::CreatePod),
            (None, None) => self.steps.push(Step::Book),
            // It is asked again whenever a node changes.
            (None, Some(_)) => {}
        }
    }

    fn end(&mut self) {
        match self.seen.pod {
            Some(pod) if pod.meta.deleted.is_none() => self.steps.push(Step::DeletePod),
            Some(_) => {}
            None => {
                if self.seen.booked.is_some() {
                    self.steps.push(Step::Unbook);
                }
                if self.seen.instance.meta.finalizers.iter().any(|name| name == FINALIZER) {
                    self.steps.push(Step::DropFinalizer);
                }
            }
        }
    }

    fn tell(&mut self, before: Phase) {
        if before == self.phase {
            return;
        }
        let message = self.seen.report.and_then(|report| report.message.clone()).unwrap_or_default();
        match self.phase {
            Phase::Running => {
                self.events.push(Event::normal("Started", "the guest runs, where the plan says"))
            }
            Phase::Succeeded => {
                self.events.push(Event::normal("Stopped", "the guest has powered itself off"))
            }
            Phase::Failed => {
                self.events.push(Event::warning("Stopped", format!("the guest has failed. {message}")))
            }
            Phase::Pending | Phase::Scheduling | Phase::Scheduled | Phase::Unknown => {}
        }
    }
}
