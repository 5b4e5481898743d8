//! Rules on which instances a replica set has.
//!
//! Source: those of `apps/v1` ReplicaSet, which KubeVirt's follow.

use crate::path::FieldPath;
use crate::problem::{Findings, ProblemCode};
use crate::{Requirement, VirtualMachineInstanceReplicaSet};

/// The selector says something, can be understood, and fits what the template makes.
pub(super) fn selector(set: &VirtualMachineInstanceReplicaSet, path: &FieldPath, findings: &mut Findings) {
    let selector = &set.spec.selector;
    let below = path.field("selector");
    if selector.match_labels.is_empty() && selector.match_expressions.is_empty() {
        findings.add(&below, ProblemCode::Required, "required: matchLabels or matchExpressions");
        return;
    }
    let mut is_clear = true;
    for (index, test) in selector.match_expressions.iter().enumerate() {
        if let Some(problem) = unclear(test) {
            findings.add(&below.field("matchExpressions").index(index), ProblemCode::Invalid, problem);
            is_clear = false;
        }
    }
    let labels = set.spec.template.metadata.as_ref().map(|metadata| &metadata.labels);
    if is_clear && !labels.is_some_and(|labels| selector.matches(labels)) {
        let message =
            "must have the labels that the selector asks for, or the set would make instances for ever";
        findings.add(&path.field("template.metadata.labels"), ProblemCode::Conflict, message);
    }
}

fn unclear(test: &Requirement) -> Option<&'static str> {
    match (test.operator.as_str(), test.values.is_empty()) {
        ("In" | "NotIn", true) => Some("needs values with this operator"),
        ("Exists" | "DoesNotExist", false) => Some("has no values with this operator: remove them"),
        ("In" | "NotIn" | "Exists" | "DoesNotExist", _) => None,
        _ => Some("has an unknown operator: use In, NotIn, Exists or DoesNotExist"),
    }
}
