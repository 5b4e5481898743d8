//! The thread that changes things: the ledger and the host's settings, one request after the other.
//!
//! Owns the [`Keeper`]. Fed by the socket's thread, the watcher's, and time. Each step is written to the ledger before
//! it is taken, so that this process may be killed at any of them: whoever is next finds what there is.

use std::collections::VecDeque;
use std::sync::mpsc::{Receiver, RecvTimeoutError};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, Instant};

use jiff::Timestamp;
use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;
use pinion_discovery::{From, discover};
use pinion_endpoint::{Peer, Refusal, chain};
use pinion_machine::{Bdf, Machine};
use pinion_planner::Holding;
use serde_json::Value;
use tokio::sync::oneshot;

use super::authority::Authority;
use super::launch::{self, Candidate};
use super::protocol::{AgentRequest, Changes, NoticeText};
use super::status::{GuestRow, NodeStatus, Told};
use super::tend::Tended;
use super::watch::Watched;
use crate::drivers::Rebound;
use crate::ledger::{Holder, Ledger, LedgerDocument, LedgerError};
use crate::partition::{Isolation, PartitionError};
use crate::pod::{PodSources, is_in_pod};
use crate::settings::{BindError, HostWishes, Keeper, Notice};

/// How often vectors of devices are looked after.
const ROUTE_EACH: Duration = Duration::from_secs(1);
/// However much happens, everything is looked at this often at most.
const AT_MOST_EACH: Duration = Duration::from_millis(250);
/// How often everything is, whatever happens.
const SETTLE_EACH: Duration = Duration::from_secs(5);
/// What was told is remembered up to this number.
const REMEMBERED: usize = 100;

/// Something for the desk to do.
#[derive(Debug)]
pub(super) enum Command {
    /// A request, and where its answer goes.
    Ask(Peer, AgentRequest, oneshot::Sender<Answer>),
    /// A guest in a pod, whose launcher asks.
    Launch(Box<Candidate>, oneshot::Sender<Answer>),
    /// A process was seen writing to a file that is kept.
    Wrote(std::path::PathBuf, String),
    /// A holder's process has ended, or the machine is another.
    Changed(&'static str),
    /// The end.
    Quit,
}

pub(super) type Answer = Result<Value, Refusal>;

/// The desk.
#[derive(Debug)]
pub(super) struct Desk {
    pub(super) ledger: Ledger,
    pub(super) keeper: Keeper,
    pub(super) authority: Authority,
    pub(super) pods: PodSources,
    pub(super) status: Arc<Mutex<NodeStatus>>,
    pub(super) watched: Watched,
    pub(super) tended: Tended,
    pub(super) told: VecDeque<Told>,
    pub(super) events: std::collections::BTreeMap<&'static str, u64>,
    /// Whether interrupts of guests' devices are to be looked after.
    pub(super) has_routes: bool,
}

impl Desk {
    /// Works until it is told to quit, and puts the host's settings back then, as far as no guest needs them.
    pub(super) fn work(mut self, commands: &Receiver<Command>) {
        self.settle();
        let (mut settled, mut routed) = (Instant::now(), Instant::now());
        let mut dirty = false;
        loop {
            let each = if dirty { AT_MOST_EACH.saturating_sub(settled.elapsed()) } else { ROUTE_EACH };
            let wait = each.min(ROUTE_EACH.saturating_sub(routed.elapsed()));
            match commands.recv_timeout(wait) {
                Ok(Command::Quit) | Err(RecvTimeoutError::Disconnected) => break,
                Ok(Command::Ask(peer, request, to)) => {
                    let changes = request.is_change();
                    // Whoever asked may have gone.
                    let _ = to.send(self.answer(peer, request));
                    if changes {
                        self.publish();
                    }
                }
                Ok(Command::Launch(candidate, to)) => {
                    let _ = to.send(self.launch(&candidate));
                    self.publish();
                }
                Ok(Command::Wrote(file, writer)) => {
                    self.count("write");
                    self.keeper.accuse(&file, writer);
                    dirty = true;
                }
                Ok(Command::Changed(what)) => {
                    self.count(what);
                    if what == "process" {
                        // Where it cannot be tidied, the next guest does.
                        let _ = self.ledger.tidy_sockets();
                    }
                    if what == "machine" {
                        self.tended.forget_machine();
                    }
                    self.audit_guests();
                    dirty = true;
                }
                Err(RecvTimeoutError::Timeout) => {}
            }
            let limit = if dirty { AT_MOST_EACH } else { SETTLE_EACH };
            if settled.elapsed() >= limit {
                self.settle();
                self.tidy();
                settled = Instant::now();
                (routed, dirty) = (settled, false);
            } else if routed.elapsed() >= ROUTE_EACH {
                // Looking costs a read of the whole ledger.
                if self.has_routes {
                    let done = self.keeper.route();
                    self.take(done);
                }
                routed = Instant::now();
            }
        }
        self.settle();
    }

