//! Rules on volumes that are no files of the host: claims, images of containers, objects of the cluster, empty disks.
//!
//! On one host most of them are refused when they are read; what is wrong inside is told in a cluster only.

use std::collections::{BTreeMap, BTreeSet};
use std::path::{Component, Path};

use crate::firmware::inside;
use crate::path::FieldPath;
use crate::problem::{Findings, ProblemCode};
use crate::{ContainerDisk, DownwardApi, InstanceSpec, Volume};

use super::names;

/// Longest label of a FAT file system.
const LONGEST_LABEL: usize = 11;
/// When an image is pulled. Source: Kubernetes.
const PULL_POLICIES: [&str; 3] = ["Always", "IfNotPresent", "Never"];

pub(super) fn check(volume: &Volume, path: &FieldPath, findings: &mut Findings) {
    if let Some(disk) = &volume.empty_disk
        && disk.capacity.whole().is_none_or(|bytes| bytes == 0)
    {
        let message = format!("{} is no size of a disk", disk.capacity);
        findings.add(&path.field("emptyDisk.capacity"), ProblemCode::Invalid, message);
    }
    if !findings.in_cluster() {
        return;
    }
    if let Some(claim) = &volume.persistent_volume_claim {
        let path = path.field("persistentVolumeClaim.claimName");
        check_object(Some(&claim.claim_name), "claim", &path, findings);
    }
    if let Some(data) = &volume.data_volume {
        check_object(Some(&data.name), "data volume", &path.field("dataVolume.name"), findings);
    }
    if let Some(ephemeral) = &volume.ephemeral {
        let path = path.field("ephemeral.persistentVolumeClaim");
        match &ephemeral.persistent_volume_claim {
            Some(claim) => check_object(Some(&claim.claim_name), "claim", &path.field("claimName"), findings),
            None => findings.add(&path, ProblemCode::Required, "required: which claim lies below?"),
        }
    }
    if let Some(image) = &volume.container_disk {
        check_image(image, &path.field("containerDisk"), findings);
    }
    if let Some(map) = &volume.config_map {
        check_object(map.name.as_deref(), "config map", &path.field("configMap.name"), findings);
        check_label(map.volume_label.as_deref(), &path.field("configMap"), findings);
    }
    if let Some(secret) = &volume.secret {
        check_object(secret.secret_name.as_deref(), "secret", &path.field("secret.secretName"), findings);
        check_label(secret.volume_label.as_deref(), &path.field("secret"), findings);
    }
    if let Some(fields) = &volume.downward_api {
        check_downward(fields, &path.field("downwardAPI"), findings);
    }
}

/// An object of the cluster must be named. What is required where the spec is read is reported there when it is absent.
pub(super) fn check_object(name: Option<&str>, what: &str, path: &FieldPath, findings: &mut Findings) {
    match name.filter(|name| !name.is_empty()) {
        Some(name) => names::subdomain(name, path, findings),
        None => findings.add(path, ProblemCode::Required, format!("required: which {what}?")),
    }
}

fn check_image(image: &ContainerDisk, path: &FieldPath, findings: &mut Findings) {
    let blank = |c: char| c.is_whitespace() || c.is_control();
    if image.image.is_empty() {
        findings.add(&path.field("image"), ProblemCode::Required, "required: which image holds the disk?");
    } else if image.image.contains(blank) || image.image.starts_with("file:") {
        let message = "is no name of an image in a registry, such as quay.io/containerdisks/debian:13";
        findings.add(&path.field("image"), ProblemCode::Invalid, message);
    }
    // KubeVirt: an absolute path without relative elements, and not the root.
    if let Some(inner) = image.path.as_deref().filter(|inner| !inner.is_empty())
        && (!inner.starts_with('/') || !is_plain(inner))
    {
        let message = "must be the absolute path of a file inside the image, without ..";
        findings.add(&path.field("path"), ProblemCode::Invalid, message);
    }
    if let Some(policy) = image.image_pull_policy.as_deref().filter(|policy| !policy.is_empty())
        && !PULL_POLICIES.contains(&policy)
    {
        let message = format!("must be one of {}", PULL_POLICIES.join(", "));
        findings.add(&path.field("imagePullPolicy"), ProblemCode::UnknownValue, message);
    }
    if let Some(secret) = image.image_pull_secret.as_deref().filter(|secret| !secret.is_empty()) {
        names::subdomain(secret, &path.field("imagePullSecret"), findings);
    }
}

/// Whether a path has nothing but names in it.
fn is_plain(path: &str) -> bool {
    let plain = |c: Component<'_>| matches!(c, Component::Normal(_) | Component::RootDir);
    inside(path).is_some() && !path.contains("/./") && Path::new(path).components().all(plain)
}

fn check_label(label: Option<&str>, path: &FieldPath, findings: &mut Findings) {
    let Some(label) = label.filter(|label| !label.is_empty()) else { return };
    let is_good = label.bytes().all(|byte| byte.is_ascii_alphanumeric() || b"_-".contains(&byte));
    if label.len() > LONGEST_LABEL || !is_good {
        let message = format!(
            "must be at most {LONGEST_LABEL} letters, digits, underscores and hyphens: the disk is FAT"
        );
        findings.add(&path.field("volumeLabel"), ProblemCode::Invalid, message);
    }
}

fn check_downward(volume: &DownwardApi, path: &FieldPath, findings: &mut Findings) {
    check_label(volume.volume_label.as_deref(), path, findings);
    let (list, mut seen) = (path.field("fields"), BTreeSet::new());
    for (index, file) in volume.fields.iter().enumerate() {
        let path = list.index(index);
        // Kubernetes: relative, and no part of it begins with two dots.
        let parts: Vec<&str> = file.path.split('/').collect();
        if parts.iter().any(|part| part.is_empty() || *part == "." || part.starts_with("..")) {
            let message = "must be a relative path of names that do not begin with ..";
            findings.add(&path.field("path"), ProblemCode::Invalid, message);
        } else if !seen.insert(file.path.to_lowercase()) {
            let message =
                "another file has this path, and FAT knows no upper and lower case: give each its own";
            findings.add(&path.field("path"), ProblemCode::Conflict, message);
        }
        let sources =
            [("fieldRef", file.field_ref.is_some()), ("resourceFieldRef", file.resource_field_ref.is_some())];
        super::exactly_one(&sources, "use fieldRef", &path, findings);
    }
}

/// A claim that is written belongs to one volume.
pub(super) fn check_claims(spec: &InstanceSpec, volumes: &FieldPath, findings: &mut Findings) {
    if !findings.in_cluster() {
        return;
    }
    let mut owners: BTreeMap<&str, usize> = BTreeMap::new();
    for (index, volume) in spec.volumes.iter().enumerate() {
        let Some(claim) = volume.claim().filter(|claim| !claim.is_empty()) else { continue };
        if let Some(first) = owners.insert(claim, index) {
            let message = format!("{} has this claim too: a claim is one disk", volumes.index(first));
            let field = if volume.data_volume.is_some() {
                "dataVolume.name"
            } else {
                "persistentVolumeClaim.claimName"
            };
            findings.add(&volumes.index(index).field(field), ProblemCode::Conflict, message);
        }
    }
}
