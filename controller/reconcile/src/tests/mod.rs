//! What is done next, step by step.

mod instances;
mod machines;
mod pods;
mod replica_sets;

use jiff::{SignedDuration, Timestamp};
use serde_json::{Value, json};

/// A moment that many seconds after all began.
fn at(seconds: i64) -> Timestamp {
    let start: Timestamp = "2026-11-22T10:00:00Z".parse().unwrap();
    start.checked_add(SignedDuration::from_secs(seconds)).unwrap()
}

fn spec() -> Value {
    json!({
        "domain": {
            "cpu": {"cores": 2, "dedicatedCpuPlacement": true},
            "memory": {"guest": "128Mi", "hugepages": {"pageSize": "2Mi"}},
            "devices": {
                "interfaces": [{"name": "default", "masquerade": {}}],
                "disks": [{"name": "root", "disk": {}}, {"name": "data", "disk": {}}],
                "hostDevices": [{"name": "nic", "deviceName": "example.com/nic"}],
            },
        },
        "networks": [{"name": "default", "pod": {}}],
        "volumes": [
            {"name": "root", "containerDisk": {"image": "example.com/disk:1", "imagePullPolicy": "Never"}},
            {"name": "data", "persistentVolumeClaim": {"claimName": "data"}},
        ],
        "tolerations": [{"key": "guests", "operator": "Exists"}],
        "terminationGracePeriodSeconds": 20,
    })
}

fn instance_object(name: &str) -> Value {
    json!({
        "apiVersion": "kubevirt.io/v1",
        "kind": "VirtualMachineInstance",
        "metadata": {
            "name": name, "namespace": "default", "uid": format!("uid-of-{name}"), "generation": 1,
            "creationTimestamp": "2026-11-22T10:00:00Z",
            "labels": {"app": "web"},
            "annotations": {"kubectl.kubernetes.io/last-applied-configuration": "{}", "irq-load-balancing.crio.io": "disable"},
            "finalizers": ["kubevirt.io/foregroundDeleteVirtualMachine"],
        },
        "spec": spec(),
    })
}

/// The conditions of a status, as `Type=Status/Reason`.
fn conditions(status: &Value) -> Vec<String> {
    let list = status["conditions"].as_array().unwrap();
    let text = |c: &Value, name: &str| c[name].as_str().unwrap_or_default().to_owned();
    let named = |c: &Value| format!("{}={}/{}", text(c, "type"), text(c, "status"), text(c, "reason"));
    list.iter().map(named).filter(|name| !name.starts_with("LiveMigratable=")).collect()
}
