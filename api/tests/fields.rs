//! Every field of KubeVirt's own CRDs is known, with the same shape, and no other.
//!
//! `data/*.txt` has a line per field of the CRDs of KubeVirt 1.9.0: path, type, and whether
//! it is required. `spec.template.spec` of a VirtualMachine is that of the instance.

use std::collections::BTreeMap;

use pinion_api::schema::{Schema, Type};
use pinion_api::{VirtualMachine, VirtualMachineInstance, fields};

const INSTANCE: &str = include_str!("data/virtualmachineinstance-1.9.0.txt");
const MACHINE: &str = include_str!("data/virtualmachine-1.9.0.txt");

/// Lists and objects that the CRD requires and that are part of what is not implemented:
/// an empty one is as good as none.
const REQUIRED_LISTS: [&str; 2] = [
    "spec.accessCredentials[].sshPublicKey.propagationMethod.qemuGuestAgent.users",
    "spec.affinity.nodeAffinity.requiredDuringSchedulingIgnoredDuringExecution.nodeSelectorTerms",
];
/// What the CRD leaves to admission, which requires it.
const REQUIRED_HERE: [&str; 4] = ["apiVersion", "kind", "metadata", "spec.template.spec"];

fn types_of(path: &str, ty: &Type) -> &'static [&'static str] {
    match ty {
        Type::Bool => &["boolean"],
        Type::String | Type::Choice(_) => &["string"],
        Type::Int32 => &["int32"],
        Type::Int64 => &["int64", "integer"],
        Type::Uint32 | Type::Uint64 => &["int32", "integer"],
        Type::Quantity => &["quantity"],
        Type::IntOrString => &["int-or-string"],
        Type::List(_) => &["list"],
        Type::Map(_) => &["map"],
        Type::Any => &["any", "object"],
        Type::Object(_) if path.ends_with("metadata") => &["any", "object"],
        Type::Object(_) => &["object"],
    }
}

fn compare(root: &Type, lines: &str, belongs: fn(&str) -> bool) {
    let expected: BTreeMap<&str, (&str, bool)> = lines
        .lines()
        .filter_map(|line| {
            let mut words = line.split(' ');
            Some((words.next()?, (words.next()?, words.next().is_some())))
        })
        .collect();
    let ours = fields(root, "");
    let mut wrong = Vec::new();
    for row in ours.iter().filter(|row| belongs(&row.path)) {
        let Some((ty, required)) = expected.get(row.path.as_str()) else {
            wrong.push(format!("{} is not in the CRD", row.path));
            continue;
        };
        if !types_of(&row.path, &row.field.ty).contains(ty) {
            wrong.push(format!("{} is {ty} in the CRD", row.path));
        }
        let lists = REQUIRED_LISTS.iter().any(|list| row.path == *list);
        let here = REQUIRED_HERE.iter().any(|field| row.path == *field);
        if row.field.required != *required && !lists && !here {
            wrong.push(format!("{} required in the CRD: {required}", row.path));
        }
    }
    for path in expected.keys() {
        if !ours.iter().any(|row| row.path == *path) {
            wrong.push(format!("{path} is not known"));
        }
    }
    assert!(wrong.is_empty(), "{}", wrong.join("\n"));
}

#[test]
fn instance_has_the_fields_of_the_crd() {
    compare(&VirtualMachineInstance::TYPE, INSTANCE, |path| !path.starts_with("metadata."));
}

#[test]
fn machine_has_the_fields_of_the_crd() {
    compare(&VirtualMachine::TYPE, MACHINE, |path| {
        !path.starts_with("metadata.")
            && !path.starts_with("spec.template.spec.")
            && !path.starts_with("spec.template.metadata.")
    });
}
