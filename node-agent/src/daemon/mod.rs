//! The node's daemon: one for each host.
//!
//! Owns the agent's socket and pages, and three threads besides the main one: the desk, which alone changes things;
//! the watcher, which sleeps until the kernel tells something; and that of the pages. The ledger's file stays the one
//! truth: with the daemon or without, whoever changes something takes its lock. It must never be needed by a guest
//! that runs.

mod authority;
mod desk;
mod exposition;
mod gather;
mod page;
mod protocol;
mod status;
mod tend;
mod watch;

use std::collections::{BTreeMap, VecDeque};
use std::fs;
use std::io;
use std::net::SocketAddr;
use std::os::unix::fs::{PermissionsExt, chown};
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

use crate::ledger::{Ledger, LedgerError};
use crate::settings::Keeper;
use authority::Authority;
use desk::{Command, Desk};
use gather::Node;
use tend::Tended;
use watch::{Watched, Watcher};

pub use exposition::{METRICS, NodeMetric, merge, metrics_page};
pub use page::{Shown, html};

#[cfg(feature = "fake")]
pub mod fake;

pub use protocol::{AgentRequest, Changes, NoticeText};
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
/// 2. The socket is taken: there is one agent for each ledger.
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
    let socket = ledger.agent_socket();
    let listener = pinion_endpoint::bind(&socket, 0o600)?;
    let opened = chown(&socket, None, group)
        .and_then(|()| fs::set_permissions(&socket, fs::Permissions::from_mode(mode(group))));
    opened.map_err(failed("let others use the agent's socket"))?;
    let signals = signals().map_err(failed("take over signals"))?;
    let (commands, work) = channel();
    let watched = Watched::new().map_err(failed("watch"))?;
    Watcher::start(watched.clone(), commands.clone()).map_err(failed("watch"))?;
    let node = Node::new(ledger.clone());
    let desk = Desk {
        ledger: ledger.clone(),
        keeper: Keeper::new(ledger),
        tended: Tended::new(options.profile.clone(), options.qualification.clone()),
        authority: Authority { uid: geteuid().as_raw(), group },
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
    let served = serve(listener, signals, gone, commands.clone());
    let _ = commands.send(Command::Quit);
    let worked = desk.join();
    drop(pages);
    let _ = fs::remove_file(&socket);
    // Nothing can be changed without it: whoever supervises the agent starts it anew.
    worked.map_err(|_| failed("go on: its desk has panicked")(io::ErrorKind::Other.into()))?;
    served.map_err(failed("serve the agent's socket"))
}

/// Everybody may read where no group is named; what they may ask is another matter.
const fn mode(group: Option<u32>) -> u32 {
    if group.is_some() { 0o660 } else { 0o666 }
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
    listener: std::os::unix::net::UnixListener,
    end: oneshot::Receiver<()>,
    gone: oneshot::Receiver<()>,
    desk: Sender<Command>,
) -> io::Result<()> {
    let runtime = Builder::new_current_thread().enable_all().build()?;
    tokio::task::LocalSet::new().block_on(&runtime, async move {
        let desk = Rc::new(desk);
        let serving = tokio::task::spawn_local(pinion_endpoint::serve(listener, move |caller| {
            answer(Rc::clone(&desk), caller)
        }));
        tokio::select! {
            _ = end => {}
            _ = gone => {}
        }
        serving.abort();
        Ok(())
    })
}

async fn answer(desk: Rc<Sender<Command>>, caller: Caller) {
    let reply = match parse(&caller.request) {
        Ok(request) => ask(&desk, &caller, request).await,
        Err(refusal) => Err(refusal),
    };
    caller
        .reply(&match reply {
            Ok(value) => Reply::Done(value),
            Err(refusal) => Reply::Refused(refusal),
        })
        .await;
}

/// A request from a line that anybody may have written.
///
/// # Errors
/// [`Refusal`] with the reason `Malformed`.
pub fn parse(line: &[u8]) -> Result<AgentRequest, Refusal> {
    serde_json::from_slice(line).map_err(|e| Refusal::new("Malformed", format!("this is no request: {e}")))
}

async fn ask(desk: &Sender<Command>, caller: &Caller, request: AgentRequest) -> Result<Value, Refusal> {
    let gone = || Refusal::new("Ending", "the node agent is ending");
    let (to, answered) = oneshot::channel();
    desk.send(Command::Ask(caller.peer, request, to)).map_err(|_| gone())?;
    match tokio::time::timeout(ANSWERED_WITHIN, answered).await {
        Ok(answer) => answer.map_err(|_| gone())?,
        Err(_) => Err(Refusal::new("Busy", "the node agent has not come to it: ask again")),
    }
}
