//! What a launcher is told: the guest, its placement, and where to report.

use std::fs::File;
use std::io::Read;
use std::net::SocketAddr;
use std::path::{Path, PathBuf};

use pinion_api::{BackendKind, PodVolumes, VirtualMachineInstance};
use pinion_planner::Placement;
use serde::{Deserialize, Serialize};

/// Where launchers for libvirt have their folders.
const LIBVIRT_FOLDERS: &str = "/run/pinion/libvirt";
/// Longest spec that is read, bytes.
const LONGEST: u64 = 32 << 20;

/// What a launcher is told. Read from the descriptor that it was started with.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct LaunchSpec {
    /// Always `pinion.dev/v1alpha1`.
    pub api_version: String,
    /// Always `LaunchSpec`.
    pub kind: String,
    /// What runs it.
    #[serde(default)]
    pub backend: BackendKind,
    /// The guest, with defaults filled in.
    pub instance: VirtualMachineInstance,
    /// Where everything of it goes.
    pub placement: Placement,
    /// Where its volumes are in the pod that it is in; absent on one host.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub pod_volumes: Option<PodVolumes>,
    /// What it is part of in a cluster, as metrics name it; absent on one host.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub cluster: Option<ClusterPlace>,
    /// Where metrics are served.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub metrics: Option<SocketAddr>,
    /// Where the certificate is written and kept up to date.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub certificate: Option<PathBuf>,
    /// Folder of the guest's socket, which has this process's number; none without.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub sockets: Option<PathBuf>,
    /// Whether whoever gave it CPUs that it shares with others may take some of them away: the kubelet does, for containers
    /// with CPUs of their own.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub shared_pool: bool,
    /// Descriptor of a pipe that a byte is waited for from between arming and verifying: whoever keeps the host makes
    /// the guest's CPUs its own meanwhile.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub wait_fd: Option<i32>,
    /// Who types on the serial console.
    pub console: ConsoleMode,
    /// How the guest is checked while it runs.
    pub audit: AuditPolicy,
}

/// The node and the pod that a guest is in.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct ClusterPlace {
    /// Name of the node.
    pub node: String,
    /// Name of the pod.
    pub pod: String,
}

/// Folder of the files that libvirt's launcher with that number makes for a guest on one host: sockets, images. The launcher
/// removes it; whoever sees a launcher's death may, too.
#[must_use]
pub fn libvirt_folder(pid: u32) -> PathBuf {
    Path::new(LIBVIRT_FOLDERS).join(pid.to_string())
}

/// Who types on the serial console. Its output goes to standard output either way.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub enum ConsoleMode {
    /// Standard input.
    Attached,
    /// Nobody.
    Log,
}

/// How a guest is checked while it runs.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct AuditPolicy {
    /// Seconds between checks; at least 1.
    pub interval_seconds: u64,
    /// Whether drifted threads are put back.
    pub repair: bool,
}

/// Why a spec was not read.
#[derive(Debug, thiserror::Error)]
pub enum SpecError {
    /// The descriptor cannot be read.
    #[error("Cannot read the launch spec from descriptor {fd}: `pinion run` starts this program with one")]
    Read {
        /// The descriptor.
        fd: i32,
        /// From the operating system.
        source: std::io::Error,
    },
    /// It is no spec.
    #[error("The launch spec is damaged: are pinion and pinion-launcher of one version?")]
    Damaged(#[source] serde_json::Error),
}

impl LaunchSpec {
    /// Always `pinion.dev/v1alpha1`.
    pub const API_VERSION: &str = "pinion.dev/v1alpha1";
    /// Always `LaunchSpec`.
    pub const KIND: &str = "LaunchSpec";

    /// Reads it from an inherited descriptor.
    ///
    /// # Errors
    /// [`SpecError`].
    pub fn read(fd: i32) -> Result<Self, SpecError> {
        let failed = |source| SpecError::Read { fd, source };
        let mut text = Vec::new();
        let file = File::open(format!("/proc/self/fd/{fd}")).map_err(failed)?;
        file.take(LONGEST).read_to_end(&mut text).map_err(failed)?;
        serde_json::from_slice(&text).map_err(SpecError::Damaged)
    }
}

#[cfg(test)]
mod tests {
    use std::io::Write;
    use std::os::fd::AsRawFd;

    use super::*;

    fn read(text: &str) -> Result<LaunchSpec, SpecError> {
        let mut file = tempfile::tempfile().unwrap();
        file.write_all(text.as_bytes()).unwrap();
        LaunchSpec::read(file.as_raw_fd())
    }

    fn spec() -> serde_json::Value {
        serde_json::json!({
            "apiVersion": "pinion.dev/v1alpha1", "kind": "LaunchSpec",
            "instance": {
                "apiVersion": "kubevirt.io/v1", "kind": "VirtualMachineInstance",
                "metadata": {"name": "a"}, "spec": {"domain": {"devices": {}}}
            },
            "placement": {
                "name": "default/a", "generation": 1, "vcpus": [], "emulator": {"cpus": [0]},
                "ioThreads": [], "cells": [], "devices": []
            },
            "metrics": "127.0.0.1:9100", "certificate": "/tmp/c.json", "console": "log",
            "audit": {"intervalSeconds": 5, "repair": true}
        })
    }

    #[test]
    fn a_spec_is_read_from_the_start_and_written_the_same() {
        let read = read(&spec().to_string()).unwrap();
        assert_eq!(read.console, ConsoleMode::Log);
        let again = LaunchSpec::deserialize(serde_json::to_value(&read).unwrap()).unwrap();
        assert_eq!(again, read);
    }

    #[test]
    fn a_field_of_another_version_garbage_and_nothing_are_refused() {
        let mut newer = spec();
        newer["colour"] = "red".into();
        for text in [newer.to_string(), "{".into(), String::new(), "\0\0".into()] {
            assert!(matches!(read(&text), Err(SpecError::Damaged(_))), "{text}");
        }
        assert!(matches!(LaunchSpec::read(-1), Err(SpecError::Read { fd: -1, .. })));
    }
}
