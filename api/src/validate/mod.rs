//! The rules between fields. A file per noun; each rule that KubeVirt has too names its
//! message or number in a comment there. Pure; called by the parser only.
//!
//! Rules of KubeVirt that cannot be broken here: 9, 16 and 18 (Pinion allows it), 8, 14, 28, 29
//! and 45 to 55 (the field is refused or takes one of a few words). Rules 56 to 59 are about
//! updates of objects in a cluster.

mod backend;
mod cloud_init;
mod cpu;
mod devices;
mod firmware;
mod io_threads;
mod memory;
mod names;
mod network;
mod platform;
mod replica_set;
mod storage;
mod volume;

use crate::path::FieldPath;
use crate::problem::{Findings, ProblemCode};
use crate::{
    InstanceSpec, ObjectMeta, VirtualMachine, VirtualMachineInstance, VirtualMachineInstanceReplicaSet,
};

/// Annotation that asks for programs around the guest.
const HOOK_SIDECARS: &str = "hooks.kubevirt.io/hookSidecars";
/// Longest grace period: a day.
const LONGEST_GRACE_SECONDS: i64 = 86_400;

/// Rules of a `VirtualMachine`.
pub(crate) fn virtual_machine(machine: &VirtualMachine, findings: &mut Findings) {
    let root = FieldPath::root();
    let path = root.field("spec");
    metadata(&machine.metadata, &root.field("metadata"), findings);
    // VM rule 60: exactly one of running and runStrategy.
    match (machine.spec.running, machine.spec.run_strategy) {
        (Some(_), Some(_)) => {
            let message = "running and runStrategy exclude each other: remove running, which is deprecated";
            findings.add(&path.field("running"), ProblemCode::Conflict, message);
        }
        (None, None) => {
            let words = if findings.in_cluster() { "Always or Manual" } else { "Once or Manual" };
            findings.add(&path.field("runStrategy"), ProblemCode::Required, format!("required: use {words}"));
        }
        _ => {}
    }
    let template = &machine.spec.template;
    let below = path.field("template.metadata");
    if let Some(inner) = &template.metadata {
        let pairs = [
            ("name", &inner.name, &machine.metadata.name),
            ("namespace", &inner.namespace, &machine.metadata.namespace),
        ];
        for (field, inner, outer) in pairs {
            if inner.is_some() && inner != outer {
                let message = format!("the instance has the machine's {field}: remove it");
                findings.add(&below.field(field), ProblemCode::Conflict, message);
            }
        }
        annotations(inner, &below, findings);
        let of_spec = (&template.spec, &path.field("template.spec"));
        backend::check(&inner.annotations, &below, of_spec, findings);
    }
    spec(&template.spec, &path.field("template.spec"), findings);
}

/// Rules of a `VirtualMachineInstanceReplicaSet`.
pub(crate) fn replica_set(set: &VirtualMachineInstanceReplicaSet, findings: &mut Findings) {
    let root = FieldPath::root();
    metadata(&set.metadata, &root.field("metadata"), findings);
    let path = root.field("spec");
    if set.spec.replicas.is_some_and(|replicas| replicas < 0) {
        findings.add(&path.field("replicas"), ProblemCode::Invalid, "must not be negative");
    }
    replica_set::selector(set, &path, findings);
    let template = &set.spec.template;
    if let Some(inner) = &template.metadata {
        let below = path.field("template.metadata");
        annotations(inner, &below, findings);
        let of_spec = (&template.spec, &path.field("template.spec"));
        backend::check(&inner.annotations, &below, of_spec, findings);
    }
    spec(&template.spec, &path.field("template.spec"), findings);
}

/// Rules of a `VirtualMachineInstance`.
pub(crate) fn instance(instance: &VirtualMachineInstance, findings: &mut Findings) {
    let root = FieldPath::root();
    let (above, below) = (root.field("metadata"), root.field("spec"));
    metadata(&instance.metadata, &above, findings);
    backend::check(&instance.metadata.annotations, &above, (&instance.spec, &below), findings);
    spec(&instance.spec, &below, findings);
}

fn metadata(metadata: &ObjectMeta, path: &FieldPath, findings: &mut Findings) {
    match metadata.name.as_deref().filter(|name| !name.is_empty()) {
        Some(name) => names::subdomain(name, &path.field("name"), findings),
        None if metadata.generate_name.is_some() => {}
        None => findings.add(&path.field("name"), ProblemCode::Required, "required: give it a name"),
    }
    if let Some(namespace) = metadata.namespace.as_deref().filter(|name| !name.is_empty()) {
        names::label(namespace, &path.field("namespace"), findings);
    }
    annotations(metadata, path, findings);
}

fn annotations(metadata: &ObjectMeta, path: &FieldPath, findings: &mut Findings) {
    if metadata.annotations.contains_key(HOOK_SIDECARS) {
        let message = "not implemented yet: no programs run around the guest; remove it";
        findings.add(&path.field("annotations").key(HOOK_SIDECARS), ProblemCode::Planned, message);
    }
}

fn spec(spec: &InstanceSpec, path: &FieldPath, findings: &mut Findings) {
    cpu::check(spec, path, findings);
    memory::check(spec, path, findings);
    io_threads::check(spec, path, findings);
    firmware::check(spec, path, findings);
    platform::check(spec, path, findings);
    devices::check(spec, path, findings);
    storage::check(spec, path, findings);
    network::check(spec, path, findings);
    let grace = spec.termination_grace_period_seconds.unwrap_or(0);
    if !(0..=LONGEST_GRACE_SECONDS).contains(&grace) {
        let message = format!("{grace} is out of bounds: between 0 and {LONGEST_GRACE_SECONDS} (a day)");
        findings.add(&path.field("terminationGracePeriodSeconds"), ProblemCode::Invalid, message);
    }
    if let Some(hostname) = spec.hostname.as_deref().filter(|name| !name.is_empty()) {
        let path = path.field("hostname");
        names::label(hostname, &path, findings);
        // The pod network's DHCP server would.
        if !findings.in_cluster() && !spec.volumes.iter().any(|volume| volume.cloud_init().is_some()) {
            let message = "nothing would tell the guest: add a cloudInitNoCloud volume, or remove it";
            findings.add(&path, ProblemCode::Conflict, message);
        }
    }
}

/// An error's message as it follows a path.
fn lower_first(error: &impl std::error::Error) -> String {
    crate::read::lower_first(&error.to_string())
}

/// Adds a problem unless exactly one of the named fields is given.
fn exactly_one(given: &[(&str, bool)], suggestion: &str, path: &FieldPath, findings: &mut Findings) {
    let names: Vec<_> = given.iter().filter(|(_, given)| *given).map(|(name, _)| *name).collect();
    match names.as_slice() {
        [_] => {}
        [] => {
            let message = format!("required: {suggestion}");
            findings.add(path, ProblemCode::Required, message);
        }
        several => {
            let message = format!("{} exclude each other: keep one", several.join(" and "));
            findings.add(path, ProblemCode::Conflict, message);
        }
    }
}
