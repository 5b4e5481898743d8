//! The annotation that says which backend runs a guest.

use std::collections::BTreeMap;

use crate::InstanceSpec;
use crate::backend::{AUTO, BACKEND_ANNOTATION, BackendKind};
use crate::needs::needs_of;
use crate::path::FieldPath;
use crate::problem::{Findings, ProblemCode};

/// It is a word that means something, and what is asked for can run the guest.
pub(super) fn check(
    annotations: &BTreeMap<String, String>,
    path: &FieldPath,
    spec: (&InstanceSpec, &FieldPath),
    findings: &mut Findings,
) {
    let Some(word) = annotations.get(BACKEND_ANNOTATION).filter(|word| *word != AUTO) else { return };
    let path = path.field("annotations").key(BACKEND_ANNOTATION);
    match word.parse() {
        Err(error) => findings.add(&path, ProblemCode::Invalid, super::lower_first(&error)),
        Ok(BackendKind::Libvirt) => {}
        Ok(BackendKind::Native) => {
            for need in needs_of(spec.0, spec.1) {
                let message = format!(
                    "only libvirt has it (natively, {}), and {BACKEND_ANNOTATION} asks for native",
                    need.natively
                );
                findings.add(&need.path, ProblemCode::Conflict, message);
            }
        }
    }
}
