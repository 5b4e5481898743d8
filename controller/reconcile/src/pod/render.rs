//! The pod of a guest, as it is created.
//!
//! Source for names that others read: KubeVirt 1.9, `reference/captures` and the pods of its launcher.

use std::collections::{BTreeMap, BTreeSet};

use pinion_api::{BackendKind, VirtualMachineInstance};
use serde_json::{Value, json};
use sha2::{Digest, Sha256};

use crate::object::Meta;
use crate::pod::resources::{overhead_bytes, resources};
use crate::pod::volumes::{Volumes, volumes};

/// The container that the guest runs in. Webhooks of others rely on its being the first.
pub const CONTAINER: &str = "compute";
/// The guest, as its launcher reads it: the instance with every default.
pub const SPEC_ANNOTATION: &str = "pinion.dev/instance";

/// User and group of the launcher. KubeVirt's.
pub(crate) const USER: i64 = 107;
/// The profile that the node's agent keeps below the kubelet's folder: the runtime's own forbids to bind memory to nodes.
const SECCOMP_PROFILE: &str = "pinion/launcher.json";
/// Seconds that the launcher has beside the guest's own.
const GRACE_MORE: i64 = 15;
/// Longest value of a label, bytes.
const LONGEST_LABEL: usize = 63;
/// Annotations of an instance that are not its pod's.
const NOT_PASSED_ON: [&str; 3] = [
    "kubectl.kubernetes.io/",
    "kubevirt.io/latest-observed-api-version",
    "kubevirt.io/storage-observed-api-version",
];

/// Images of the launchers: each backend has its own.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct LauncherImages {
    /// Of our own virtual machine monitor.
    pub native: String,
    /// Of QEMU, through libvirt.
    pub libvirt: String,
}

impl LauncherImages {
    /// That of what runs a guest.
    #[must_use]
    pub fn of(&self, instance: &VirtualMachineInstance) -> &str {
        match instance.backend() {
            BackendKind::Native => &self.native,
            BackendKind::Libvirt => &self.libvirt,
        }
    }
}

/// What a pod needs to know beside its instance.
#[derive(Clone, Debug)]
pub struct Launcher<'a> {
    /// Images of the launchers.
    pub images: &'a LauncherImages,
    /// When it is pulled; the kubelet's own rule where empty.
    pub pull_policy: &'a str,
    /// The node that it is bound to.
    pub node: &'a str,
    /// Threads of that node's cores.
    pub threads_per_core: u64,
    /// How many pods the instance had before this one.
    pub attempt: u32,
    /// Claims that have no file system (`volumeMode: Block`), by name.
    pub block_claims: &'a BTreeSet<String>,
    /// Bytes of claims, by name, where that is known.
    pub claim_bytes: &'a BTreeMap<String, u64>,
}

/// The name of an instance's pod: always the same one for an instance and an attempt, so that two controllers cannot make
/// two pods.
#[must_use]
pub fn pod_name(meta: &Meta, attempt: u32) -> String {
    let digest = Sha256::digest(format!("{}/{attempt}", meta.uid));
    let suffix: String = digest.iter().take(3).map(|byte| format!("{byte:02x}")).collect();
    let name: String = meta.name.chars().take(200).collect();
    format!("virt-launcher-{}-{suffix}", name.trim_end_matches(['-', '.']))
}

/// The pod of an instance.
#[must_use]
pub fn launcher_pod(meta: &Meta, instance: &VirtualMachineInstance, launcher: &Launcher<'_>) -> Value {
    json!({
        "apiVersion": "v1",
        "kind": "Pod",
        "metadata": {
            "name": pod_name(meta, launcher.attempt),
            "namespace": meta.namespace,
            "labels": labels(meta),
            "annotations": annotations(meta, instance),
            "ownerReferences": [meta.reference("VirtualMachineInstance")],
        },
        "spec": pod_spec(meta, instance, launcher),
    })
}

fn labels(meta: &Meta) -> BTreeMap<String, String> {
    let mut labels = meta.labels.clone();
    let name = label(&meta.name);
    for (key, value) in [
        ("kubevirt.io", "virt-launcher".to_owned()),
        ("kubevirt.io/created-by", meta.uid.clone()),
        ("vm.kubevirt.io/name", name.clone()),
        ("vmi.kubevirt.io/id", name),
    ] {
        labels.insert(key.to_owned(), value);
    }
    labels
}

/// A name as the value of a label: a long one ends in what is its alone.
fn label(name: &str) -> String {
    if name.len() <= LONGEST_LABEL {
        return name.to_owned();
    }
    let digest = Sha256::digest(name);
    let suffix: String = digest.iter().take(4).map(|byte| format!("{byte:02x}")).collect();
    let kept: String =
        name.chars().take(LONGEST_LABEL.saturating_sub(suffix.len()).saturating_sub(1)).collect();
    format!("{kept}-{suffix}")
}

