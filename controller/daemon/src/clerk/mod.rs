//! Who has a place on which node: chooses nodes, and writes bookings into their ledgers.
//!
//! Fed by the watcher of nodes and ledgers; asked by the workers. A booking is made in memory first, under one lock, so that
//! no two of this replica's take the same place, and is good only once the API server has stored it: the ledger's generation
//! must be the one that was seen, so that no two replicas' do either. Bookings for one node that come at the same time are
//! written together.

mod desk;

use std::collections::{BTreeMap, BTreeSet, HashSet};
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use pinion_api::VirtualMachineInstance;
use pinion_nodes::{
    Booking, Books, Choice, ClusterNode, Effect, GuestReport, LedgerSpec, LedgerStatus, NowhereToRun, Taint,
    choose,
};
use pinion_planner::{Holding, HoldingState};
use pinion_reconcile::Meta;
use serde_json::Value;
use tokio::time::Instant;

use crate::api::{Api, RequestError, now};
use crate::kinds::Kind;
use crate::queue::Key;
use desk::Desk;

/// How long a node that has turned a pod away is not chosen.
const AVOIDED_FOR: Duration = Duration::from_secs(60);
/// After so long without a word, an agent is taken for gone.
const SILENT_AFTER: Duration = Duration::from_secs(180);
/// How often a place is looked for anew because others were quicker.
const ATTEMPTS: usize = 20;

/// The clerk.
#[derive(Debug, Default)]
pub(crate) struct Clerk {
    nodes: Mutex<BTreeMap<String, Entry>>,
    waiting: Mutex<HashSet<Key>>,
}

/// A node.
#[derive(Debug, Default)]
struct Entry {
    node: Option<NodeFacts>,
    desk: Desk,
    status: LedgerStatus,
    heard: Option<Instant>,
    avoided: Option<(Instant, String)>,
    /// As whoever chooses sees it; made anew where what it is made of has changed.
    view: Option<ClusterNode>,
    /// Why its ledger cannot be read.
    damage: Option<String>,
}

/// What is known of a node from its own object.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
struct NodeFacts {
    labels: BTreeMap<String, String>,
    taints: Vec<Taint>,
    is_ready: bool,
}

/// What became of a booking.
#[derive(Debug)]
pub(crate) enum Booked {
    /// It is good.
    There,
    /// No node takes the guest.
    Nowhere(NowhereToRun),
}

impl Clerk {
    /// A node's object is as it says; who may have been waiting for that. Most of what is told of nodes is that they are there.
    pub(crate) fn node(&self, object: &Value) -> Vec<Key> {
        let facts = NodeFacts::of(object);
        let mut nodes = self.nodes();
        let entry = nodes.entry(Meta::of(object).name).or_default();
        if entry.node.as_ref() == Some(&facts) {
            return Vec::new();
        }
        (entry.node, entry.view) = (Some(facts), None);
        drop(nodes);
        self.waiting()
    }

    /// A node is gone.
    pub(crate) fn node_gone(&self, name: &str) {
        if let Some(entry) = self.nodes().get_mut(name) {
            (entry.node, entry.view) = (None, None);
        }
    }

    /// A ledger is as it says: owners of guests of which it says something new, and who may have been waiting.
    pub(crate) fn ledger(&self, object: &Value) -> (Vec<Key>, Vec<String>) {
        let name = Meta::of(object).name;
        let status: LedgerStatus =
            object.get("status").and_then(|s| serde_json::from_value(s.clone()).ok()).unwrap_or_default();
        let mut nodes = self.nodes();
        let entry = nodes.entry(name).or_default();
        let news = changed(&entry.status.guests, &status.guests);
        let was_silent = entry.is_silent();
        entry.heard = Some(Instant::now());
        let has_changed = entry.tell(status) | entry.see(object);
        drop(nodes);
        (if has_changed || was_silent { self.waiting() } else { Vec::new() }, news)
    }

    /// A ledger is gone.
    pub(crate) fn ledger_gone(&self, name: &str) {
        if let Some(entry) = self.nodes().get_mut(name) {
            *entry = Entry { node: entry.node.take(), ..Entry::default() };
        }
    }

