//! The node's daemon: one for each host.
//!
//! Owns the agent's sockets and pages, and three threads besides the main one: the desk, which alone changes things;
//! the watcher, which sleeps until the kernel tells something; and that of the pages. The ledger's file stays the one
//! truth: with the daemon or without, whoever changes something takes its lock. It must never be needed by a guest
//! that runs.

mod authority;
mod desk;
mod door;
mod exposition;
mod gather;
mod launch;
mod network;
mod page;
mod protocol;
mod published;
mod status;
mod tend;
mod watch;

use std::collections::{BTreeMap, VecDeque};
use std::io;
use std::net::SocketAddr;
use std::os::unix::net::UnixListener;
use std::path::PathBuf;
use std::rc::Rc;
use std::sync::Arc;
use std::sync::mpsc::{Sender, channel};
use std::thread;
use std::time::Duration;

use nix::sys::signal::{SigSet, Signal};
use nix::unistd::{Group, geteuid};
use pinion_endpoint::{Caller, Endpoint, EndpointError, Refusal, Reply, SocketError};
use serde_json::Value;
use tokio::runtime::Builder;
use tokio::sync::oneshot;
use tokio::task::{JoinHandle, spawn_blocking};

use crate::ledger::{Ledger, LedgerError};
use crate::pod::PodSources;
use crate::settings::Keeper;
use authority::Authority;
use desk::{Command, Desk};
use door::Door;
use gather::Node;
use tend::Tended;
use watch::{Watched, Watcher};

pub use exposition::{METRICS, NodeMetric, merge, metrics_page};
pub use page::{Shown, html};

#[cfg(any(test, feature = "fake"))]
pub mod fake;

pub use protocol::{AgentRequest, Changes, Launched, NetworkBinding, NoticeText, OpenPort};
pub use published::{PublishOutcome, Published};
pub use status::{GuestRow, NodeStatus, Told};

/// How long a request may take: a driver may take its time to let go of a device.
pub const ANSWERED_WITHIN: Duration = Duration::from_secs(60);

/// What the daemon is told.
#[derive(Clone, Debug)]
pub struct AgentOptions {
    /// The ledger.
    pub ledger: Ledger,
    /// Where its pages are served, if anywhere.
    pub pages: Option<SocketAddr>,
    /// The group whose members may run guests, if any.
    pub group: Option<String>,
    /// The profile of this node; it need not exist.
    pub profile: PathBuf,
    /// The last qualification; it need not exist.
    pub qualification: PathBuf,
    /// Where it learns of pods.
    pub pods: PodSources,
    /// How publishing goes, where somebody publishes.
    pub published: Option<Arc<Published>>,
}