    fn count(&mut self, what: &'static str) {
        let count = self.events.entry(what).or_default();
        *count = count.saturating_add(1);
    }

    /// Makes everything as the guests need it that are there.
    pub(super) fn settle(&mut self) {
        let mut news = self.tended.apply_profile(&self.ledger, &mut self.keeper);
        news.extend(self.tended.read_qualification());
        for text in news {
            self.remember(NoticeText { reason: "NodeProfile".into(), warning: true, text });
        }
        let done = self.keeper.settle();
        self.take(done);
        self.publish();
    }

    /// In a pod, a launcher lets go of its guest and ends after that, which nobody watches: what it listened on is left.
    fn tidy(&self) {
        let Ok(document) = self.ledger.read() else { return };
        let held: Vec<_> = document.holdings.iter().map(|e| self.ledger.socket_of(e.process.pid)).collect();
        let entries = std::fs::read_dir(self.ledger.sockets()).into_iter().flatten().flatten();
        if entries.into_iter().any(|entry| !held.contains(&entry.path())) {
            // Where it cannot be tidied, the next look does.
            let _ = self.ledger.tidy_sockets();
        }
    }

    /// Has every guest check itself now.
    fn audit_guests(&self) {
        for entry in self.ledger.read().map(|d| d.holdings).unwrap_or_default() {
            if entry.holding.state == pinion_planner::HoldingState::Committed {
                // It may have ended.
                let _ = kill(Pid::from_raw(entry.process.pid), Signal::SIGUSR1);
            }
        }
    }

    fn take(&mut self, outcome: Result<Vec<Notice>, LedgerError>) {
        match outcome {
            Ok(notices) => drop(self.tell(notices)),
            Err(e) => self.remember(NoticeText { reason: "Ledger".into(), warning: true, text: chain(&e) }),
        }
    }

    pub(super) fn tell(&mut self, notices: Vec<Notice>) -> Vec<NoticeText> {
        let text = |n: Notice| NoticeText {
            reason: n.reason().to_owned(),
            warning: n.is_warning(),
            text: n.to_string(),
        };
        let texts: Vec<NoticeText> = notices.into_iter().map(text).collect();
        texts.iter().for_each(|notice| self.remember(notice.clone()));
        texts
    }

    fn remember(&mut self, notice: NoticeText) {
        eprintln!("{}{}", if notice.warning { "warning: " } else { "" }, notice.text);
        self.told.push_back(Told { at: Timestamp::now(), notice });
        while self.told.len() > REMEMBERED {
            self.told.pop_front();
        }
    }

