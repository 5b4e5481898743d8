//! Rules on machine type, timers and platform features: what is there where the spec is silent.

use crate::InstanceSpec;
use crate::path::FieldPath;
use crate::problem::{Findings, ProblemCode};

pub(super) fn check(spec: &InstanceSpec, path: &FieldPath, findings: &mut Findings) {
    let path = path.field("domain");
    let kind = spec.domain.machine.as_ref().and_then(|machine| machine.kind.as_deref()).unwrap_or_default();
    if !(kind.is_empty() || kind == "q35" || kind.starts_with("pc-q35-")) {
        let message = format!(
            "refused: {:?}; the machine is a PCI Express machine: use q35, or remove it",
            crate::node::shorten(kind)
        );
        findings.add(&path.field("machine.type"), ProblemCode::Refused, message);
    }
    // To name a timer or feature is to ask for it, unless it is switched off.
    let timer = spec.domain.clock.as_ref().and_then(|clock| clock.timer.as_ref());
    let timers = [
        ("hpet", timer.and_then(|timer| timer.hpet.as_ref())),
        ("pit", timer.and_then(|timer| timer.pit.as_ref())),
    ];
    for (name, timer) in timers {
        if timer.is_some_and(|timer| timer.present.is_none()) {
            let message = "refused: the guest has no such timer; add present: false, or remove it";
            findings.add(&path.field("clock.timer").field(name), ProblemCode::Refused, message);
        }
    }
    one_of_two(spec, &path, findings);
}

/// What would say of the same thing that it is and that it is not.
fn one_of_two(spec: &InstanceSpec, path: &FieldPath, findings: &mut Findings) {
    let features = spec.domain.features.as_ref();
    let passed_on =
        features.and_then(|f| f.hyperv_passthrough.as_ref()).is_some_and(|p| p.enabled != Some(false));
    if passed_on && features.is_some_and(|f| f.hyperv.is_some()) {
        let message = "passes all of Hyper-V's features on, so that hyperv says nothing: remove one of them";
        findings.add(&path.field("features.hypervPassthrough"), ProblemCode::Conflict, message);
    }
    let clock = spec.domain.clock.as_ref();
    if clock.is_some_and(|clock| clock.timezone.is_some() && clock.utc.is_some()) {
        let message = "the clock has a time zone or an offset from UTC: remove timezone or utc";
        findings.add(&path.field("clock"), ProblemCode::Conflict, message);
    }
}