    /// The node that an instance is booked on.
    #[must_use]
    pub(crate) fn booked(&self, uid: &str) -> Option<String> {
        self.nodes().iter().find(|(_, entry)| entry.desk.has(uid)).map(|(name, _)| name.clone())
    }

    /// Bookings of instances that had a name; at most one, but for what was killed.
    #[must_use]
    pub(crate) fn booked_for(&self, owner: &str) -> Vec<String> {
        let nodes = self.nodes();
        let all = nodes.values().flat_map(|entry| entry.desk.bookings());
        all.filter(|booking| booking.holding.owner == owner).map(|booking| booking.uid.clone()).collect()
    }

    /// What a node's agent says of a guest's pod.
    #[must_use]
    pub(crate) fn report(&self, node: &str, pod_uid: &str) -> Option<GuestReport> {
        self.nodes().get(node)?.status.guests.iter().find(|guest| guest.pod_uid == pod_uid).cloned()
    }

    /// What a guest has of a node, as its agent's ledger says.
    #[must_use]
    pub(crate) fn held(&self, node: &str, owner: &str) -> Option<Holding> {
        self.nodes().get(node)?.status.holdings.iter().find(|holding| holding.owner == owner).cloned()
    }

    /// What is wrong with a node that guests run on.
    #[must_use]
    pub(crate) fn trouble(&self, node: &str) -> Option<String> {
        let nodes = self.nodes();
        match nodes.get(node).map(|entry| entry.node.as_ref()) {
            Some(Some(facts)) if facts.is_ready => None,
            Some(Some(_)) => Some(format!("node {node} is not ready")),
            _ => Some(format!("there is no node {node}")),
        }
    }

    /// Threads of a node's cores.
    #[must_use]
    pub(crate) fn threads_per_core(&self, node: &str) -> u64 {
        let mut nodes = self.nodes();
        let view = nodes.get_mut(node).and_then(|entry| entry.view(node));
        let threads = view.map_or(1, |view| view.books.threads_per_core());
        u64::try_from(threads).unwrap_or(1)
    }

    /// Chooses no node of that name for a while.
    pub(crate) fn avoid(&self, node: &str, why: &str) {
        if let Some(entry) = self.nodes().get_mut(node) {
            let until = Instant::now().checked_add(AVOIDED_FOR).unwrap_or_else(Instant::now);
            entry.avoided = Some((until, why.to_owned()));
        }
    }

    /// Whether a node that was not chosen for a while may be chosen again, since this was asked last.
    pub(crate) fn is_freed(&self) -> bool {
        let now = Instant::now();
        let mut is_freed = false;
        for entry in self.nodes().values_mut() {
            is_freed |= entry.avoided.take_if(|(until, _)| *until <= now).is_some();
        }
        is_freed
    }

    /// Books a place for an instance that has none.
    ///
    /// # Errors
    /// [`RequestError`] where the API server is not there, or others were quicker each time; what it stored counts, and is
    /// seen at the next look.
    pub(crate) async fn book(
        &self,
        api: &Api,
        key: &Key,
        (uid, guest): (&str, &VirtualMachineInstance),
    ) -> Result<Booked, RequestError> {
        for _ in 0..ATTEMPTS {
            let choice = match self.enter(uid, guest) {
                Ok(choice) => choice,
                Err(nowhere) => {
                    self.wait(key.clone());
                    return Ok(Booked::Nowhere(nowhere));
                }
            };
            if self.write(api, &choice.node, uid).await? {
                self.waits_no_more(key);
                return Ok(Booked::There);
            }
        }
        Err(RequestError::Outrun { attempts: ATTEMPTS })
    }

    /// Chooses a node, and enters the booking there in memory.
    fn enter(&self, uid: &str, guest: &VirtualMachineInstance) -> Result<Choice, NowhereToRun> {
        let mut nodes = self.nodes();
        for (name, entry) in nodes.iter_mut() {
            let _ = entry.view(name);
        }
        let choice = choose(guest, nodes.values().filter_map(|entry| entry.view.as_ref()))?;
        if let Some(entry) = nodes.get_mut(&choice.node) {
            entry.enter(booking(&choice, uid));
        }
        Ok(choice)
    }