    /// Shows what there is to whoever asks, and watches what there is to watch.
    fn publish(&mut self) {
        let Ok(document) = self.ledger.read() else { return };
        let row = |e: &crate::ledger::LedgerEntry| GuestRow {
            owner: e.holding.owner.clone(),
            pid: e.process.pid,
            state: e.holding.state,
            cpus: e.holding.cpus.clone(),
            devices: e.holding.devices.clone(),
            isolation: self.keeper.isolation(e.process.pid),
            since: e.since,
        };
        let pids = document.holdings.iter().map(|e| e.process.pid).collect();
        self.has_routes = document.holdings.iter().any(|e| !e.host.routes.is_empty());
        self.tended.write_facts(&self.ledger, &self.keeper, &document);
        let status = NodeStatus {
            profile: self.tended.profile_name().to_owned(),
            profile_obstacles: self.tended.obstacles.clone(),
            qualification: self.tended.qualification.clone(),
            generation: document.generation,
            guests: document.holdings.iter().map(row).collect(),
            tally: self.keeper.tally(),
            events: self.events.clone(),
            told: self.told.iter().cloned().collect(),
            changed: document.changes.settings.len(),
            occupancy: document.occupancy(),
        };
        *self.status.lock().unwrap_or_else(PoisonError::into_inner) = status;
        self.watched.set(pids, self.keeper.watched(&document));
    }

    /// Answers a request.
    pub(super) fn answer(&mut self, peer: Peer, request: AgentRequest) -> Answer {
        let document = self.ledger.read().map_err(|e| refused(&e))?;
        let in_pod = request.is_change() && is_in_pod(&self.pods.proc, peer.pid);
        self.authority.check(peer, &request, &document, in_pod)?;
        match request {
            AgentRequest::Ledger => value(&document),
            AgentRequest::Status => {
                self.publish();
                value(&*self.status.lock().unwrap_or_else(PoisonError::into_inner))
            }
            AgentRequest::Reserve { generation, holding } => {
                self.reserve(peer, &document, generation, holding).map(|()| Value::Null)
            }
            // The daemon looks on another thread first, and hands over a candidate.
            AgentRequest::Launch { instance, pod } => {
                let candidate = launch::look(&self.pods, peer, &instance, &pod)?;
                self.launch(&candidate)
            }
            AgentRequest::Prepare { owner, wishes, bind } => {
                value(&self.prepare(&document, &owner, wishes, bind)?)
            }
            AgentRequest::Transfer { owner, pid } => self.transfer(&document, &owner, pid),
            AgentRequest::Network { owner, .. } => {
                let entry = document.holdings.iter().find(|e| e.holding.owner == owner);
                let pod = entry.and_then(|entry| entry.pod.as_ref());
                pod.map_or_else(|| Err(Refusal::new("NotInPod", format!("{owner:?} is not in a pod"))), value)
            }
            AgentRequest::Commit { owner } => value(&self.commit(&owner)?),
            AgentRequest::Route { .. } => {
                let notices = self.keeper.route().map_err(|e| refused(&e))?;
                value(&Changes { notices: self.tell(notices), isolation: None })
            }
            AgentRequest::Release { owner } => self.release(&owner),
        }
    }

    /// Asked again after its answer was lost, it is answered the same.
    fn reserve(
        &self,
        peer: Peer,
        document: &LedgerDocument,
        generation: u64,
        holding: Holding,
    ) -> Result<(), Refusal> {
        let holder = Holder::of(peer.pid)
            .map_err(|e| Refusal::new("NotPermitted", format!("process {} cannot be told: {e}", peer.pid)))?;
        let same = |e: &crate::ledger::LedgerEntry| {
            let wanted = Holding { state: e.holding.state, ..holding.clone() };
            e.process == holder && e.holding == wanted
        };
        if document.holdings.iter().any(same) {
            return Ok(());
        }
        self.ledger.reserve_planned(holder, generation, holding).map_err(|e| refused(&e))?.keep();
        Ok(())
    }

    /// 1. What it wishes is written: from here on it is kept for as long as its process lives.
    /// 2. Its devices are bound.
    /// 3. Everything is made as wished.
    fn prepare(
        &mut self,
        document: &LedgerDocument,
        owner: &str,
        wishes: HostWishes,
        bind: bool,
    ) -> Result<Changes, Refusal> {
        let mut reservation = self.ledger.adopt(owner).map_err(|e| refused(&e))?;
        reservation.wish(wishes).map_err(|e| refused(&e))?;
        let mut texts = Vec::new();
        let devices = document.holdings.iter().find(|e| e.holding.owner == owner);
        let devices = devices.map(|e| e.holding.devices.clone()).unwrap_or_default();
        if bind && !devices.is_empty() {
            let machine = discover(&From::Host).map_err(|e| Refusal::new("MachineUnreadable", chain(&e)))?;
            texts.extend(self.bind(&machine, &devices)?);
        }
        let notices = self.keeper.settle().map_err(|e| refused(&e))?;
        texts.extend(self.tell(notices));
        Ok(Changes { notices: texts, isolation: None })
    }

