//! Each field that is refused or planned says so by its path; made from the schema itself.

#![expect(clippy::unwrap_used, clippy::expect_used, clippy::panic, reason = "a test's own tools may fail it")]

mod made;

use made::{put, some};
use pinion_api::schema::{Schema, Status, Type};
use pinion_api::{FieldPath, FieldRow, ProblemCode, VirtualMachine, VirtualMachineInstance, fields, parse};
use serde_json::{Value, json};

fn instance() -> Value {
    json!({
        "apiVersion": "kubevirt.io/v1",
        "kind": "VirtualMachineInstance",
        "metadata": {"name": "guest"},
        "spec": {
            "domain": {
                "memory": {"guest": "256Mi"},
                "firmware": {"kernelBoot": {"container": {"image": "file:///boot", "kernelPath": "vmlinuz"}}},
                "devices": {
                    "disks": [{"name": "root"}],
                    "interfaces": [{"name": "net", "bridge": {}}],
                },
            },
            "networks": [{"name": "net", "multus": {"networkName": "tap0"}}],
            "volumes": [{"name": "root", "hostDisk": {"path": "/root.img", "type": "Disk"}}],
        },
    })
}

fn machine() -> Value {
    let instance = instance();
    json!({
        "apiVersion": "kubevirt.io/v1",
        "kind": "VirtualMachine",
        "metadata": {"name": "guest"},
        "spec": {"runStrategy": "Once", "template": {"spec": instance["spec"]}},
    })
}

/// Asserts that a document has a problem of those codes at a path or above it.
fn assert_refused(document: &Value, place: &FieldPath, codes: &[ProblemCode], exactly: bool) {
    let text = serde_json::to_string(document).unwrap();
    let problems = parse(text).expect_err(&format!("{place} is accepted"));
    let found = problems.iter().any(|problem| {
        codes.contains(&problem.code)
            && (problem.path == *place || (!exactly && place.segments().starts_with(problem.path.segments())))
    });
    assert!(found, "{place}: {problems}");
}

const NOT_DONE: [ProblemCode; 3] = [ProblemCode::Planned, ProblemCode::Refused, ProblemCode::ClusterOnly];

/// Whether a field above that one is refused on one host, so that what is inside it is not looked at.
fn is_in_clusters_only(root: &Type, path: &str) -> bool {
    let above =
        |row: &FieldRow| path.strip_prefix(&row.path).is_some_and(|rest| rest.starts_with(['.', '[']));
    fields(root, "").iter().any(|row| row.own && matches!(row.status, Status::Cluster(_)) && above(row))
}

fn check(root: &Type, document: fn() -> Value) {
    let mut checked = 0;
    for row in fields(root, "") {
        let (exactly, value) = match row.status {
            Status::Planned(_) | Status::Refused(_) | Status::Cluster(_) => {
                (row.own && !is_in_clusters_only(root, &row.path), some(&row.field.ty))
            }
            // In what is for clusters as a whole it is looked at there: tests/volumes.rs.
            Status::Only(works, _) | Status::ClusterBoth(works, _) => {
                (!is_in_clusters_only(root, &row.path), json!(!works))
            }
            _ => continue,
        };
        let mut document = document();
        let place = put(&mut document, root, &row.path, value);
        assert_refused(&document, &place, &NOT_DONE, exactly);
        checked += 1;
    }
    assert!(checked > 100, "only {checked} fields checked");
}

#[test]
fn base_documents_are_good() {
    for document in [instance(), machine()] {
        parse(document.to_string()).unwrap();
    }
}

#[test]
fn each_refused_field_of_an_instance_is_refused_by_its_path() {
    check(&VirtualMachineInstance::TYPE, instance);
}

#[test]
fn each_refused_field_of_a_machine_is_refused_by_its_path() {
    check(&VirtualMachine::TYPE, machine);
}

#[test]
fn each_refused_word_is_refused_by_the_path_of_its_field() {
    for (root, document) in
        [(VirtualMachineInstance::TYPE, instance as fn() -> Value), (VirtualMachine::TYPE, machine)]
    {
        for row in fields(&root, "").iter().filter(|row| matches!(row.status, Status::Works(_))) {
            let Type::Choice(choice) = row.field.ty else { continue };
            for word in choice.values {
                let mut document = document();
                let place = put(&mut document, &root, &row.path, json!(word.text));
                if matches!(word.status, Status::Planned(_) | Status::Refused(_) | Status::Cluster(_)) {
                    assert_refused(&document, &place, &NOT_DONE, true);
                }
            }
        }
    }
}

#[test]
fn a_planned_field_that_asks_for_nothing_is_no_problem() {
    for row in fields(&VirtualMachineInstance::TYPE, "") {
        let nothing = match row.field.ty {
            Type::Bool => json!(false),
            Type::List(_) => json!([]),
            Type::Map(_) => json!({}),
            Type::String => json!(""),
            _ => Value::Null,
        };
        if row.own
            && matches!(row.status, Status::Planned(_) | Status::Refused(_) | Status::Cluster(_))
            && !row.path.contains("[]")
            && !is_in_clusters_only(&VirtualMachineInstance::TYPE, &row.path)
        {
            let mut document = instance();
            // Naming these timers and features asks for them.
            if !row.path.contains("hpet") && !row.path.contains(".pit") && !row.path.contains("hyperv") {
                put(&mut document, &VirtualMachineInstance::TYPE, &row.path, nothing);
                parse(document.to_string()).unwrap_or_else(|problems| panic!("{}: {problems}", row.path));
            }
        }
    }
}

#[test]
fn what_the_server_writes_is_accepted() {
    let mut document = instance();
    document["metadata"] = json!({
        "name": "guest",
        "namespace": "default",
        "uid": "04b05501-411e-46f3-a78a-7837108bc18d",
        "resourceVersion": "4373",
        "generation": 7,
        "creationTimestamp": "2026-11-20T22:02:49Z",
        "finalizers": ["kubevirt.io/foregroundDeleteVirtualMachine"],
        "managedFields": [{"manager": "kubectl"}],
        "ownerReferences": [{"apiVersion": "v1", "kind": "Pod", "name": "a", "uid": "b"}],
        "annotations": {"kubevirt.io/latest-observed-api-version": "v1"},
    });
    document["status"] = json!({"phase": "Failed", "interfaces": [{"name": "default"}]});
    parse(document.to_string()).unwrap();
}

#[test]
fn each_field_that_only_libvirt_has_is_accepted_and_says_so() {
    let mut checked = 0;
    for row in fields(&VirtualMachineInstance::TYPE, "") {
        let value = match row.status {
            Status::Libvirt(_) if row.own => some(&row.field.ty),
            Status::NativeOnly(own, _) => json!(!own),
            _ => continue,
        };
        let mut document = instance();
        let place = put(&mut document, &VirtualMachineInstance::TYPE, &row.path, value);
        // Values that are made up may be wrong; the field is not.
        if let Err(problems) = parse(document.to_string()) {
            let refused = problems.iter().any(|p| NOT_DONE.contains(&p.code) && p.path == place);
            assert!(!refused, "{place}: {problems}");
        }
        let typed: VirtualMachineInstance = serde_json::from_value(document).unwrap();
        let needs = typed.needs_libvirt();
        assert!(needs.iter().any(|need| need.path == place), "{place}: {needs:?}");
        checked += 1;
    }
    assert!(checked > 15, "only {checked} fields checked");
}
