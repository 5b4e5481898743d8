//! When a machine has an instance: its run strategy, what was asked for by hand, and how long to wait after failures.

use jiff::{SignedDuration, Timestamp};
use pinion_api::{RunStrategy, VirtualMachineSpec};
use serde_json::{Map, Value, json};

use super::{Machine, Plan, Step};
use crate::condition::{text, written};
use crate::instance::{Instance, Phase};

/// The first pause after a failure, seconds; it grows with the square of their number. KubeVirt's.
const FIRST_PAUSE: i64 = 10;
/// The longest pause, seconds. KubeVirt's.
const LONGEST_PAUSE: i64 = 300;
/// A guest that ran for less has failed to start.
const RAN_AT_LEAST: SignedDuration = SignedDuration::from_secs(10);

/// The run strategy that holds: `running` is the older way to say it.
pub(super) fn effective(spec: &VirtualMachineSpec) -> RunStrategy {
    match (spec.run_strategy, spec.running) {
        (Some(strategy), _) => strategy,
        (None, Some(true)) => RunStrategy::Always,
        (None, _) => RunStrategy::Halted,
    }
}

/// What a machine's status keeps from one look to the next.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(super) struct Memory {
    /// What was asked for by hand and is not done.
    pub(super) requests: Vec<Value>,
    /// Instances that failed to start, one after the other.
    pub(super) failures: i64,
    /// The last of them.
    pub(super) last_failed: String,
    /// When the next is made.
    pub(super) retry_after: Option<Timestamp>,
}

impl Memory {
    pub(super) fn of(machine: &Machine) -> Self {
        let status = machine.status.as_ref();
        let requests = status.and_then(|status| status.get("stateChangeRequests")).and_then(Value::as_array);
        let failure = status.and_then(|status| status.get("startFailure")).unwrap_or(&Value::Null);
        Self {
            requests: requests.cloned().unwrap_or_default(),
            failures: failure.get("consecutiveFailCount").and_then(Value::as_i64).unwrap_or(0).clamp(0, 1000),
            last_failed: text(failure, "lastFailedVMIUID").to_owned(),
            retry_after: text(failure, "retryAfterTimestamp").parse().ok(),
        }
    }

    /// As the status has it; none without failures.
    pub(super) fn start_failure(&self) -> Option<Value> {
        let retry = self.retry_after.filter(|_| self.failures > 0)?;
        let mut failure = Map::new();
        failure.insert("consecutiveFailCount".to_owned(), json!(self.failures));
        failure.insert("lastFailedVMIUID".to_owned(), json!(self.last_failed));
        failure.insert("retryAfterTimestamp".to_owned(), json!(written(retry)));
        Some(failure.into())
    }

    /// Counts a failure, once for each instance.
    fn failed(&mut self, uid: &str, now: Timestamp) {
        if self.last_failed == uid {
            return;
        }
        self.failures = self.failures.saturating_add(1);
        uid.clone_into(&mut self.last_failed);
        let pause =
            FIRST_PAUSE.saturating_mul(self.failures).saturating_mul(self.failures).min(LONGEST_PAUSE);
        self.retry_after = now.checked_add(SignedDuration::from_secs(pause)).ok();
    }

    fn forget_failures(&mut self) {
        *self = Self { requests: std::mem::take(&mut self.requests), ..Self::default() };
    }

    fn first_request(&self) -> Option<(&str, &str)> {
        self.requests.first().map(|request| (text(request, "action"), text(request, "uid")))
    }

    fn request_is_done(&mut self) {
        if !self.requests.is_empty() {
            self.requests.remove(0);
        }
    }
}

impl Plan<'_> {
    /// 1. What was asked for by hand: a stop holds until its instance is gone, a start until there is one. One after the
    ///    other, so that a restart is a stop and a start.
    /// 2. What the strategy wants.
    pub(super) fn follow(&mut self, strategy: RunStrategy, memory: &mut Memory) {
        self.remember(memory);
        while let Some((action, uid)) = memory.first_request() {
            match (action, self.own) {
                ("Stop", Some(instance)) if uid.is_empty() || instance.meta.uid == uid => {
                    return self.delete(instance, "it was asked to stop");
                }
                ("Start", None) if strategy != RunStrategy::Halted => {
                    memory.forget_failures();
                    return self.create();
                }
                _ => memory.request_is_done(),
            }
        }
        match (strategy, self.own) {
            (RunStrategy::Always, Some(instance)) if instance.phase().is_final() => {
                self.delete(instance, "it has ended, and the machine is to run always");
            }
            (RunStrategy::RerunOnFailure, Some(instance)) if instance.phase() == Phase::Failed => {
                self.delete(instance, "it has failed, and the machine is to run again then");
            }
            (RunStrategy::Halted, Some(instance)) => self.delete(instance, "the machine is to be halted"),
            (RunStrategy::Always | RunStrategy::RerunOnFailure, None) => self.create_in_time(memory),
            (RunStrategy::Once, None) if !self.has_run() => self.create(),
            _ => {}
        }
    }

    /// An instance that failed before it had run for a while counts as a failure to start; one that runs longer ends the
    /// count.
    fn remember(&self, memory: &mut Memory) {
        let Some(instance) = self.own else { return };
        let began = came_to(instance, Phase::Running);
        let until =
            if instance.phase().is_final() { came_to(instance, instance.phase()) } else { Some(self.now) };
        let ran = began.zip(until).map(|(from, to)| to.duration_since(from));
        let long_enough = ran.is_some_and(|ran| ran >= RAN_AT_LEAST);
        match instance.phase() {
            Phase::Failed if !long_enough => memory.failed(&instance.meta.uid, self.now),
            Phase::Running | Phase::Succeeded | Phase::Failed if long_enough => memory.forget_failures(),
            _ => {}
        }
    }

    fn create_in_time(&mut self, memory: &Memory) {
        match memory.retry_after.filter(|at| memory.failures > 0 && *at > self.now) {
            Some(at) => self.steps.push(Step::LookAgain(at)),
            None => self.create(),
        }
    }

    /// Whether it had an instance: it runs once, even if that was deleted.
    fn has_run(&self) -> bool {
        let status = self.machine.status.as_ref();
        status.and_then(|status| status.pointer("/pinion/hasRun")).and_then(Value::as_bool).unwrap_or(false)
    }
}

/// When an instance came to a phase.
fn came_to(instance: &Instance, phase: Phase) -> Option<Timestamp> {
    let list = instance.status.as_ref()?.get("phaseTransitionTimestamps")?.as_array()?;
    let transition = list.iter().find(|transition| text(transition, "phase") == phase.as_str())?;
    text(transition, "phaseTransitionTimestamp").parse().ok()
}