    pub(super) fn bind(&self, machine: &Machine, devices: &[Bdf]) -> Result<Vec<NoticeText>, Refusal> {
        let bound = self.keeper.bind(machine, devices).map_err(|e| match &e {
            BindError::Ledger(e) => refused(e),
            BindError::Devices(_) => Refusal::new("DeviceBlocked", e.to_string()),
        })?;
        let text = |rebound: &Rebound| NoticeText {
            reason: "DeviceBound".into(),
            warning: false,
            text: format!("device {} was bound: {}", rebound.address, rebound.change()),
        };
        Ok(bound.iter().map(text).collect())
    }

    fn transfer(&self, document: &LedgerDocument, owner: &str, pid: i32) -> Answer {
        let entry = document.holdings.iter().find(|e| e.holding.owner == owner);
        let is_done = entry.is_some_and(|e| e.process.pid == pid);
        let from = entry.map_or(0, |e| e.process.pid);
        let child = Holder::of(pid).is_ok_and(|child| child.is_child_of(from));
        if is_done {
            return Ok(Value::Null);
        }
        if !child {
            let message = format!("process {pid} is no child of process {from}, which holds {owner:?}");
            return Err(Refusal::new("NotPermitted", message));
        }
        let mut reservation = self.ledger.adopt(owner).map_err(|e| refused(&e))?;
        reservation.transfer(pid).map(|()| Value::Null).map_err(|e| refused(&e))
    }

    fn commit(&mut self, owner: &str) -> Result<Changes, Refusal> {
        let mut reservation = self.ledger.adopt(owner).map_err(|e| refused(&e))?;
        reservation.commit().map_err(|e| refused(&e))?;
        let document = self.ledger.read().map_err(|e| refused(&e))?;
        let entry = document.holdings.iter().find(|e| e.holding.owner == owner);
        let Some(pid) = entry.map(|e| e.process.pid) else { return Ok(Changes::default()) };
        match self.keeper.isolate(pid).map_err(|e| refused(&e))? {
            Ok(isolation) => Ok(Changes { notices: Vec::new(), isolation: Some(isolation) }),
            // Its launcher sees that too, pins them again and asks again.
            Err(PartitionError::Moved(_)) => Ok(Changes::default()),
            Err(e) => {
                let text = format!("other tasks may run on the CPUs of {owner}: {}", chain(&e));
                let notice = NoticeText { reason: "NotIsolated".into(), warning: true, text };
                self.remember(notice.clone());
                Ok(Changes { notices: vec![notice], isolation: Some(Isolation::Pinned) })
            }
        }
    }

    fn release(&mut self, owner: &str) -> Answer {
        let document = self.ledger.read().map_err(|e| refused(&e))?;
        let reservation = self.ledger.adopt(owner).map_err(|e| refused(&e))?;
        reservation.release().map_err(|e| refused(&e))?;
        let entry = document.holdings.iter().find(|e| e.holding.owner == owner);
        if let Some(pod) = entry.and_then(|entry| entry.pod.as_ref()) {
            self.keeper.gather(pod);
        }
        let notices = self.keeper.settle().map_err(|e| refused(&e))?;
        value(&Changes { notices: self.tell(notices), isolation: None })
    }
}

pub(super) fn value<T: serde::Serialize>(of: &T) -> Answer {
    serde_json::to_value(of).map_err(|e| Refusal::new("Unreadable", e.to_string()))
}

pub(super) fn refused(error: &LedgerError) -> Refusal {
    Refusal::new(error.reason(), chain(error))
}