    /// Gives a place back.
    ///
    /// # Errors
    /// [`RequestError`].
    pub(crate) async fn unbook(&self, api: &Api, uid: &str) -> Result<(), RequestError> {
        let Some(node) = self.booked(uid) else { return Ok(()) };
        if let Some(entry) = self.nodes().get_mut(&node) {
            entry.strike(uid);
        }
        self.write(api, &node, uid).await.map(drop)
    }

    /// Bookings of instances that are gone: whoever was to give them back was killed.
    #[must_use]
    pub(crate) fn stray(&self, instances: &BTreeSet<String>) -> Vec<String> {
        let nodes = self.nodes();
        let all = nodes.values().flat_map(|entry| entry.desk.bookings());
        all.map(|booking| &booking.uid).filter(|uid| !instances.contains(*uid)).cloned().collect()
    }

    /// Writes what is new in a node's ledger; whether an instance has its booking there then.
    ///
    /// 1. One writes at a time: who comes meanwhile finds his booking written with the others, and has nothing to do.
    /// 2. The ledger must be the one that was seen. Where it is not, it is read again, and what has no room beside what others
    ///    have booked meanwhile is struck: its instance is asked again.
    async fn write(&self, api: &Api, node: &str, uid: &str) -> Result<bool, RequestError> {
        let Some(turn) = self.nodes().get(node).map(|entry| entry.desk.turn()) else { return Ok(false) };
        let turn = turn.lock().await;
        loop {
            let Some(steps) = self.nodes().get(node).and_then(|entry| entry.desk.patch()) else { break };
            let meta = Meta { name: node.to_owned(), ..Meta::default() };
            let answer = api.patch(Kind::Ledger, &meta, steps).await;
            let stored = match answer {
                Ok(stored) => stored,
                Err(error) if error.is_conflict() => match api.get(Kind::Ledger, "", node).await {
                    Ok(fresh) => fresh,
                    Err(error) => return self.give_up(node, uid, error),
                },
                Err(error) => return self.give_up(node, uid, error),
            };
            if let Some(entry) = self.nodes().get_mut(node) {
                let _ = entry.see(&stored);
                entry.settle();
            }
        }
        drop(turn);
        Ok(self.nodes().get(node).is_some_and(|entry| entry.desk.has(uid)))
    }

    /// Nobody knows what was stored: the next that is seen of the ledger says it.
    fn give_up(&self, node: &str, uid: &str, error: RequestError) -> Result<bool, RequestError> {
        if let Some(entry) = self.nodes().get_mut(node) {
            entry.forget(uid);
        }
        Err(error)
    }

    /// Names of all nodes, or of all ledgers.
    #[must_use]
    pub(crate) fn names(&self, kind: Kind) -> Vec<String> {
        let is_there = |entry: &Entry| match kind {
            Kind::Node => entry.node.is_some(),
            _ => entry.desk.is_known(),
        };
        self.nodes().iter().filter(|(_, entry)| is_there(entry)).map(|(name, _)| name.clone()).collect()
    }

    fn wait(&self, key: Key) {
        self.waiting.lock().unwrap_or_else(PoisonError::into_inner).insert(key);
    }

    /// An instance has its place, or is gone.
    pub(crate) fn waits_no_more(&self, key: &Key) {
        self.waiting.lock().unwrap_or_else(PoisonError::into_inner).remove(key);
    }

    /// How many instances no node took when they were asked.
    #[must_use]
    pub(crate) fn waiting_count(&self) -> usize {
        self.waiting.lock().unwrap_or_else(PoisonError::into_inner).len()
    }

    /// Instances that no node took when they were asked.
    #[must_use]
    pub(crate) fn waiting(&self) -> Vec<Key> {
        let mut waiting: Vec<Key> =
            self.waiting.lock().unwrap_or_else(PoisonError::into_inner).iter().cloned().collect();
        waiting.sort();
        waiting
    }

