//! A launcher in a Kubernetes pod: nobody started it with a plan, so it asks the node's agent for one.
//!
//! Called by the program on its main thread. It has no capability and no right on the host: CPUs, limits and control groups are
//! changed by the agent, from outside. Standard output is the guest's console, and everything else goes to standard error.
//! It must never end because the agent is away.

mod agent;
mod first;
mod groups;
mod network;
mod signals;
mod status;
mod steward;

use std::fs::File;
use std::io::{self, Read};
use std::net::SocketAddr;
use std::os::fd::{AsRawFd, OwnedFd};
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::thread;

use clap::Args;
use nix::fcntl::OFlag;
use nix::unistd::{getppid, pipe2};
use pinion_api::{BackendKind, Document, Place, PodVolumes, Problems, VirtualMachineInstance};
use pinion_endpoint::{AskError, Refusal, chain};
use serde_json::Value;

use crate::backend::Backend;
use crate::end::End;
use crate::event::Events;
use crate::guest::numbers;
use crate::session::{Session, SessionError};
use crate::spec::{AuditPolicy, ClusterPlace, ConsoleMode, LaunchSpec};

pub use agent::{
    AgentChanges, AgentNotice, HostRequest, Launched, LinkAddressing, LinkRoute, NetworkBinding, OpenPort,
    PodLink, PodName,
};
use agent::{PodAgent, Unlaunched};
pub(crate) use first::{attend, is_first};
use groups::KeptGroups;
use status::StatusFile;
pub use status::{CertificateStatus, LauncherStatus};
use steward::Steward;

/// Longest instance that is read, bytes: more does not fit into an object of Kubernetes.
const LONGEST: u64 = 1 << 20;
/// Exit code where the input is wrong.
const INVALID: u8 = 2;
/// Exit code where the node has no room.
const REFUSED: u8 = 3;

/// What the launcher of a pod is told.
#[derive(Clone, Debug, Args)]
pub struct PodOptions {
    /// The VirtualMachineInstance, as JSON: a file of the downward API
    #[arg(long, value_name = "FILE")]
    instance: PathBuf,
    /// Socket of the node's agent; its place by default is that of the resource pinion.dev/agent
    #[arg(long, value_name = "SOCKET", default_value = "/run/pinion/agent/agent.sock")]
    agent: PathBuf,
    /// Namespace of the pod
    #[arg(long, value_name = "NAME", env = "POD_NAMESPACE")]
    namespace: String,
    /// The pod
    #[arg(long, value_name = "NAME", env = "POD_NAME")]
    pod: String,
    /// The node, as metrics name it
    #[arg(long, value_name = "NAME", env = "NODE_NAME", default_value = "")]
    node: String,
    /// File that says how the guest is, replaced whenever that changes
    #[arg(long, value_name = "FILE")]
    status: Option<PathBuf>,
    /// File of the certificate, kept up to date
    #[arg(long, value_name = "FILE")]
    certificate: Option<PathBuf>,
    /// Address that metrics are served on
    #[arg(long, value_name = "ADDRESS")]
    metrics: Option<SocketAddr>,
    /// Bytes of a claim, by the guest's volume: one with a file system and no image on it gets an image that fits
    #[arg(long = "claim", value_name = "VOLUME=BYTES", value_parser = claim)]
    claims: Vec<(String, u64)>,
    /// Seconds between checks of a running guest
    #[arg(long, value_name = "SECONDS", default_value_t = 5)]
    audit_interval: u64,
}

/// `VOLUME=BYTES`.
fn claim(text: &str) -> Result<(String, u64), String> {
    let (name, bytes) = text.split_once('=').ok_or("must be VOLUME=BYTES")?;
    let bytes = bytes.parse().map_err(|_| format!("{bytes:?} is no number of bytes"))?;
    Ok((name.to_owned(), bytes))
}

