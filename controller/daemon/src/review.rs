//! The rules of `pinion-admission` as the webhook's server asks them.

use pinion_admission::{Change, Kind, complete, validate};
use pinion_webhook::{AdmissionRequest, FieldCause, Hook, Operation, Verdict};
use serde_json::Value;

use crate::removal::removal;
use crate::world::World;

/// What the rules say.
#[must_use]
pub(crate) fn review(world: &World, hook: Hook, request: &AdmissionRequest) -> Verdict {
    if request.operation == Operation::Delete {
        return removal(world, request);
    }
    let (Some(kind), Some(object)) = (Kind::of(&request.kind.kind), &request.object) else {
        return Verdict::allowed();
    };
    let old = request.old_object.as_ref().filter(|_| request.operation == Operation::Update);
    let change = Change { kind, object, old };
    match hook {
        Hook::Mutate => patched(complete(change)),
        Hook::Validate => judged(kind, request, &validate(change)),
    }
}

fn patched(steps: Vec<Value>) -> Verdict {
    Verdict { patch: steps, ..Verdict::default() }
}

fn judged(kind: Kind, request: &AdmissionRequest, verdict: &pinion_admission::Verdict) -> Verdict {
    let pinion_admission::Verdict::Refused(causes) = verdict else { return Verdict::allowed() };
    let message = verdict.message(kind.as_str(), &request.name).unwrap_or_default();
    let cause = |cause: &pinion_admission::Cause| FieldCause {
        field: cause.field.clone(),
        reason: cause.kind.as_str().to_owned(),
        message: cause.message.clone(),
    };
    Verdict::invalid(message, causes.iter().map(cause).collect())
}
