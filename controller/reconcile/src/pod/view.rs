//! What a pod says of itself, as far as its guest is concerned.

use serde_json::Value;

use crate::condition::text;
use crate::object::Meta;
use crate::pod::CONTAINER;

/// Reasons by which a kubelet turns a pod away that was bound to it.
///
/// Source: Kubernetes 1.36, `pkg/kubelet/lifecycle`, `pkg/kubelet/cm`.
const TURNED_AWAY: [&str; 12] = [
    "UnexpectedAdmissionError",
    "TopologyAffinityError",
    "SMTAlignmentError",
    "OutOfcpu",
    "OutOfmemory",
    "OutOfpods",
    "OutOfephemeral-storage",
    "NodeAffinity",
    "NodeShutdown",
    "AdmissionFailed",
    "InvalidNodeInfo",
    "PodFeatureUnsupported",
];
/// What is short, of a node's extended resources and huge pages, begins a reason as well.
const SHORT_OF: &str = "OutOf";

/// A pod.
#[derive(Clone, Debug, PartialEq)]
pub struct PodView {
    /// Its metadata.
    pub meta: Meta,
    /// Where it is in its life.
    pub phase: PodPhase,
    /// Its node, once it is bound.
    pub node: Option<String>,
    /// Its addresses.
    pub addresses: Vec<String>,
    /// Its class of service.
    pub qos: String,
    /// Whether all of it is ready.
    pub is_ready: bool,
    /// What stands in its way.
    pub trouble: Option<PodTrouble>,
    /// Exit code of the launcher, and what it said last.
    pub exit: Option<(i64, String)>,
}

/// Where a pod is in its life.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum PodPhase {
    /// Not all of its containers have started.
    Pending,
    /// It runs.
    Running,
    /// It ended well.
    Succeeded,
    /// It ended otherwise.
    Failed,
}

/// What stands in a pod's way.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum PodTrouble {
    /// The scheduler finds no room for it on its node.
    Unschedulable(String),
    /// The kubelet turned it away before anything of it had started: reason and words.
    TurnedAway(String, String),
    /// An image cannot be had: reason and words.
    Image(String, String),
    /// A container cannot be made: reason and words.
    Container(String, String),
}

impl PodView {
    /// Of a pod.
    #[must_use]
    pub fn of(pod: &Value) -> Self {
        let status = pod.get("status").unwrap_or(&Value::Null);
        let spec = pod.get("spec").unwrap_or(&Value::Null);
        let some = |text: &str| (!text.is_empty()).then(|| text.to_owned());
        let addresses = list(status, "podIPs").iter().filter_map(|ip| some(text(ip, "ip")));
        let ready = list(status, "conditions").iter().find(|c| text(c, "type") == "Ready");
        Self {
            meta: Meta::of(pod),
            phase: match text(status, "phase") {
                "Running" => PodPhase::Running,
                "Succeeded" => PodPhase::Succeeded,
                "Failed" => PodPhase::Failed,
                _ => PodPhase::Pending,
            },
            node: some(text(spec, "nodeName")),
            addresses: addresses.collect(),
            qos: text(status, "qosClass").to_owned(),
            is_ready: ready.is_some_and(|ready| text(ready, "status") == "True"),
            trouble: trouble(status),
            exit: exit(status),
        }
    }

    /// Whether nothing of it runs any more.
    #[must_use]
    pub const fn is_over(&self) -> bool {
        matches!(self.phase, PodPhase::Succeeded | PodPhase::Failed)
    }
}

fn trouble(status: &Value) -> Option<PodTrouble> {
    let (reason, message) = (text(status, "reason"), text(status, "message"));
    let began = list(status, "containerStatuses")
        .iter()
        .any(|c| c.pointer("/state/running").is_some() || c.pointer("/state/terminated").is_some());
    let turned_away = TURNED_AWAY.contains(&reason) || reason.starts_with(SHORT_OF);
    if text(status, "phase") == "Failed" && turned_away && !began {
        return Some(PodTrouble::TurnedAway(reason.to_owned(), message.to_owned()));
    }
    let scheduled = list(status, "conditions").iter().find(|c| text(c, "type") == "PodScheduled");
    if let Some(no) =
        scheduled.filter(|c| text(c, "status") == "False" && text(c, "reason") == "Unschedulable")
    {
        return Some(PodTrouble::Unschedulable(text(no, "message").to_owned()));
    }
    let containers = list(status, "initContainerStatuses").iter().chain(list(status, "containerStatuses"));
    containers.filter_map(|container| container.pointer("/state/waiting")).find_map(waiting)
}

fn waiting(waiting: &Value) -> Option<PodTrouble> {
    let (reason, message) = (text(waiting, "reason").to_owned(), text(waiting, "message").to_owned());
    match reason.as_str() {
        "ErrImagePull"
        | "ImagePullBackOff"
        | "ErrImageNeverPull"
        | "InvalidImageName"
        | "RegistryUnavailable" => Some(PodTrouble::Image(reason, message)),
        "CreateContainerConfigError" | "CreateContainerError" | "RunContainerError" => {
            Some(PodTrouble::Container(reason, message))
        }
        _ => None,
    }
}

fn exit(status: &Value) -> Option<(i64, String)> {
    let container = list(status, "containerStatuses").iter().find(|c| text(c, "name") == CONTAINER)?;
    let ended = container.pointer("/state/terminated")?;
    let last = text(ended, "message").trim();
    let message = if last.is_empty() { text(ended, "reason") } else { last };
    Some((ended.get("exitCode")?.as_i64()?, message.to_owned()))
}

fn list<'a>(object: &'a Value, name: &str) -> &'a [Value] {
    object.get(name).and_then(Value::as_array).map(Vec::as_slice).unwrap_or_default()
}