/// Why there is no guest.
#[derive(Debug, thiserror::Error)]
enum PodError {
    #[error("Cannot read the instance {path:?}: mount it by the downward API, and name it with --instance")]
    Read { path: PathBuf, source: io::Error },
    #[error("The instance {path:?} is longer than {LONGEST} bytes")]
    Long { path: PathBuf },
    #[error("The instance {path:?} is no JSON")]
    Json { path: PathBuf, source: serde_json::Error },
    #[error("The instance {path:?}: {problems}")]
    Problems { path: PathBuf, problems: Problems },
    #[error("{path:?} has {count} instances: a pod runs one")]
    Count { path: PathBuf, count: usize },
    #[error("The node agent refuses ({}): {}", .0.reason, .0.message)]
    Refused(Refusal),
    #[error("Asked to end before the guest was placed")]
    Ended,
    #[error("interface {interface:?}: Cannot ask for its place in the pod's network")]
    Network { interface: String, source: AskError },
    #[error("interface {interface:?}: the agent gave no tap for it: are it and the launcher of one version?")]
    NoTap { interface: String },
    #[error(transparent)]
    Session(#[from] SessionError),
    #[error("Cannot {action}")]
    Process { action: &'static str, source: io::Error },
}

impl PodError {
    const fn code(&self) -> u8 {
        match self {
            Self::Read { .. } | Self::Long { .. } | Self::Json { .. } | Self::Problems { .. } => INVALID,
            Self::Count { .. } => INVALID,
            Self::Refused(_) => REFUSED,
            Self::Ended => End::Forced.code(),
            Self::Network { .. } | Self::NoTap { .. } | Self::Session(_) | Self::Process { .. } => 1,
        }
    }

    /// A stable code.
    fn reason(&self) -> &str {
        match self {
            Self::Read { .. } | Self::Long { .. } | Self::Json { .. } => "InstanceUnreadable",
            Self::Problems { .. } | Self::Count { .. } => "InvalidInstance",
            Self::Refused(refusal) => &refusal.reason,
            Self::Ended => "Ended",
            Self::Network { .. } | Self::NoTap { .. } => "NetworkFailed",
            Self::Session(_) | Self::Process { .. } => "Failed",
        }
    }
}

/// Runs the guest of a pod, and gives the exit code that says how it ended: 0 where it powered off.
#[must_use]
pub fn run(program: &'static str, kind: BackendKind, options: &PodOptions, backend: &dyn Backend) -> u8 {
    let mut status = StatusFile::new(options.status.clone());
    status.write();
    match attempt((program, kind), options, backend, &status) {
        Ok(end) => end.code(),
        Err(e) => {
            let message = chain(&e);
            eprintln!("{program}: {message}");
            status.change(|s| s.fail(e.reason(), &message));
            e.code()
        }
    }
}

/// 1. Signals are blocked first: the first process of a container hears none that it does not wait for.
/// 2. The instance is read, by the same rules as a file of `pinion run`.
/// 3. The agent plans, reserves and makes the host ready; it is waited for.
/// 4. This thread goes to the emulator's CPUs, and every other is born there; so does the container's first process.
/// 5. The agent makes the guest's interfaces in the pod's network, and the guest's DHCP is answered from here on.
/// 6. The guest lives as any other; the agent is asked for the host's part by a thread of its own.
fn attempt(
    (program, kind): (&'static str, BackendKind),
    options: &PodOptions,
    backend: &dyn Backend,
    status: &StatusFile,
) -> Result<End, PodError> {
    let signals = signals::block()?;
    let (mut instance, value) = read(&options.instance)?;
    let agent = PodAgent::at(program, &options.agent);
    let pod = PodName { namespace: options.namespace.clone(), name: options.pod.clone() };
    let (launched, listener) = agent.launch(&value, &pod, &signals).map_err(|e| match e {
        Unlaunched::Refused(refusal) => PodError::Refused(refusal),
        Unlaunched::Ended => PodError::Ended,
    })?;
    drop(signals);
    vmm_host::set_affinity(0, &numbers(&launched.placement.emulator.cpus)).map_err(SessionError::Place)?;
    if getppid() == first::FIRST {
        // Where it is another user's, it is not a container's.
        let _ = vmm_host::set_affinity(first::FIRST.as_raw(), &numbers(&launched.placement.emulator.cpus));
    }
    status.clone().change(|s| s.pid = Some(launched.pid));
    let taps = network::connect(program, &agent, &mut instance)?;
    let failed =
        |source: nix::errno::Errno| PodError::Process { action: "make a pipe", source: source.into() };
    let (events, to_events): (OwnedFd, OwnedFd) = pipe2(OFlag::O_CLOEXEC).map_err(failed)?;
    let (from_go, go): (OwnedFd, OwnedFd) = pipe2(OFlag::O_CLOEXEC).map_err(failed)?;
    let told = Events::to_descriptor(to_events.as_raw_fd())
        .map_err(|source| PodError::Process { action: "write events", source })?;
    drop(to_events);
    let owner = instance.full_name();
    let (letting_go, name) = (agent.clone(), owner.clone());
    let groups = KeptGroups { agent: agent.clone(), owner: owner.clone() };
    let steward =
        Steward { program, agent, owner, status: status.clone(), events: events.into(), go: go.into() };
    let steward = thread::Builder::new()
        .name("steward".into())
        .stack_size(256 << 10)
        .spawn(move || steward.serve())
        .map_err(|source| PodError::Process { action: "make a thread", source })?;
    let spec = spec((options, kind), instance, launched, from_go.as_raw_fd());
    let session = Session::new(spec, told).with_listener(listener).with_taps(taps);
    let end = session.with_groups(Arc::new(groups)).run(backend);
    // Its pipe has ended with the session.
    let _ = steward.join();
    letting_go.release(&name);
    Ok(end)
}

fn spec(
    (options, kind): (&PodOptions, BackendKind),
    instance: VirtualMachineInstance,
    launched: Launched,
    wait_fd: i32,
) -> LaunchSpec {
    LaunchSpec {
        api_version: LaunchSpec::API_VERSION.to_owned(),
        kind: LaunchSpec::KIND.to_owned(),
        backend: kind,
        shared_pool: !instance.spec.dedicated_cpus(),
        pod_volumes: Some(PodVolumes {
            capacities: options.claims.iter().cloned().collect(),
            ..PodVolumes::default()
        }),
        cluster: Some(ClusterPlace { node: options.node.clone(), pod: options.pod.clone() }),
        instance,
        placement: launched.placement,
        metrics: options.metrics,
        certificate: options.certificate.clone(),
        sockets: None,
        wait_fd: Some(wait_fd),
        console: ConsoleMode::Log,
        audit: AuditPolicy { interval_seconds: options.audit_interval, repair: true },
    }
}

fn read(path: &Path) -> Result<(VirtualMachineInstance, Value), PodError> {
    let failed = |source| PodError::Read { path: path.to_owned(), source };
    let mut text = Vec::new();
    File::open(path).map_err(failed)?.take(LONGEST + 1).read_to_end(&mut text).map_err(failed)?;
    if text.len() as u64 > LONGEST {
        return Err(PodError::Long { path: path.to_owned() });
    }
    let value =
        serde_json::from_slice(&text).map_err(|source| PodError::Json { path: path.to_owned(), source })?;
    let documents = pinion_api::parse_at(Place::Cluster, &text)
        .map_err(|problems| PodError::Problems { path: path.to_owned(), problems })?;
    let count = documents.len();
    let mut instances = documents.into_iter().map(Document::into_instance);
    match (instances.next(), instances.next()) {
        (Some(instance), None) => Ok((instance, value)),
        _ => Err(PodError::Count { path: path.to_owned(), count }),
    }
}

#[cfg(test)]
mod tests;
