//! Which pod a process is in, and whether it is the one that it says it is.

use std::fs;
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};

use pinion_machine::CpuSet;
use serde::{Deserialize, Serialize};

use super::given::PodSources;
use super::group::{PodGroup, parse, path_of};

/// Longest name of a pod or namespace.
const LONGEST_NAME: usize = 253;

/// A pod, as a process says that it is in it.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct PodName {
    /// Its namespace.
    pub namespace: String,
    /// Its name.
    pub name: String,
}

/// The pod that a guest's process is in, and its container's control group.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct PodPlace {
    /// Its namespace.
    pub namespace: String,
    /// Its name.
    pub name: String,
    /// Its unique id.
    pub uid: String,
    /// The pod's control group, from the root of control groups.
    pub pod_group: PathBuf,
    /// The container's, in which the process is.
    pub group: PathBuf,
    /// CPUs that its threads run on which have none to themselves, besides those that the kubelet gave.
    #[serde(default, skip_serializing_if = "CpuSet::is_empty")]
    pub housekeeping: CpuSet,
}

/// Why a process is not taken for a pod's.
#[derive(Debug, thiserror::Error)]
pub(crate) enum AskerError {
    #[error(
        "process {pid} is in no container of a pod: only a launcher that the kubelet has started asks for this"
    )]
    NotInPod { pid: i32 },
    #[error("process {pid} cannot be looked at: {why}")]
    Unknown { pid: i32, why: String },
    #[error("{text:?} is no name of a pod and its namespace")]
    Name { text: String },
    #[error(
        "process {pid} is in the pod with the unique id {uid}, and {folder:?} does not exist: it is not \
         {namespace}/{name}, or the agent does not see the kubelet's folder of logs"
    )]
    AnotherPod { pid: i32, uid: String, namespace: String, name: String, folder: PathBuf },
    #[error("the control group {path:?} of process {pid} was not made by the kubelet")]
    Forged { pid: i32, path: PathBuf },
}

impl AskerError {
    /// A stable code.
    pub(crate) const fn reason(&self) -> &'static str {
        match self {
            Self::NotInPod { .. } => "NotInPod",
            Self::Unknown { .. } => "ProcessUnknown",
            Self::Name { .. } => "Malformed",
            Self::AnotherPod { .. } => "AnotherPod",
            Self::Forged { .. } => "NotInPod",
        }
    }
}

/// Whether a process is in a container of a pod. One that cannot be looked at is not taken for one.
pub(crate) fn is_in_pod(proc: &Path, pid: i32) -> bool {
    group(proc, pid).is_ok_and(|group| group.is_some())
}

fn group(proc: &Path, pid: i32) -> std::io::Result<Option<PodGroup>> {
    let text = fs::read_to_string(proc.join(pid.to_string()).join("cgroup"))?;
    Ok(path_of(&text).and_then(parse))
}

/// Finds the pod of a process, and holds it against what it says.
///
/// 1. The process' control group is one that the kubelet names: it has the pod's unique id in it.
/// 2. It was made by whoever owns the root of control groups: a user may have groups of his own, with any name.
/// 3. The kubelet has a folder of logs for a pod with that namespace, name and unique id.
pub(crate) fn identify(sources: &PodSources, pid: i32, said: &PodName) -> Result<PodPlace, AskerError> {
    let unknown = |e: std::io::Error| AskerError::Unknown { pid, why: e.to_string() };
    for text in [&said.namespace, &said.name] {
        let allowed = |c: char| c.is_ascii_lowercase() || c.is_ascii_digit() || c == '-' || c == '.';
        if text.is_empty() || text.len() > LONGEST_NAME || !text.chars().all(allowed) {
            return Err(AskerError::Name { text: text.clone() });
        }
    }
    let PodGroup { uid, pod, group } =
        group(&sources.proc, pid).map_err(unknown)?.ok_or(AskerError::NotInPod { pid })?;
    let owner = |path: &Path| fs::metadata(path).map(|m| m.uid());
    let path = sources.cgroups.join(&pod);
    if owner(&path).map_err(unknown)? != owner(&sources.cgroups).map_err(unknown)? {
        return Err(AskerError::Forged { pid, path });
    }
    let PodName { namespace, name } = said.clone();
    let folder = sources.logs.join(format!("{namespace}_{name}_{uid}"));
    if !fs::symlink_metadata(&folder).is_ok_and(|m| m.is_dir()) {
        return Err(AskerError::AnotherPod { pid, uid, namespace, name, folder });
    }
    Ok(PodPlace { namespace, name, uid, pod_group: pod, group, housekeeping: CpuSet::new() })
}
