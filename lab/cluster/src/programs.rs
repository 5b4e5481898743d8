//! The programs of Kubernetes and containerd, built from their Go modules, or ready ones.
//!
//! Called by clusters, and by `cargo xtask` beforehand. In the cache, by what they are built from.

use std::path::{Path, PathBuf};
use std::process::Command;

use pinion_lab::{Cache, LabError, key};

use crate::ClusterError;

/// A folder with ready programs; nothing is built then.
const READY: &str = "PINION_CLUSTER_PROGRAMS";
const KIND: &str = "cluster-programs";
const BUILD: &str = include_str!("build.sh");
/// What the cache's entry is made from.
const MODULES: [&str; 4] = [
    include_str!("../../kubernetes/go.mod"),
    include_str!("../../kubernetes/go.sum"),
    include_str!("../../containerd/go.mod"),
    include_str!("../../containerd/go.sum"),
];
/// What Go calls a program that a module has in a folder `v3`: by the folder above it, here `server`.
const NAMES: [&str; 10] = [
    "etcd",
    "kube-apiserver",
    "kube-controller-manager",
    "kube-scheduler",
    "kubectl",
    "kubelet",
    "kube-proxy",
    "containerd",
    "containerd-shim-runc-v2",
    "ctr",
];

/// The programs.
#[derive(Clone, Debug)]
pub struct ClusterPrograms {
    folder: PathBuf,
}

impl ClusterPrograms {
    /// Those that the user has, else from the cache, else built: six minutes of two CPUs, Go and the network.
    ///
    /// # Errors
    /// When a program is missing from the user's, or they cannot be built here.
    pub fn of_user(cache: &Cache) -> Result<Self, ClusterError> {
        if let Some(folder) = given() {
            return Self::ready(folder);
        }
        let folder = cache.entry(KIND, &Self::key(), build)?;
        Ok(Self { folder })
    }

    /// Whether nothing has to be built.
    #[must_use]
    pub fn are_ready(cache: &Cache) -> bool {
        given().is_some() || cache.has(KIND, &Self::key())
    }

    /// A name for what they are built from.
    pub(crate) fn key() -> String {
        let mut parts = MODULES.to_vec();
        parts.push(BUILD);
        key(&parts)
    }

    /// Their folder.
    pub(crate) fn folder(&self) -> &Path {
        &self.folder
    }

    /// A program by its name.
    #[must_use]
    pub fn path(&self, name: &str) -> PathBuf {
        self.folder.join(name)
    }

    fn ready(folder: PathBuf) -> Result<Self, ClusterError> {
        match NAMES.into_iter().find(|name| !folder.join(name).is_file()) {
            Some(name) => Err(ClusterError::Missing { folder, name, all: NAMES.join(", ") }),
            None => Ok(Self { folder }),
        }
    }
}

/// The user's folder of ready programs.
fn given() -> Option<PathBuf> {
    std::env::var_os(READY).filter(|folder| !folder.is_empty()).map(PathBuf::from)
}

fn build(folder: &Path) -> Result<(), LabError> {
    let modules = Path::new(env!("CARGO_MANIFEST_DIR")).join("..");
    let shown = "go build tool".to_owned();
    let failed = |reason: String| LabError::Tool { command: shown.clone(), reason };
    let mut build = Command::new("sh");
    build.args(["-c", BUILD, "build"]).arg(&modules).arg(folder);
    let done = build.output().map_err(|e| failed(e.to_string()))?;
    if done.status.success() {
        return Ok(());
    }
    Err(failed(String::from_utf8_lossy(&done.stderr).trim().to_owned()))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_folder_that_lacks_a_program_is_refused_by_its_name() {
        let folder = tempfile::tempdir().unwrap();
        for name in NAMES.iter().filter(|name| **name != "ctr") {
            std::fs::write(folder.path().join(name), "").unwrap();
        }
        let error = ClusterPrograms::ready(folder.path().to_owned()).unwrap_err().to_string();
        assert!(error.contains("has no program `ctr`") && error.contains("kube-apiserver"), "{error}");
        std::fs::write(folder.path().join("ctr"), "").unwrap();
        assert!(ClusterPrograms::ready(folder.path().to_owned()).is_ok());
    }
}
