//! What is to be done next for a virtual machine: whether it is to have an instance, and which.

mod status;
mod strategy;

use jiff::Timestamp;
use pinion_api::{Document, Place, Problems, VirtualMachine, parse_at};
use serde_json::Value;
use sha2::{Digest, Sha256};

use crate::event::Event;
use crate::instance::{self, Instance};
use crate::object::Meta;

/// Keeps a machine until its instance is gone.
pub const FINALIZER: &str = VirtualMachine::FINALIZER;
/// The kind.
pub const KIND: &str = "VirtualMachine";
/// On an instance, what its machine's template was when it was made.
pub const TEMPLATE_ANNOTATION: &str = "pinion.dev/template";

/// A machine as it is stored.
#[derive(Clone, Debug)]
pub struct Machine {
    /// Its metadata.
    pub meta: Meta,
    /// What it is; or what is wrong with it: an older version has let it in.
    pub spec: Result<VirtualMachine, Problems>,
    /// The template as it is written.
    pub template: Value,
    /// Its status.
    pub status: Option<Value>,
}

/// What there is of a machine.
#[derive(Clone, Copy, Debug)]
pub struct Seen<'a> {
    /// It.
    pub machine: &'a Machine,
    /// The instance of its name, whoever made that.
    pub instance: Option<&'a Instance>,
}

/// A thing to do.
#[derive(Clone, Debug, PartialEq)]
pub enum Step {
    /// Make this instance.
    CreateInstance(Value),
    /// Delete the instance of that identity.
    DeleteInstance(String),
    /// Let it go.
    DropFinalizer,
    /// Look again then.
    LookAgain(Timestamp),
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

impl Machine {
    /// Reads one. It never fails: what is wrong is in it.
    #[must_use]
    pub fn of(object: &Value) -> Self {
        let read = parse_at(Place::Cluster, object.to_string());
        let spec = read.map(|documents| match documents.into_iter().next() {
            Some(Document::VirtualMachine(machine)) => *machine,
            _ => VirtualMachine::default(),
        });
        Self {
            meta: Meta::of(object),
            spec,
            template: object.pointer("/spec/template").cloned().unwrap_or_default(),
            status: object.get("status").filter(|status| status.is_object()).cloned(),
        }
    }

    /// The instance that it makes. Its name is the machine's, so that there is never a second.
    fn make(&self) -> Value {
        let mut made = instance::of_template(&self.template, (&self.meta, KIND), &self.meta.name);
        made["metadata"]["annotations"][TEMPLATE_ANNOTATION] = self.fingerprint().into();
        made
    }

    /// Tells one template from another.
    fn fingerprint(&self) -> String {
        let digest = Sha256::digest(self.template.to_string());
        digest.iter().take(8).map(|byte| format!("{byte:02x}")).collect()
    }
}

/// What is to be done next.
///
/// 1. Who is to go, lets his instance go first.
/// 2. An instance of the machine's name that somebody else has made is left alone.
/// 3. What was asked for by hand comes before what the run strategy wants.
#[must_use]
pub fn next(seen: Seen<'_>, now: Timestamp) -> Next {
    let machine = seen.machine;
    let own = seen.instance.filter(|instance| instance.meta.is_owned_by(&machine.meta.uid));
    let mut plan = Plan { machine, own, now, steps: Vec::new(), events: Vec::new() };
    let mut memory = strategy::Memory::of(machine);
    if machine.meta.deleted.is_some() {
        plan.end();
    } else if seen.instance.is_some() && own.is_none() {
        let message = format!(
            "instance {:?} is not this machine's: delete it, or give the machine another name",
            machine.meta.name
        );
        plan.events.push(Event::warning("FailedCreate", message));
    } else if let Ok(spec) = &machine.spec {
        plan.follow(strategy::effective(&spec.spec), &mut memory);
    }
    let status = status::status(&plan, seen.instance.is_some() && own.is_none(), &memory);
    Next { steps: plan.steps, status, events: plan.events }
}

/// What is being worked out.
struct Plan<'a> {
    machine: &'a Machine,
    own: Option<&'a Instance>,
    now: Timestamp,
    steps: Vec<Step>,
    events: Vec<Event>,
}

impl Plan<'_> {
    fn end(&mut self) {
        match self.own {
            Some(instance) => self.delete(instance, "the machine is deleted"),
            None if self.machine.meta.finalizers.iter().any(|name| name == FINALIZER) => {
                self.steps.push(Step::DropFinalizer);
            }
            None => {}
        }
    }

    fn delete(&mut self, instance: &Instance, why: &str) {
        if instance.meta.deleted.is_none() {
            self.steps.push(Step::DeleteInstance(instance.meta.uid.clone()));
            self.events.push(Event::normal(
                "SuccessfulDelete",
                format!("instance {:?} is deleted: {why}", instance.meta.name),
            ));
        }
    }

    fn create(&mut self) {
        self.steps.push(Step::CreateInstance(self.machine.make()));
        self.events.push(Event::normal(
            "SuccessfulCreate",
            format!("instance {:?} is made", self.machine.meta.name),
        ));
    }
}
