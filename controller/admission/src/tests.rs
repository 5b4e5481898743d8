use pinion_api::{VirtualMachine, VirtualMachineInstance};
use serde_json::{Value, json};

use crate::*;

fn instance() -> Value {
    json!({
        "apiVersion": "kubevirt.io/v1", "kind": "VirtualMachineInstance", "metadata": {"name": "a"},
        "spec": {"domain": {
            "memory": {"guest": "256Mi"}, "devices": {},
            "firmware": {"kernelBoot": {"container": {"image": "example.com/kernel", "kernelPath": "/vmlinuz"}}},
        }},
    })
}

fn machine() -> Value {
    json!({
        "apiVersion": "kubevirt.io/v1", "kind": "VirtualMachine", "metadata": {"name": "a"},
        "spec": {"runStrategy": "Always", "template": {"spec": instance()["spec"]}},
    })
}

fn replica_set() -> Value {
    json!({
        "apiVersion": "kubevirt.io/v1", "kind": "VirtualMachineInstanceReplicaSet", "metadata": {"name": "a"},
        "spec": {
            "replicas": 2, "selector": {"matchLabels": {"app": "a"}},
            "template": {"metadata": {"labels": {"app": "a"}}, "spec": instance()["spec"]},
        },
    })
}

const ALL: [(Kind, fn() -> Value); 3] =
    [(Kind::Machine, machine), (Kind::Instance, instance), (Kind::ReplicaSet, replica_set)];

fn causes(kind: Kind, object: &Value, old: Option<&Value>) -> Vec<(String, &'static str)> {
    match validate(Change { kind, object, old }) {
        Verdict::Allowed => Vec::new(),
        Verdict::Refused(causes) => causes.into_iter().map(|c| (c.field, c.kind.as_str())).collect(),
    }
}

#[test]
fn what_is_right_may_be_stored() {
    for (kind, object) in ALL {
        assert_eq!(validate(Change { kind, object: &object(), old: None }), Verdict::Allowed);
        assert_eq!(Kind::of(kind.as_str()), Some(kind));
    }
}

#[test]
fn everything_that_is_wrong_is_told_at_once_by_its_field() {
    let mut wrong = instance();
    wrong["spec"]["domain"]["colour"] = "red".into();
    wrong["spec"]["domain"]["cpu"] = json!({"cores": "two"});
    wrong["spec"]["livenessProbe"] = json!({"tcpSocket": {"port": 1}});
    wrong["spec"]["domain"]["memory"] = json!({});
    assert_eq!(
        causes(Kind::Instance, &wrong, None),
        [
            ("spec.domain.colour".to_owned(), "FieldValueInvalid"),
            ("spec.domain.cpu.cores".to_owned(), "FieldValueInvalid"),
            ("spec.domain.memory.guest".to_owned(), "FieldValueRequired"),
            ("spec.livenessProbe".to_owned(), "FieldValueNotSupported"),
        ]
    );
}

#[test]
fn a_refusal_reads_well_and_has_a_cause_for_each_field() {
    let mut wrong = instance();
    wrong["spec"]["domain"]["colour"] = "red".into();
    let verdict = validate(Change { kind: Kind::Instance, object: &wrong, old: None });
    let message = verdict.message("VirtualMachineInstance", "a").unwrap();
    assert_eq!(message, "VirtualMachineInstance \"a\" is invalid: spec.domain.colour: unknown field");
    for number in 0..30 {
        wrong["spec"]["domain"][format!("zz{number}")] = 1.into();
    }
    let verdict = validate(Change { kind: Kind::Instance, object: &wrong, old: None });
    let message = verdict.message("VirtualMachineInstance", "").unwrap();
    assert!(
        message.starts_with("VirtualMachineInstance is invalid:\n* spec.domain.colour: unknown field\n* "),
        "{message}"
    );
    assert!(message.ends_with("\n* and 11 more"), "{message}");
    assert_eq!(Verdict::Allowed.message("", ""), None);
}