/// Why the daemon does not run.
#[derive(Debug, thiserror::Error)]
pub enum AgentError {
    /// The ledger.
    #[error(transparent)]
    Ledger(#[from] LedgerError),
    /// Its socket; another daemon may run.
    #[error("The node agent's socket cannot be made: does another agent run?")]
    Socket(#[from] SocketError),
    /// Its pages.
    #[error(transparent)]
    Pages(#[from] EndpointError),
    /// No such group.
    #[error(
        "There is no group {0:?} on this host: make it (`sudo groupadd {0}`), or name another with --group"
    )]
    Group(String),
    /// The operating system.
    #[error("Cannot {action}")]
    Process {
        /// What was attempted, as a verb phrase.
        action: &'static str,
        /// From the operating system.
        source: io::Error,
    },
}

fn failed(action: &'static str) -> impl Fn(io::Error) -> AgentError {
    move |source| AgentError::Process { action, source }
}

/// Runs the daemon until SIGTERM or SIGINT; `ready` is called once it serves. Guests run on after it.
///
/// 1. The ledger is read: a damaged one ends it here, before anything is changed.
/// 2. The sockets are taken: there is one agent for each ledger.
/// 3. What guests that are gone have left is put back; what those that run need is made so.
/// 4. It serves.
///
/// # Errors
/// [`AgentError`].
pub fn run(options: &AgentOptions, ready: impl FnOnce(Option<SocketAddr>)) -> Result<(), AgentError> {
    let ledger = &options.ledger;
    ledger.read()?;
    ledger.tidy_sockets()?;
    let group = options.group.as_deref().map(group_id).transpose()?;
    let doors = door::open(ledger, group)?;
    let signals = signals().map_err(failed("take over signals"))?;
    let (commands, work) = channel();
    let watched = Watched::new().map_err(failed("watch"))?;
    Watcher::start(watched.clone(), commands.clone()).map_err(failed("watch"))?;
    let node = Node::new(ledger.clone(), options.published.clone());
    let desk = Desk {
        ledger: ledger.clone(),
        keeper: Keeper::new(ledger),
        tended: Tended::new(
            [options.profile.clone(), ledger.cluster_profile()],
            options.qualification.clone(),
        ),
        authority: Authority { uid: geteuid().as_raw(), group },
        pods: options.pods.clone(),
        status: Arc::clone(&node.status),
        watched,
        told: VecDeque::new(),
        events: BTreeMap::new(),
        has_routes: false,
    };
    let (lives, gone) = oneshot::channel::<()>();
    let work = move || {
        desk.work(&work);
        drop(lives);
    };
    let desk = thread::Builder::new().name("desk".into()).spawn(work).map_err(failed("make a thread"))?;
    let pages =
        options.pages.map(|a| Endpoint::open(a, || (), move |path| page::page(&node, path))).transpose()?;
    ready(pages.as_ref().map(Endpoint::address));
    let asked = Asked { desk: commands.clone(), ledger: ledger.clone(), pods: options.pods.clone() };
    let served = serve(doors, signals, gone, asked);
    let _ = commands.send(Command::Quit);
    let worked = desk.join();
    drop(pages);
    door::close(ledger);
    // Nothing can be changed without it: whoever supervises the agent starts it anew.
    worked.map_err(|_| failed("go on: its desk has panicked")(io::ErrorKind::Other.into()))?;
    served.map_err(failed("serve the agent's socket"))
}

fn group_id(name: &str) -> Result<u32, AgentError> {
    let group = Group::from_name(name).map_err(|e| failed("read the host's groups")(e.into()))?;
    group.map(|g| g.gid.as_raw()).ok_or_else(|| AgentError::Group(name.to_owned()))
}

/// Told when a signal asks for the end. Every thread that is made after this leaves signals to the one that waits.
fn signals() -> io::Result<oneshot::Receiver<()>> {
    let mut set = SigSet::empty();
    for signal in [Signal::SIGTERM, Signal::SIGINT] {
        set.add(signal);
    }
    set.thread_block()?;
    let (tell, told) = oneshot::channel();
    let wait = move || {
        // What cannot be waited for ends the agent too.
        let _ = set.wait();
        let _ = tell.send(());
    };
    thread::Builder::new().name("signals".into()).stack_size(64 << 10).spawn(wait)?;
    Ok(told)
}

fn serve(
    doors: [(UnixListener, Door); 2],
    end: oneshot::Receiver<()>,
    gone: oneshot::Receiver<()>,
    asked: Asked,
) -> io::Result<()> {
    let runtime = Builder::new_current_thread().enable_all().build()?;
    tokio::task::LocalSet::new().block_on(&runtime, async move {
        let asked = Rc::new(asked);
        // Each has bounds of its own: whoever uses up those of pods leaves the host's.
        let serving = doors.map(|(listener, door)| {
            let asked = Rc::clone(&asked);
            tokio::task::spawn_local(pinion_endpoint::serve(listener, move |caller| {
                answer(Rc::clone(&asked), door, caller)
            }))
        });
        tokio::select! {
            _ = end => {}
            _ = gone => {}
        }
        serving.iter().for_each(JoinHandle::abort);
        Ok(())
    })
}

/// Who answers, and what is looked at first.
struct Asked {
    desk: Sender<Command>,
    ledger: Ledger,
    pods: PodSources,
}

async fn answer(asked: Rc<Asked>, door: Door, caller: Caller) {
    let request = parse(&caller.request);
    if let Ok(AgentRequest::Network { owner, slot, binding }) = request {
        return networked(&asked, door, caller, (owner, slot, binding)).await;
    }
    let launches = matches!(request, Ok(AgentRequest::Launch { .. }));
    let reply = match request {
        Ok(request) => ask(&asked, door, &caller, request).await,
        Err(refusal) => Err(refusal),
    };
    match reply {
        Ok(value) if launches => launched(&asked, caller, value).await,
        Ok(value) => caller.reply(&Reply::Done(value)).await,
        Err(refusal) => caller.reply(&Reply::<Value>::Refused(refusal)).await,
    }
}

/// Whoever holds the guest gets its interface, with its tap and its DHCP server's socket.
async fn networked(
    asked: &Asked,
    door: Door,
    caller: Caller,
    (owner, slot, binding): (String, u8, NetworkBinding),
) {
    let request = AgentRequest::Network { owner, slot, binding: binding.clone() };
    let pid = caller.peer.pid;
    let may = ask(asked, door, &caller, request).await;
    let pod = may
        .and_then(|pod| serde_json::from_value(pod).map_err(|e| Refusal::new("Unreadable", e.to_string())));
    let made = match pod {
        Err(refusal) => Err(refusal),
        Ok(pod) => {
            let wanted = network::Wanted { pid, pod, slot, binding };
            let folder = asked.ledger.agent_socket().with_file_name("networks");
            let (records, proc) =
                (network::Records { folder, logs: asked.pods.logs.clone() }, asked.pods.proc.clone());
            let making = spawn_blocking(move || network::make(&records, &proc, wanted));
            making.await.unwrap_or_else(|_| Err(Refusal::new("Ending", "the node agent is ending")))
        }
    };
    match made {
        Ok((link, descriptors)) => caller.hand_over(&Reply::Done(link), descriptors).await,
        Err(refusal) => caller.reply(&Reply::<Value>::Refused(refusal)).await,
    }
}

/// A launcher in a pod sees nothing of the node: its guest's socket is made for it where all are, and it gets the listening end.
async fn launched(asked: &Asked, caller: Caller, value: Value) {
    let path = asked.ledger.socket_of(caller.peer.pid);
    match pinion_endpoint::bind(&path, 0o600) {
        Ok(listener) => caller.hand_over(&Reply::Done(value), vec![listener.into()]).await,
        Err(e) => {
            eprintln!("warning: a guest in a pod has no socket: {}", pinion_endpoint::chain(&e));
            caller.reply(&Reply::Done(value)).await;
        }
    }
}

/// A request from a line that anybody may have written.
///
/// # Errors
/// [`Refusal`] with the reason `Malformed`.
pub fn parse(line: &[u8]) -> Result<AgentRequest, Refusal> {
    serde_json::from_slice(line).map_err(|e| Refusal::new("Malformed", format!("this is no request: {e}")))
}

/// Has a request answered by whoever looks or changes, if it may come by its door.
async fn ask(asked: &Asked, door: Door, caller: &Caller, request: AgentRequest) -> Result<Value, Refusal> {
    door.admit(&request)?;
    put(asked, caller, request).await.map_err(|refusal| door.told(caller.peer, refusal))
}

async fn put(asked: &Asked, caller: &Caller, request: AgentRequest) -> Result<Value, Refusal> {
    let gone = || Refusal::new("Ending", "the node agent is ending");
    let (to, answered) = oneshot::channel();
    let command = match request {
        AgentRequest::Launch { instance, pod } => {
            let (sources, peer) = (asked.pods.clone(), caller.peer);
            let looking = spawn_blocking(move || launch::look(&sources, peer, &instance, &pod));
            Command::Launch(Box::new(looking.await.map_err(|_| gone())??), to)
        }
        request => Command::Ask(caller.peer, request, to),
    };
    asked.desk.send(command).map_err(|_| gone())?;
    match tokio::time::timeout(ANSWERED_WITHIN, answered).await {
        Ok(answer) => answer.map_err(|_| gone())?,
        Err(_) => Err(Refusal::new("Busy", "the node agent has not come to it: ask again")),
    }
}