fn annotations(meta: &Meta, instance: &VirtualMachineInstance) -> BTreeMap<String, String> {
    let is_its_own = |key: &str| NOT_PASSED_ON.iter().any(|known| key.starts_with(known));
    let passed_on = meta.annotations.iter().filter(|(key, _)| !is_its_own(key));
    let mut annotations: BTreeMap<String, String> = passed_on.map(|(k, v)| (k.clone(), v.clone())).collect();
    let mut guest = instance.clone();
    guest.status = None;
    // Nobody in the pod needs it, and it is the longest.
    guest.metadata.annotations.retain(|key, _| !is_its_own(key));
    guest.metadata.managed_fields.clear();
    for (key, value) in [
        ("kubevirt.io/domain", meta.name.clone()),
        ("kubectl.kubernetes.io/default-container", CONTAINER.to_owned()),
        ("descheduler.alpha.kubernetes.io/request-evict-only", String::new()),
        ("kubevirt.io/memory-overhead-bytes", overhead_bytes(instance).to_string()),
        (SPEC_ANNOTATION, serde_json::to_string(&guest).unwrap_or_default()),
    ] {
        annotations.insert(key.to_owned(), value);
    }
    annotations
}

fn pod_spec(meta: &Meta, instance: &VirtualMachineInstance, launcher: &Launcher<'_>) -> Value {
    let spec = &instance.spec;
    let Volumes { volumes: mut all, mounts, devices, pull_secrets } = volumes(spec, launcher.block_claims);
    all.push(json!({
        "name": "instance",
        "downwardAPI": {"items": [{
            "path": "instance.json",
            "fieldRef": {"fieldPath": format!("metadata.annotations['{SPEC_ANNOTATION}']")},
        }]},
    }));
    all.push(json!({"name": "run", "emptyDir": {"medium": "Memory"}}));
    let grace = i64::try_from(spec.grace_period().as_secs()).unwrap_or(i64::MAX).saturating_add(GRACE_MORE);
    let mut pod = json!({
        "restartPolicy": "Never",
        "enableServiceLinks": false,
        "automountServiceAccountToken": false,
        "terminationGracePeriodSeconds": grace,
        "affinity": {"nodeAffinity": {"requiredDuringSchedulingIgnoredDuringExecution": {"nodeSelectorTerms": [
            {"matchFields": [{"key": "metadata.name", "operator": "In", "values": [launcher.node]}]},
        ]}}},
        "tolerations": spec.tolerations,
        "securityContext": {
            "runAsUser": USER, "runAsGroup": USER, "runAsNonRoot": true, "fsGroup": USER,
            "seccompProfile": {"type": "Localhost", "localhostProfile": SECCOMP_PROFILE},
        },
        "containers": [container(meta, instance, launcher, (mounts, devices))],
        "volumes": all,
    });
    let some = |text: &Option<String>| text.clone().filter(|text| !text.is_empty());
    let hostname = some(&spec.hostname).unwrap_or_else(|| meta.name.clone());
    // A pod's host name is a label, where an instance's name may have dots.
    if hostname.len() <= LONGEST_LABEL && !hostname.contains('.') {
        pod["hostname"] = hostname.into();
    }
    for (field, value) in [
        ("subdomain", some(&spec.subdomain)),
        ("priorityClassName", some(&spec.priority_class_name)),
        ("dnsPolicy", some(&spec.dns_policy)),
    ] {
        if let Some(value) = value {
            pod[field] = value.into();
        }
    }
    if let Some(config) = &spec.dns_config {
        pod["dnsConfig"] = json!(config);
    }
    if !pull_secrets.is_empty() {
        pod["imagePullSecrets"] = pull_secrets.into();
    }
    pod
}

/// What the launcher is told: claims whose size is known get an image that fits, where they have none.
fn arguments(instance: &VirtualMachineInstance, launcher: &Launcher<'_>) -> Vec<String> {
    let fixed = [
        "pod",
        "--instance",
        "/run/pinion/instance/instance.json",
        "--agent",
        "/run/pinion/agent/agent.sock",
    ];
    let mut words: Vec<String> = fixed.map(ToOwned::to_owned).into();
    for volume in &instance.spec.volumes {
        if let Some(bytes) = volume.claim().and_then(|claim| launcher.claim_bytes.get(claim)) {
            words.push(format!("--claim={}={bytes}", volume.name));
        }
    }
    words
}

fn container(
    meta: &Meta,
    instance: &VirtualMachineInstance,
    launcher: &Launcher<'_>,
    (mut mounts, devices): (Vec<Value>, Vec<Value>),
) -> Value {
    mounts.push(json!({"name": "instance", "mountPath": "/run/pinion/instance", "readOnly": true}));
    mounts.push(json!({"name": "run", "mountPath": "/run/pinion/guest"}));
    let mut container = json!({
        "name": CONTAINER,
        "image": launcher.images.of(instance),
        "args": arguments(instance, launcher),
        "env": [
            {"name": "POD_NAMESPACE", "value": meta.namespace},
            {"name": "POD_NAME", "valueFrom": {"fieldRef": {"fieldPath": "metadata.name"}}},
            {"name": "NODE_NAME", "valueFrom": {"fieldRef": {"fieldPath": "spec.nodeName"}}},
        ],
        "resources": resources(instance, launcher.threads_per_core),
        "securityContext": {
            "allowPrivilegeEscalation": false,
            "readOnlyRootFilesystem": true,
            "capabilities": {"drop": ["ALL"]},
        },
        "terminationMessagePolicy": "FallbackToLogsOnError",
        "volumeMounts": mounts,
    });
    if !devices.is_empty() {
        container["volumeDevices"] = devices.into();
    }
    if !launcher.pull_policy.is_empty() {
        container["imagePullPolicy"] = launcher.pull_policy.into();
    }
    container
}
