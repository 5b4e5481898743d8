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
}