    fn nodes(&self) -> MutexGuard<'_, BTreeMap<String, Entry>> {
        self.nodes.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// Owners of guests of which something else is said than before.
fn changed(old: &[GuestReport], new: &[GuestReport]) -> Vec<String> {
    let differs = |guest: &&GuestReport| !old.contains(guest);
    let gone = old.iter().filter(|guest| !new.iter().any(|other| other.pod_uid == guest.pod_uid));
    new.iter().filter(differs).chain(gone).map(|guest| guest.owner.clone()).collect()
}

fn booking(choice: &Choice, uid: &str) -> Booking {
    Booking {
        uid: uid.to_owned(),
        request: choice.request.clone(),
        holding: choice.placement.holding(HoldingState::Reserved),
        since: now(),
    }
}

impl Entry {
    /// As whoever chooses sees it; nothing before its agent has made its ledger.
    fn view(&mut self, name: &str) -> Option<&ClusterNode> {
        if !self.desk.is_known() {
            return None;
        }
        if self.view.is_none() {
            let facts = self.node.clone().unwrap_or_default();
            let books = Books::of(&self.desk.spec(), &self.status);
            self.damage = books.as_ref().err().map(ToString::to_string);
            self.view = Some(ClusterNode {
                name: name.to_owned(),
                labels: facts.labels,
                taints: facts.taints,
                obstacle: None,
                books: books.unwrap_or_default(),
            });
        }
        // Some obstacles come with time alone.
        let obstacle = self.obstacle().or_else(|| self.damage.clone());
        let view = self.view.as_mut()?;
        view.obstacle = obstacle;
        Some(view)
    }

    fn is_silent(&self) -> bool {
        self.heard.is_none_or(|heard| heard.elapsed() > SILENT_AFTER)
    }

    /// What its agent says; whether that is another thing than before. That it was heard of is no news to whoever chooses.
    fn tell(&mut self, mut status: LedgerStatus) -> bool {
        status.heard = None;
        let is_news = status != self.status;
        if is_news {
            (self.status, self.view) = (status, None);
        }
        is_news
    }

    fn see(&mut self, object: &Value) -> bool {
        let is_news = self.desk.see(object);
        if is_news {
            self.view = None;
        }
        is_news
    }

    fn enter(&mut self, booking: Booking) {
        match &mut self.view {
            Some(view) if !self.desk.has(&booking.uid) => view.books.enter(&booking),
            view => *view = None,
        }
        self.desk.enter(booking);
    }

    fn strike(&mut self, uid: &str) {
        self.desk.strike(uid);
        self.view = None;
    }

    fn forget(&mut self, uid: &str) {
        self.desk.forget(uid);
        self.view = None;
    }

    fn obstacle(&self) -> Option<String> {
        let now = Instant::now();
        if let Some((_, why)) = self.avoided.as_ref().filter(|(until, _)| *until > now) {
            return Some(format!("it is avoided for a while: {why}"));
        }
        match &self.node {
            None => return Some("there is no such node".to_owned()),
            Some(facts) if !facts.is_ready => return Some("it is not ready".to_owned()),
            Some(_) => {}
        }
        if let Some(obstacle) = self.status.obstacles.first() {
            return Some(obstacle.clone());
        }
        self.is_silent().then(|| "its agent has not been heard of for minutes".to_owned())
    }

    /// Strikes what is not stored yet and has no room beside what is.
    fn settle(&mut self) {
        let stored = LedgerSpec { bookings: self.desk.stored() };
        let Ok(mut books) = Books::of(&stored, &self.status) else { return };
        self.view = None;
        for entered in self.desk.entered() {
            match books.plan(&entered.request) {
                Ok(placement) => {
                    let booking = Booking { holding: placement.holding(HoldingState::Reserved), ..entered };
                    books.enter(&booking);
                    self.desk.enter(booking);
                }
                Err(_) => self.forget(&entered.uid),
            }
        }
    }
}

impl NodeFacts {
    fn of(object: &Value) -> Self {
        let list = |path: &str| {
            object.pointer(path).and_then(Value::as_array).map(Vec::as_slice).unwrap_or_default()
        };
        let text = |value: &Value, name: &str| {
            value.get(name).and_then(Value::as_str).unwrap_or_default().to_owned()
        };
        let taint = |taint: &Value| {
            let effect = Effect::of(&text(taint, "effect"))?;
            Some(Taint { key: text(taint, "key"), value: text(taint, "value"), effect })
        };
        let ready = list("/status/conditions").iter().find(|condition| text(condition, "type") == "Ready");
        Self {
            labels: Meta::of(object).labels,
            taints: list("/spec/taints").iter().filter_map(taint).collect(),
            is_ready: ready.is_some_and(|ready| text(ready, "status") == "True"),
        }
    }
}

#[cfg(test)]
mod tests;
