//! Where an instance is in its life, from what there is of it.

use jiff::Timestamp;
use pinion_nodes::GuestPhase;

use super::{SCHEDULED_WITHIN, Seen};
use crate::pod::{PodPhase, PodTrouble, PodView};

/// Where an instance is in its life. KubeVirt's words.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Phase {
    /// It has no pod.
    Pending,
    /// It has a pod that does not run yet.
    Scheduling,
    /// Its pod runs, and the guest is being armed.
    Scheduled,
    /// The guest runs.
    Running,
    /// The guest has powered itself off.
    Succeeded,
    /// The guest has ended otherwise, or could not be started.
    Failed,
    /// What was written is no word of ours.
    Unknown,
}

impl Phase {
    /// All that are written, in their order.
    pub const ALL: [Self; 6] =
        [Self::Pending, Self::Scheduling, Self::Scheduled, Self::Running, Self::Succeeded, Self::Failed];

    /// As objects have it.
    #[must_use]
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Pending => "Pending",
            Self::Scheduling => "Scheduling",
            Self::Scheduled => "Scheduled",
            Self::Running => "Running",
            Self::Succeeded => "Succeeded",
            Self::Failed => "Failed",
            Self::Unknown => "Unknown",
        }
    }

    /// The phase of that name.
    #[must_use]
    pub fn of(name: &str) -> Self {
        Self::ALL.into_iter().find(|phase| phase.as_str() == name).unwrap_or(match name {
            "" => Self::Pending,
            _ => Self::Unknown,
        })
    }

    /// Whether nothing follows.
    #[must_use]
    pub const fn is_final(self) -> bool {
        matches!(self, Self::Succeeded | Self::Failed)
    }
}

/// What was found.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Found {
    pub(super) phase: Phase,
    /// Why, in a word and in words; where there is something to say.
    pub(super) reason: Option<(&'static str, String)>,
    /// Its pod is to be replaced.
    pub(super) replace: Option<Replace>,
}

/// A pod is to be replaced: nothing of the guest ran in it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Replace {
    pub(super) why: String,
    pub(super) not_before: Option<Timestamp>,
}

impl Found {
    const fn at(phase: Phase) -> Self {
        Self { phase, reason: None, replace: None }
    }

    fn because(phase: Phase, reason: &'static str, message: impl Into<String>) -> Self {
        Self { phase, reason: Some((reason, message.into())), replace: None }
    }
}

/// Where it is. What has ended stays so, whatever else is there.
pub(super) fn found(seen: Seen<'_>, before: Phase) -> Found {
    if before.is_final() {
        return Found::at(before);
    }
    if let Err(problems) = &seen.instance.spec {
        return Found::because(before, "InvalidSpec", format!("it cannot be acted on: {problems}"));
    }
    let Some(pod) = seen.pod else {
        return without_pod(seen, before);
    };
    if let Some(trouble) = &pod.trouble {
        return in_trouble(pod, trouble, before);
    }
    match pod.phase {
        PodPhase::Succeeded | PodPhase::Failed => ended(seen, pod),
        PodPhase::Pending => Found::at(Phase::Scheduling),
        PodPhase::Running => running(seen, before),
    }
}

fn without_pod(seen: Seen<'_>, before: Phase) -> Found {
    if matches!(before, Phase::Scheduled | Phase::Running) {
        let message = "its pod is gone: it was deleted, or its node was";
        return Found::because(Phase::Failed, "PodGone", message);
    }
    let phase = if seen.booked.is_some() { Phase::Scheduling } else { Phase::Pending };
    if let Some(claim) = seen.missing_claim {
        return Found::because(
            phase,
            "FailedPvcNotFound",
            format!("there is no persistent volume claim {claim:?}"),
        );
    }
    match seen.nowhere {
        Some(why) if seen.booked.is_none() => Found::because(phase, "Unschedulable", why),
        _ => Found::at(phase),
    }
}

fn in_trouble(pod: &PodView, trouble: &PodTrouble, before: Phase) -> Found {
    let replace = |why: String, not_before| Some(Replace { why, not_before });
    match trouble {
        PodTrouble::TurnedAway(reason, message) => Found {
            phase: Phase::Scheduling,
            reason: Some(("TurnedAway", format!("the kubelet turned its pod away ({reason}): {message}"))),
            replace: replace(format!("the kubelet turned it away ({reason}): {message}"), None),
        },
        PodTrouble::Unschedulable(message) => Found {
            phase: Phase::Scheduling,
            reason: Some((
                "Unschedulable",
                format!("the scheduler has no room for its pod on the node: {message}"),
            )),
            replace: replace(
                format!("the scheduler has no room for it: {message}"),
                pod.meta.created.and_then(|at| at.checked_add(SCHEDULED_WITHIN).ok()),
            ),
        },
        PodTrouble::Image(reason, message) => {
            let reason = if reason == "ImagePullBackOff" { "ImagePullBackOff" } else { "ErrImagePull" };
            Found::because(Phase::Scheduling, reason, message.clone())
        }
        PodTrouble::Container(reason, message) => {
            let phase = if before == Phase::Running { before } else { Phase::Scheduling };
            Found::because(phase, "FailedCreate", format!("{reason}: {message}"))
        }
    }
}

/// The launcher's exit code says how its guest ended; 0 is that it powered itself off.
fn ended(seen: Seen<'_>, pod: &PodView) -> Found {
    let told = seen.report.and_then(|report| report.message.clone());
    match (&pod.exit, pod.phase) {
        (Some((0, _)), _) | (None, PodPhase::Succeeded) => Found::at(Phase::Succeeded),
        (Some((code, message)), _) => {
            let message = told.unwrap_or_else(|| message.clone());
            Found::because(Phase::Failed, end_reason(*code), message)
        }
        (None, _) => Found::because(
            Phase::Failed,
            "PodFailed",
            told.unwrap_or_else(|| "its pod has failed".to_owned()),
        ),
    }
}

/// Source: `pinion-launcher`'s exit codes, `docs/running.md`.
const fn end_reason(code: i64) -> &'static str {
    match code {
        1 => "NotArmed",
        10 => "StoppedByForce",
        11 => "GuestCrashed",
        12 => "HostFailed",
        13 => "NotVerified",
        137 => "Killed",
        _ => "LauncherFailed",
    }
}

/// A guest that runs does so until its pod says otherwise: an agent that has just been started anew may not know of it yet.
fn running(seen: Seen<'_>, before: Phase) -> Found {
    match seen.report.map(|report| report.phase) {
        Some(GuestPhase::Running | GuestPhase::Paused) => Found::at(Phase::Running),
        // Its pod says how it ended, in a moment.
        Some(GuestPhase::Succeeded | GuestPhase::Failed) => Found::at(Phase::Running),
        Some(GuestPhase::Starting) | None if before == Phase::Running => Found::at(Phase::Running),
        Some(GuestPhase::Starting) | None => Found::at(Phase::Scheduled),
    }
}
