//! The file that says how the guest of a pod is, for whoever publishes it.
//!
//! Changed by the main thread before the guest's session, and by the steward's during it. Whoever reads it sees one state, whole.

use std::path::PathBuf;
use std::sync::{Arc, Mutex, PoisonError};

use jiff::Timestamp;
use serde::{Deserialize, Serialize};

use crate::certificate::{Verdict, replace};
use crate::end::End;
use crate::metrics::GuestPhase;
use pinion_endpoint::chain;

/// How the guest of a pod is.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct LauncherStatus {
    /// Always `pinion.dev/v1alpha1`.
    pub api_version: String,
    /// Always `LauncherStatus`.
    pub kind: String,
    /// Phase of its life, with KubeVirt's names.
    pub phase: String,
    /// A stable code of how it ended, or why it never began.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub reason: Option<String>,
    /// The same for people.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub message: Option<String>,
    /// Its process, as the node counts it.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub pid: Option<i32>,
    /// When it ran its first instruction.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub started_at: Option<Timestamp>,
    /// How far its CPUs are its own.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub isolation: Option<String>,
    /// What was read back last.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub certificate: Option<CertificateStatus>,
}

/// What a certificate says, in short.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct CertificateStatus {
    /// The worst verdict.
    pub verdict: Verdict,
    /// What does not hold.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub mismatches: Vec<String>,
}

impl Default for LauncherStatus {
    fn default() -> Self {
        Self {
            api_version: "pinion.dev/v1alpha1".to_owned(),
            kind: "LauncherStatus".to_owned(),
            phase: GuestPhase::Scheduled.as_str().to_owned(),
            reason: None,
            message: None,
            pid: None,
            started_at: None,
            isolation: None,
            certificate: None,
        }
    }
}

impl LauncherStatus {
    pub(super) fn run(&mut self) {
        self.phase = GuestPhase::Running.as_str().to_owned();
        self.started_at = Some(Timestamp::now());
    }

    pub(super) fn fail(&mut self, reason: &str, message: &str) {
        self.phase = GuestPhase::Failed.as_str().to_owned();
        (self.reason, self.message) = (Some(reason.to_owned()), Some(message.to_owned()));
    }

    pub(super) fn end(&mut self, end: &End) {
        let reason = match end {
            End::PoweredOff => "PoweredOff",
            End::Forced => "Forced",
            End::Crashed(_) => "Crashed",
            End::HostFailed(_) => "HostFailed",
            End::NotVerified(_) => "NotVerified",
            End::NotArmed(_) => "NotArmed",
        };
        self.fail(reason, &end.sentence());
        if *end == End::PoweredOff {
            self.phase = GuestPhase::Succeeded.as_str().to_owned();
        }
    }
}

/// The file, and what it says.
#[derive(Clone, Debug)]
pub(super) struct StatusFile {
    path: Option<PathBuf>,
    says: Arc<Mutex<LauncherStatus>>,
}

impl StatusFile {
    pub(super) fn new(path: Option<PathBuf>) -> Self {
        Self { path, says: Arc::default() }
    }

    /// Writes what there is.
    pub(super) fn write(&mut self) {
        self.change(|_| ());
    }

    /// Changes it, and writes it. The guest does not depend on it: what cannot be written is told.
    pub(super) fn change(&mut self, change: impl FnOnce(&mut LauncherStatus)) {
        let mut says = self.says.lock().unwrap_or_else(PoisonError::into_inner);
        change(&mut says);
        let Some(path) = &self.path else { return };
        if let Err(e) = replace(path, &*says) {
            eprintln!("pinion-launcher: warning: {}: {}", path.display(), chain(&e));
        }
    }
}