#[test]
fn an_instance_stays_what_it_was_made_as_but_its_status_and_labels_do_not() {
    let old = instance();
    let mut new = instance();
    new["spec"]["domain"]["memory"]["guest"] = "512Mi".into();
    assert_eq!(causes(Kind::Instance, &new, Some(&old)), [("spec".to_owned(), "FieldValueInvalid")]);
    let mut new = instance();
    new["metadata"]["labels"] = json!({"a": "b"});
    new["status"] = json!({"phase": "Running"});
    assert_eq!(causes(Kind::Instance, &new, Some(&old)), []);
}

#[test]
fn what_older_rules_have_let_in_may_still_end() {
    for (kind, object) in ALL {
        let mut old = object();
        old["spec"]["somethingThatWasAllowed"] = true.into();
        let mut new = old.clone();
        new["metadata"]["finalizers"] = json!([]);
        assert_eq!(causes(kind, &new, Some(&old)), [], "{kind:?}");
        assert_ne!(causes(kind, &new, None), [], "{kind:?}");
    }
}

#[test]
fn a_machine_and_a_set_may_change_what_they_make_if_that_is_right() {
    let old = machine();
    let mut new = machine();
    new["spec"]["template"]["spec"]["domain"]["memory"]["guest"] = "512Mi".into();
    assert_eq!(causes(Kind::Machine, &new, Some(&old)), []);
    new["spec"]["template"]["spec"]["domain"]["memory"]["guest"] = "lots".into();
    let field = "spec.template.spec.domain.memory.guest".to_owned();
    assert_eq!(causes(Kind::Machine, &new, Some(&old)), [(field, "FieldValueInvalid")]);
    let old = replica_set();
    let mut new = replica_set();
    new["spec"]["replicas"] = 7.into();
    assert_eq!(causes(Kind::ReplicaSet, &new, Some(&old)), []);
    new["spec"]["selector"]["matchLabels"]["app"] = "b".into();
    assert_eq!(
        causes(Kind::ReplicaSet, &new, Some(&old)),
        [("spec.selector".to_owned(), "FieldValueInvalid")]
    );
}

#[test]
fn a_new_instance_gets_the_pod_network_unless_it_says_otherwise() {
    let paths = |object: &Value, old: Option<&Value>| -> Vec<String> {
        let patch = complete(Change { kind: Kind::Instance, object, old });
        patch.iter().map(|step| step["path"].as_str().unwrap().to_owned()).collect()
    };
    let finalizers = "/metadata/finalizers";
    let object = instance();
    assert_eq!(paths(&object, None), [finalizers, "/spec/domain/devices/interfaces", "/spec/networks"]);
    assert!(paths(&object, Some(&object)).is_empty());
    for (pointer, value) in [
        ("/spec/domain/devices", json!({"autoattachPodInterface": false})),
        ("/spec/domain/devices", json!({"interfaces": [{"name": "a", "masquerade": {}}]})),
        ("/spec/domain", json!({})),
        ("/spec/domain", json!(1)),
    ] {
        let mut object = instance();
        *object.pointer_mut(pointer).unwrap() = value;
        assert_eq!(paths(&object, None), [finalizers], "{object}");
    }
    let mut object = instance();
    object["metadata"]["finalizers"] = json!(["other"]);
    assert_eq!(paths(&object, None)[0], "/metadata/finalizers/-");
    object["metadata"]["finalizers"] = json!([VirtualMachineInstance::FINALIZER]);
    assert_eq!(paths(&object, None).len(), 2);
    for strange in [json!(1), json!(null), json!([]), json!({"metadata": 1}), json!({"spec": []})] {
        assert!(paths(&strange, None).is_empty(), "{strange}");
    }
    let machine = machine();
    let patch = complete(Change { kind: Kind::Machine, object: &machine, old: None });
    assert_eq!(patch, [json!({"op": "add", "path": finalizers, "value": [VirtualMachine::FINALIZER]})]);
}
