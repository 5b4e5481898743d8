//! The pod's volumes, and where its container has them. Which there are is `pinion_api::PodVolumes`' to say.

use std::collections::BTreeSet;

use pinion_api::{InstanceSpec, PodMount, PodSource, PodVolumes};
use serde_json::{Value, json};

/// What a pod has of volumes.
#[derive(Debug, Default)]
pub(crate) struct Volumes {
    pub(crate) volumes: Vec<Value>,
    pub(crate) mounts: Vec<Value>,
    pub(crate) devices: Vec<Value>,
    pub(crate) pull_secrets: Vec<Value>,
}

/// The volumes of a guest; `block_claims` are those that have no file system, by name.
pub(crate) fn volumes(spec: &InstanceSpec, block_claims: &BTreeSet<String>) -> Volumes {
    let layout = PodVolumes::default();
    let mut all = Volumes::default();
    for mount in layout.mounts(spec) {
        all.volumes.push(volume(&mount));
        match (&mount.device, &mount.source) {
            (Some(device), PodSource::Claim { name }) if block_claims.contains(*name) => {
                all.devices.push(json!({"name": mount.name, "devicePath": device}));
            }
            _ => {
                let mut place = json!({"name": mount.name, "mountPath": mount.path});
                if mount.read_only {
                    place["readOnly"] = true.into();
                }
                all.mounts.push(place);
            }
        }
        if let PodSource::Image { pull_secret: Some(name), .. } = mount.source {
            let secret = json!({"name": name});
            if !all.pull_secrets.contains(&secret) {
                all.pull_secrets.push(secret);
            }
        }
    }
    all
}

fn volume(mount: &PodMount<'_>) -> Value {
    let mut volume = match &mount.source {
        PodSource::HostFolder { path, make } => {
            json!({"hostPath": {"path": path, "type": if *make { "DirectoryOrCreate" } else { "Directory" }}})
        }
        PodSource::Claim { name } => {
            json!({"persistentVolumeClaim": {"claimName": name, "readOnly": mount.read_only}})
        }
        PodSource::Image { reference, pull_policy, .. } => {
            let mut image = json!({"reference": reference});
            if let Some(policy) = pull_policy.filter(|policy| !policy.is_empty()) {
                image["pullPolicy"] = (*policy).into();
            }
            json!({"image": image})
        }
        PodSource::Secret { name, optional } => json!({"secret": {"secretName": name, "optional": optional}}),
        PodSource::ConfigMap { name, optional } => json!({"configMap": {"name": name, "optional": optional}}),
        PodSource::DownwardApi { fields } => json!({"downwardAPI": {"items": fields}}),
        PodSource::Empty => json!({"emptyDir": {}}),
    };
    volume["name"] = mount.name.clone().into();
    volume
}
