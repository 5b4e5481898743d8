//! What serves machines is not deleted while there are any: their finalizers would wait for nobody, and their guests run on
//! without anyone to end them.
//!
//! Asked by the API server for each object of Pinion's own that somebody deletes, in every replica. Where the controller is
//! away, nobody is asked, and the deletion goes on: an uninstallation that is half done must be able to end.

use pinion_webhook::{AdmissionRequest, Verdict};
use serde_json::{Value, json};

use crate::kinds::Kind;
use crate::world::World;

/// Most objects that a refusal names.
const NAMED: usize = 3;
/// Seconds that an API server waits for an answer.
const ANSWERED_WITHIN: u32 = 5;

/// What the manifests have, by API group.
const KEPT: [(&str, &str, &[&str]); 4] = [
    ("", "v1", &["namespaces", "serviceaccounts", "services"]),
    ("apps", "v1", &["daemonsets", "deployments"]),
    ("apiextensions.k8s.io", "v1", &["customresourcedefinitions"]),
    ("rbac.authorization.k8s.io", "v1", &["clusterroles", "clusterrolebindings", "roles", "rolebindings"]),
];

/// Whether an object of Pinion's own may be deleted.
pub(crate) fn removal(world: &World, request: &AdmissionRequest) -> Verdict {
    let mut served: Vec<String> = Vec::new();
    for kind in [Kind::Machine, Kind::ReplicaSet, Kind::Instance] {
        served
            .extend(world.names(kind).iter().map(|(space, name)| format!("{} {space}/{name}", kind.name())));
    }
    if served.is_empty() {
        return Verdict::allowed();
    }
    let mut named = served.iter().take(NAMED).cloned().collect::<Vec<_>>().join(", ");
    if served.len() > NAMED {
        named = format!("{named} and {} more", served.len().saturating_sub(NAMED));
    }
    Verdict::forbidden(format!(
        "{} {} belongs to Pinion, which serves {named}: delete these first (`kubectl get vm,vmi,vmirs --all-namespaces`). To \
         delete it all the same, take its label app.kubernetes.io/part-of away",
        request.kind.kind, request.name
    ))
}

/// The webhook's entry for it.
pub(crate) fn entry(client_config: &Value) -> Value {
    let rule = |(group, version, resources): &(&str, &str, &[&str])| {
        json!({
            "apiGroups": [group], "apiVersions": [version], "operations": ["DELETE"], "resources": resources,
            "scope": "*",
        })
    };
    json!({
        "name": "removal.kubevirt.pinion.dev",
        "admissionReviewVersions": ["v1"],
        "sideEffects": "None",
        "failurePolicy": "Ignore",
        "matchPolicy": "Equivalent",
        "timeoutSeconds": ANSWERED_WITHIN,
        "objectSelector": {"matchLabels": {"app.kubernetes.io/part-of": "pinion"}},
        "clientConfig": client_config,
        "rules": KEPT.iter().map(rule).collect::<Vec<_>>(),
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn asked() -> AdmissionRequest {
        serde_json::from_value(json!({
            "uid": "1", "operation": "DELETE", "name": "pinion-system",
            "kind": {"group": "", "version": "v1", "kind": "Namespace"},
            "resource": {"group": "", "version": "v1", "resource": "namespaces"},
        }))
        .unwrap()
    }

    #[test]
    fn what_serves_machines_is_deleted_after_them() {
        let world = World::default();
        assert!(removal(&world, &asked()).refusal.is_none());
        for (kind, number) in [(Kind::Machine, 2), (Kind::Instance, 2)] {
            for number in 0..number {
                let metadata = json!({"name": format!("m{number}"), "namespace": "default"});
                let _ = world.apply(kind, &json!({"metadata": metadata}));
            }
        }
        let verdict = removal(&world, &asked());
        let told = format!("{:?}", verdict.refusal);
        assert!(verdict.refusal.is_some(), "{told}");
        let expected = "Namespace pinion-system belongs to Pinion, which serves VirtualMachine default/m0, \
            VirtualMachine default/m1, VirtualMachineInstance default/m0 and 1 more: delete these first";
        assert!(told.contains(expected), "{told}");
    }

    #[test]
    fn only_what_has_pinions_label_is_asked_about() {
        let entry = entry(&json!({"url": "https://a"}));
        assert_eq!(entry["objectSelector"]["matchLabels"]["app.kubernetes.io/part-of"], "pinion");
        assert_eq!(entry["failurePolicy"], "Ignore");
        assert!(
            entry["rules"].as_array().unwrap().iter().all(|rule| rule["operations"] == json!(["DELETE"]))
        );
    }
}
