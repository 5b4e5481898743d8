//! The webhooks, as the API server knows them. Written by the controller and not by a manifest: they are there only once it
//! is known that this cluster is Pinion's to serve, and no `kubectl apply` takes the certificates out of them again.
//!
//! They go with the ClusterRole that owns them: what `kubectl delete -k` removes takes them along.

use kube::api::{Patch, PatchParams};
use kube::core::{ApiResource, DynamicObject, GroupVersionKind};
use pinion_reconcile::{MANAGER, Meta};
use serde_json::{Value, json};

use crate::api::Api;
use crate::removal;

/// Name of both configurations.
pub(crate) const NAME: &str = "pinion-webhook";
const GROUP: &str = "admissionregistration.k8s.io";
/// The object that owns them.
const OWNER: &str = "pinion-controller";
/// Seconds that an API server waits for an answer.
const ANSWERED_WITHIN: u32 = 10;

/// How the API server reaches the webhook.
#[derive(Clone, Debug)]
pub enum Way {
    /// By the Service of that namespace and name.
    Service(String, String),
    /// At an address: a controller outside of the cluster.
    Url(String),
}

impl Way {
    fn client_config(&self, path: &str) -> Value {
        match self {
            Self::Service(namespace, name) => {
                json!({"service": {"namespace": namespace, "name": name, "path": path, "port": 443}})
            }
            Self::Url(url) => json!({"url": format!("{url}{path}")}),
        }
    }
}

/// Applies both.
///
/// # Errors
/// What the API server says.
pub(crate) async fn register(api: &Api, way: &Way) -> Result<(), kube::Error> {
    let owner = owner(api).await?;
    for (kind, plural, path) in [
        ("ValidatingWebhookConfiguration", "validatingwebhookconfigurations", "/validate"),
        ("MutatingWebhookConfiguration", "mutatingwebhookconfigurations", "/mutate"),
    ] {
        let resource = ApiResource::from_gvk_with_plural(&GroupVersionKind::gvk(GROUP, "v1", kind), plural);
        let configurations = kube::Api::<DynamicObject>::all_with(api.client().clone(), &resource);
        let document = configuration(kind, path, way, owner.as_ref());
        let params = PatchParams::apply(MANAGER).force();
        configurations.patch(NAME, &params, &Patch::Apply(&document)).await?;
    }
    Ok(())
}

/// The reference to what owns them; none outside of a cluster.
async fn owner(api: &Api) -> Result<Option<Value>, kube::Error> {
    let kind = GroupVersionKind::gvk("rbac.authorization.k8s.io", "v1", "ClusterRole");
    let resource = ApiResource::from_gvk_with_plural(&kind, "clusterroles");
    let roles = kube::Api::<DynamicObject>::all_with(api.client().clone(), &resource);
    let role = roles.get_opt(OWNER).await?;
    Ok(role.map(|role| {
        let uid = Meta { uid: role.metadata.uid.unwrap_or_default(), ..Meta::default() }.uid;
        json!({"apiVersion": "rbac.authorization.k8s.io/v1", "kind": "ClusterRole", "name": OWNER, "uid": uid})
    }))
}

fn configuration(kind: &str, path: &str, way: &Way, owner: Option<&Value>) -> Value {
    let name =
        if path == "/validate" { "validate.kubevirt.pinion.dev" } else { "mutate.kubevirt.pinion.dev" };
    let operations = if path == "/validate" { json!(["CREATE", "UPDATE"]) } else { json!(["CREATE"]) };
    let client_config = way.client_config(path);
    let mut document = json!({
        "apiVersion": format!("{GROUP}/v1"),
        "kind": kind,
        "metadata": {
            "name": NAME,
            "labels": {"app.kubernetes.io/part-of": "pinion"},
            "ownerReferences": owner.into_iter().collect::<Vec<_>>(),
        },
        "webhooks": [{
            "name": name,
            "admissionReviewVersions": ["v1"],
            "sideEffects": "None",
            // A spec that nobody has looked at is not stored.
            "failurePolicy": "Fail",
            "matchPolicy": "Equivalent",
            "timeoutSeconds": ANSWERED_WITHIN,
            "clientConfig": client_config,
            "rules": [{
                "apiGroups": ["kubevirt.io"],
                "apiVersions": ["v1"],
                "operations": operations,
                "resources": ["virtualmachines", "virtualmachineinstances", "virtualmachineinstancereplicasets"],
                "scope": "Namespaced",
            }],
        }],
    });
    if let Some(webhooks) = document["webhooks"].as_array_mut().filter(|_| path == "/validate") {
        webhooks.push(removal::entry(&client_config));
    }
    document
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn both_ask_for_what_they_look_at_and_no_more() {
        let way = Way::Service("pinion-system".into(), "pinion-webhook".into());
        let owner = json!({"kind": "ClusterRole"});
        let validate = configuration("ValidatingWebhookConfiguration", "/validate", &way, Some(&owner));
        let hook = &validate["webhooks"][0];
        assert_eq!(validate["webhooks"][1]["clientConfig"], hook["clientConfig"]);
        assert_eq!(validate["webhooks"].as_array().unwrap().len(), 2);
        assert_eq!(hook["clientConfig"]["service"]["path"], "/validate");
        assert_eq!(hook["rules"][0]["operations"], json!(["CREATE", "UPDATE"]));
        assert_eq!(validate["metadata"]["ownerReferences"], json!([owner]));
        let way = Way::Url("https://127.0.0.1:9443".into());
        let mutate = configuration("MutatingWebhookConfiguration", "/mutate", &way, None);
        assert_eq!(mutate["webhooks"][0]["clientConfig"]["url"], "https://127.0.0.1:9443/mutate");
        // Subresources are not asked about: a status is the controller's.
        let resources = mutate["webhooks"][0]["rules"][0]["resources"].as_array().unwrap();
        assert!(resources.iter().all(|name| !name.as_str().unwrap().contains('/')));
    }
}
