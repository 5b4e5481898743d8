//! What `kubectl apply` says of every field that is refused in a cluster, and of every rule: the same words that the rules
//! themselves give, each by its field.

use pinion_api::schema::{Schema, Status};
use pinion_api::{Place, VirtualMachine, fields, parse_at};
use serde_json::{Value, json};

use crate::Stage;
use crate::made::{put, some};
use crate::rules::{ALL, Base};

fn instance() -> Value {
    json!({
        "apiVersion": "kubevirt.io/v1", "kind": "VirtualMachineInstance", "metadata": {"name": "guest"},
        "spec": {
            "domain": {
                "cpu": {"cores": 2},
                "memory": {"guest": "256Mi"},
                "firmware": {"kernelBoot": {"container": {"image": "example.com/kernel", "kernelPath": "/vmlinuz"}}},
                "devices": {"disks": [{"name": "root"}], "interfaces": [{"name": "default", "masquerade": {}}]},
            },
            "networks": [{"name": "default", "pod": {}}],
            "volumes": [{"name": "root", "containerDisk": {"image": "example.com/disk"}}],
        },
    })
}

fn machine() -> Value {
    json!({
        "apiVersion": "kubevirt.io/v1", "kind": "VirtualMachine", "metadata": {"name": "guest"},
        "spec": {"runStrategy": "Always", "template": {"metadata": {}, "spec": instance()["spec"]}},
    })
}

fn replica_set() -> Value {
    json!({
        "apiVersion": "kubevirt.io/v1", "kind": "VirtualMachineInstanceReplicaSet", "metadata": {"name": "guest"},
        "spec": {
            "replicas": 1, "selector": {"matchLabels": {"app": "a"}},
            "template": {"metadata": {"labels": {"app": "a"}}, "spec": instance()["spec"]},
        },
    })
}

/// Sets a value at a JSON pointer whose parent is an object or a list that is long enough.
fn set(document: &mut Value, pointer: &str, value: Value) {
    let (parent, key) = pointer.rsplit_once('/').unwrap();
    let parent = document.pointer_mut(parent).unwrap();
    if value.is_null() {
        parent.as_object_mut().unwrap().remove(key);
        return;
    }
    match key.parse::<usize>() {
        Ok(index) if parent.is_array() => parent[index] = value,
        _ => parent[key] = value,
    }
}

/// A document, and what the rules say of it: `field: message`.
struct Wrong {
    document: Value,
    says: Vec<String>,
}

impl Wrong {
    fn new(mut document: Value, number: usize) -> Self {
        let name = format!("wrong-{number}");
        document["metadata"]["name"] = name.clone().into();
        let problems = parse_at(Place::Cluster, document.to_string()).err();
        let told = problems.iter().flat_map(|problems| problems.iter());
        let says = told.map(|problem| format!("{}: {}", problem.path, problem.message)).collect();
        Self { document, says }
    }
}

fn against_rules() -> Vec<Value> {
    let mut documents = Vec::new();
    for (field, sets, base) in
        ALL.iter().flat_map(|(cases, base)| cases.iter().map(move |(f, s)| (f, s, base)))
    {
        let mut document = match base {
            Base::Instance => instance(),
            Base::Machine => machine(),
            Base::ReplicaSet => replica_set(),
        };
        let sets: serde_json::Map<String, Value> = serde_json::from_str(sets).unwrap();
        for (pointer, value) in sets {
            set(&mut document, &pointer, value);
        }
        let problems = parse_at(Place::Cluster, document.to_string()).expect_err(field);
        assert!(problems.iter().any(|p| p.path.to_string() == *field), "{field}: {problems}");
        documents.push(document);
    }
    documents
}

/// A machine for each field that has no meaning in a cluster.
fn with_refused_fields() -> Vec<Value> {
    let mut documents = Vec::new();
    for row in fields(&VirtualMachine::TYPE, "") {
        let value = match row.status {
            Status::Planned(_) | Status::Refused(_) | Status::Host(_) if row.own => some(&row.field.ty),
            Status::Only(works, _) => json!(!works),
            _ => continue,
        };
        let mut document = machine();
        let place = put(&mut document, &VirtualMachine::TYPE, &row.path, value);
        // What is inside of something that is refused is told of there.
        let problems = parse_at(Place::Cluster, document.to_string()).expect_err(&row.path);
        assert!(
            problems.iter().any(|p| place.segments().starts_with(p.path.segments())),
            "{place}: {problems}"
        );
        documents.push(document);
    }
    documents
}

/// All of them in one list: `kubectl` tells of each.
pub(crate) fn everything_that_is_refused_is_told(stage: &Stage) {
    for base in [instance(), machine(), replica_set()] {
        parse_at(Place::Cluster, base.to_string()).unwrap();
    }
    let documents = against_rules().into_iter().chain(with_refused_fields());
    let wrong: Vec<Wrong> =
        documents.enumerate().map(|(number, document)| Wrong::new(document, number)).collect();
    assert!(wrong.len() > 150, "only {}", wrong.len());
    let items: Vec<&Value> = wrong.iter().map(|wrong| &wrong.document).collect();
    let list = json!({"apiVersion": "v1", "kind": "List", "items": items});
    let told = stage.apply(&list.to_string()).unwrap_err();
    let mut untold = Vec::new();
    for Wrong { document, says } in &wrong {
        let name = document["metadata"]["name"].as_str().unwrap();
        // The answer to one document begins with its name in quotes.
        let answer = told
            .split("Error from server")
            .find(|answer| answer.contains(&format!("\"{name}\"")))
            .unwrap_or_default();
        untold.extend(
            says.iter()
                .filter(|said| !answer.contains(*said))
                .map(|said| format!("{name}: {said}: {answer}")),
        );
    }
    assert!(untold.is_empty(), "{} of {}: {}", untold.len(), wrong.len(), untold.join("\n"));
    println!("controller: {} wrong documents are refused, each by its fields", wrong.len());
}
