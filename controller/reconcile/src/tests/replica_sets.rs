//! Replica sets: as many as are wanted.

use std::collections::BTreeSet;

use serde_json::{Value, json};

use super::{at, spec};
use crate::instance::Instance;
use crate::replica_set::{Next, ReplicaSet, Step, next};

fn set_object(replicas: i32) -> Value {
    json!({
        "apiVersion": "kubevirt.io/v1",
        "kind": "VirtualMachineInstanceReplicaSet",
        "metadata": {"name": "web", "namespace": "default", "uid": "uid-of-set", "generation": 1},
        "spec": {
            "replicas": replicas,
            "selector": {"matchLabels": {"app": "web"}, "matchExpressions": [{"key": "app", "operator": "Exists"}]},
            "template": {"metadata": {"labels": {"app": "web"}}, "spec": spec()},
        },
    })
}

fn look(set: &Value, instances: &[Value]) -> Next {
    let own: Vec<Instance> = instances.iter().map(Instance::of).collect();
    next(&ReplicaSet::of(set), &own.iter().collect::<Vec<_>>(), at(0))
}

/// Does what is to be done, once.
fn act(set: &Value, instances: &mut Vec<Value>) -> Next {
    let next = look(set, instances);
    for step in &next.steps {
        match step {
            Step::CreateInstance(object) => {
                let mut object = object.clone();
                object["metadata"]["uid"] = object["metadata"]["name"].clone();
                object["metadata"]["creationTimestamp"] =
                    at(i64::try_from(instances.len()).unwrap()).to_string().into();
                instances.push(object);
            }
            Step::DeleteInstance(name, _) => instances.retain(|i| i["metadata"]["name"] != name.as_str()),
        }
    }
    next
}

fn names(instances: &[Value]) -> BTreeSet<String> {
    instances.iter().map(|i| i["metadata"]["name"].as_str().unwrap().to_owned()).collect()
}

#[test]
fn there_are_as_many_as_are_wanted_and_each_has_a_name_of_its_own() {
    let mut instances = Vec::new();
    let set = set_object(3);
    act(&set, &mut instances);
    assert_eq!(names(&instances).len(), 3);
    assert_eq!(instances[0]["metadata"]["ownerReferences"][0]["kind"], "VirtualMachineInstanceReplicaSet");
    let next = act(&set, &mut instances);
    assert_eq!(next.steps, []);
    assert_eq!(next.status["replicas"], 3);
    assert_eq!(next.status["labelSelector"], "app=web,app");
    act(&set_object(0), &mut instances);
    assert_eq!(instances.len(), 0);
    // Two controllers that look at the same time make the same ones.
    assert_eq!(look(&set, &[]).steps, look(&set, &[]).steps);
}

#[test]
fn who_has_ended_is_replaced() {
    let mut instances = Vec::new();
    let set = set_object(2);
    act(&set, &mut instances);
    let before = names(&instances);
    instances[0]["status"] = json!({"phase": "Failed"});
    act(&set, &mut instances);
    assert_eq!(instances.len(), 2);
    assert_ne!(names(&instances), before);
}

#[test]
fn those_that_run_stay_and_of_the_others_the_oldest() {
    let mut instances = Vec::new();
    act(&set_object(4), &mut instances);
    instances[2]["status"] = json!({"phase": "Running", "conditions": [{"type": "Ready", "status": "True"}]});
    let kept = names(&[instances[0].clone(), instances[2].clone()]);
    let next = act(&set_object(2), &mut instances);
    assert_eq!(names(&instances), kept);
    assert_eq!(next.status["readyReplicas"], 1);
}

#[test]
fn a_paused_a_deleted_and_a_damaged_set_do_nothing() {
    let mut paused = set_object(3);
    paused["spec"]["paused"] = true.into();
    let next = look(&paused, &[]);
    assert_eq!((next.steps.len(), &next.status["conditions"][0]["type"]), (0, &json!("ReplicaPaused")));
    let mut deleted = set_object(3);
    deleted["metadata"]["deletionTimestamp"] = "2026-11-22T11:00:00Z".into();
    assert_eq!(look(&deleted, &[]).steps, []);
    let mut damaged = set_object(3);
    damaged["spec"]["replicas"] = (-1).into();
    let next = look(&damaged, &[]);
    assert_eq!((next.steps.len(), &next.status["conditions"][0]["type"]), (0, &json!("ReplicaFailure")));
}
