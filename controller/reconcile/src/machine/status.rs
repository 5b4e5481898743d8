//! The status of a machine, under KubeVirt's names.

use pinion_api::MachineStatus;
use serde_json::{Value, json};

use super::strategy::{Memory, effective};
use super::{Plan, Step, TEMPLATE_ANNOTATION};
use crate::condition::{Conditions, text};
use crate::instance::{Instance, Phase};

pub(super) fn status(plan: &Plan<'_>, name_is_taken: bool, memory: &Memory) -> Value {
    let machine = plan.machine;
    let strategy = machine.spec.as_ref().ok().map(|spec| effective(&spec.spec));
    let ready = plan.own.and_then(|instance| condition(instance, "Ready"));
    let is_ready = ready.is_some_and(|ready| text(ready, "status") == "True");
    let status = MachineStatus {
        printable_status: Some(printable(plan, memory).to_owned()),
        ready: Some(is_ready),
        created: Some(plan.own.is_some()),
        conditions: conditions(plan, name_is_taken, memory),
        desired_generation: Some(machine.meta.generation),
        observed_generation: Some(machine.meta.generation),
        ..MachineStatus::default()
    };
    let mut value = json!(status);
    if let Some(strategy) = strategy {
        value["runStrategy"] = json!(strategy);
    }
    if !memory.requests.is_empty() {
        value["stateChangeRequests"] = memory.requests.clone().into();
    }
    if let Some(failure) = memory.start_failure() {
        value["startFailure"] = failure;
    }
    let made = plan.own.is_some() || plan.steps.iter().any(|step| matches!(step, Step::CreateInstance(_)));
    let before = machine.status.as_ref().and_then(|status| status.pointer("/pinion/hasRun"));
    if made || before == Some(&Value::Bool(true)) {
        value["pinion"] = json!({"hasRun": true});
    }
    value
}

/// Where it is in its life, for people: the first of these that is so. KubeVirt's words, in its order.
fn printable(plan: &Plan<'_>, memory: &Memory) -> &'static str {
    if plan.machine.meta.deleted.is_some() {
        return "Terminating";
    }
    let stops = plan.steps.iter().any(|step| matches!(step, Step::DeleteInstance(_)));
    let starts = plan.steps.iter().any(|step| matches!(step, Step::CreateInstance(_)));
    let waits =
        memory.start_failure().is_some() && plan.steps.iter().any(|step| matches!(step, Step::LookAgain(_)));
    match plan.own {
        None if starts => "Starting",
        None if waits => "CrashLoopBackOff",
        None => "Stopped",
        Some(instance) if instance.phase().is_final() && (stops || instance.meta.deleted.is_some()) => {
            if memory.failures > 0 {
                "CrashLoopBackOff"
            } else {
                "Stopping"
            }
        }
        Some(instance) if instance.meta.deleted.is_some() || stops => "Stopping",
        Some(instance) => running(instance),
    }
}

fn running(instance: &Instance) -> &'static str {
    let is = |kind: &str, status: &str, reason: &str| {
        let found = condition(instance, kind);
        found.is_some_and(|c| {
            text(c, "status") == status && (reason.is_empty() || text(c, "reason") == reason)
        })
    };
    match instance.phase() {
        Phase::Succeeded | Phase::Failed => "Stopped",
        _ if is("Paused", "True", "") => "Paused",
        Phase::Running => "Running",
        _ if is("Synchronized", "False", "FailedPvcNotFound") => "ErrorPvcNotFound",
        _ if is("PodScheduled", "False", "Unschedulable") => "ErrorUnschedulable",
        _ if is("Synchronized", "False", "ImagePullBackOff") => "ImagePullBackOff",
        _ if is("Synchronized", "False", "ErrImagePull") => "ErrImagePull",
        _ => "Starting",
    }
}

fn condition<'a>(instance: &'a Instance, kind: &str) -> Option<&'a Value> {
    let list = instance.status.as_ref()?.get("conditions")?.as_array()?;
    list.iter().find(|condition| text(condition, "type") == kind)
}

/// Why its last instance failed to start: while that is there it says so itself, and afterwards this is all that is left.
fn last_failure(plan: &Plan<'_>, memory: &Memory) -> Option<(String, String)> {
    if memory.failures == 0 {
        return None;
    }
    let of = |reason: &str, message: &str| (reason.to_owned(), message.to_owned());
    let failed = plan
        .own
        .filter(|instance| instance.phase() == Phase::Failed && instance.meta.uid == memory.last_failed);
    let said = failed.and_then(|instance| {
        let reason = text(instance.status.as_ref()?, "reason");
        let ready = condition(instance, "Ready").filter(|ready| text(ready, "reason") == reason)?;
        Some(of(reason, text(ready, "message")))
    });
    said.or_else(|| {
        let list = plan.machine.status.as_ref()?.get("conditions")?.as_array()?;
        let before = list.iter().find(|condition| text(condition, "type") == "Failure")?;
        Some(of(text(before, "reason"), text(before, "message")))
    })
}

/// Those of its instance, and its own.
fn conditions(plan: &Plan<'_>, name_is_taken: bool, memory: &Memory) -> Vec<pinion_api::Condition> {
    let machine = plan.machine;
    let mut conditions = Conditions::over(machine.status.as_ref(), plan.now);
    let of = |c: &Value| match text(c, "status") {
        "True" => Some(true),
        "False" => Some(false),
        _ => None,
    };
    for kind in ["Ready", "Deterministic", "Paused", "PodScheduled", "Synchronized", "LiveMigratable"] {
        match plan.own.and_then(|instance| condition(instance, kind)) {
            Some(c) => conditions.set(kind, of(c), text(c, "reason"), text(c, "message")),
            None if kind == "Ready" => {
                conditions.set(kind, Some(false), "VMINotExists", "the machine has no instance");
            }
            None => {}
        }
    }
    if let Err(problems) = &machine.spec {
        conditions.set("Failure", Some(true), "InvalidSpec", &format!("it cannot be acted on: {problems}"));
    } else if name_is_taken {
        conditions.set("Failure", Some(true), "FailedCreate", "an instance of its name is somebody else's");
    } else if let Some((reason, message)) = last_failure(plan, memory) {
        conditions.set("Failure", Some(true), &reason, &message);
    }
    let other = plan.own.filter(|instance| {
        let made_of = instance.meta.annotations.get(TEMPLATE_ANNOTATION);
        !instance.phase().is_final() && made_of.is_some_and(|made_of| *made_of != machine.fingerprint())
    });
    if other.is_some() {
        let message = "its template has changed since its instance was made: restart it";
        conditions.set("RestartRequired", Some(true), "TemplateChanged", message);
    }
    conditions.done()
}
