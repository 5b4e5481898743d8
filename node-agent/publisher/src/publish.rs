//! The publisher's loop: looks, compares, writes what is new.
//!
//! On its own thread. News wakes it; it writes at most every 100 ms, and once a minute at least. What cannot be written waits,
//! and what is newest by then is written.

use std::sync::Arc;
use std::thread;
use std::time::{Duration, Instant};

use jiff::Timestamp;
use kube::{Client, Config};
use pinion_node_agent::{Holder, Labels, PublishOutcome, Published};
use pinion_nodes::{GuestPhase, GuestReport, LedgerStatus};
use tokio::runtime::Builder;
use tokio::sync::Notify;
use tokio::task::{JoinSet, spawn_blocking};
use tokio::time::sleep;

use crate::error::PublishError;
use crate::guests::Guests;
use crate::profile;
use crate::seen::Seen;
use crate::server::Server;
use crate::survey::{KUBELET_EACH, Sources, Survey};
use crate::watch::Watch;

/// However much happens, it is written this often at most.
const AT_MOST_EACH: Duration = Duration::from_millis(100);
/// However little happens, it is written this often at least: the agent is heard.
const HEARD_EACH: Duration = Duration::from_secs(60);
/// The node's object is others' too, and all of them are told of its changes: its labels follow more slowly.
const LABELS_EACH: Duration = Duration::from_secs(10);
/// How long is waited after a failure, and after many.
const PAUSES: (Duration, Duration) = (Duration::from_millis(200), Duration::from_secs(10));
/// Threads that may wait for launchers and the kubelet.
const WAITING: usize = 16;

/// Told what people should know: that something is not published, and that it is again.
pub type Tell = Arc<dyn Fn(&str) + Send + Sync>;

/// What is published, and where from.
#[derive(Clone)]
pub struct Options {
    /// The node's name, as Kubernetes has it.
    pub node: String,
    /// Where it is looked at.
    pub sources: Sources,
    /// How it goes is counted here.
    pub published: Arc<Published>,
    /// Told of what goes wrong.
    pub tell: Tell,
}

impl std::fmt::Debug for Options {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Options")
            .field("node", &self.node)
            .field("sources", &self.sources)
            .finish_non_exhaustive()
    }
}

/// Why nothing will be published.
#[derive(Debug, thiserror::Error)]
#[error("Cannot start publishing")]
pub struct StartError(#[from] std::io::Error);

/// Publishes on a thread of its own for as long as the process lives. The API server is found by KUBECONFIG or the service
/// account; where there is neither yet, it is waited for.
///
/// # Errors
/// Where there is no thread or no event loop to be had.
pub fn start(options: Options) -> Result<(), StartError> {
    let runtime = Builder::new_current_thread().enable_all().max_blocking_threads(WAITING).build()?;
    let work = move || {
        runtime.block_on(async {
            let client = client(&options).await;
            publish(client, options).await;
        });
    };
    thread::Builder::new().name("publisher".into()).spawn(work)?;
    Ok(())
}

async fn client(options: &Options) -> Client {
    let mut trouble = Trouble::default();
    loop {
        let found = match Config::infer().await {
            Ok(config) => Client::try_from(config).map_err(|error| error.to_string()),
            Err(error) => Err(error.to_string()),
        };
        match found {
            Ok(client) => return client,
            Err(why) => trouble.failed(options, &PublishError::NoServer(why)),
        }
        sleep(trouble.pause).await;
    }
}

/// Publishes for ever, on a runtime of the caller's.
pub async fn publish(client: Client, options: Options) {
    let news = Arc::new(Notify::new());
    let watch = Watch::start(options.sources.ledger.path(), Arc::clone(&news)).ok();
    let profile = options.sources.ledger.cluster_profile();
    let profile = profile::keep(client.clone(), options.node.clone(), profile, Arc::clone(&options.tell));
    // Ends with whoever publishes.
    let mut tasks = JoinSet::new();
    let _ = tasks.spawn(profile);
    let mut publisher = Publisher {
        server: Server::new(client, &options.node),
        guests: Guests::new(options.sources.ledger.clone(), Arc::clone(&news)),
        survey: Some(Survey::new(options.sources.clone())),
        stored: None,
        ledger: Trouble::default(),
        labels: (None, None, Trouble::default()),
        options,
    };
    loop {
        let began = Instant::now();
        let processes = publisher.turn().await;
        if let Some(watch) = &watch {
            watch.processes(processes);
        }
        sleep(AT_MOST_EACH.saturating_sub(began.elapsed())).await;
        let wait = publisher.ledger.wait().unwrap_or(KUBELET_EACH).min(KUBELET_EACH);
        tokio::select! {
            () = news.notified() => {}
            () = sleep(wait) => {}
        }
    }
}

/// What stands in the way of writing something.
#[derive(Debug, Default)]
struct Trouble {
    told: bool,
    pause: Duration,
    until: Option<Instant>,
}

impl Trouble {
    /// How long is still to be waited; none where nothing is wrong.
    fn wait(&self) -> Option<Duration> {
        self.until.map(|until| until.saturating_duration_since(Instant::now()))
    }

    fn may_try(&self) -> bool {
        self.wait().is_none_or(|wait| wait.is_zero())
    }

    /// Told once, until it goes again.
    fn failed(&mut self, options: &Options, error: &PublishError) {
        options.published.count(error.outcome());
        if !self.told {
            (options.tell)(&format!("warning: {error}; it is tried again until it can be"));
        }
        self.told = true;
        self.pause = self.pause.saturating_mul(2).clamp(PAUSES.0, PAUSES.1);
        self.until = Instant::now().checked_add(self.pause);
    }

    fn succeeded(&mut self, options: &Options, what: &str) {
        options.published.count(PublishOutcome::Stored);
        if self.told {
            (options.tell)(&format!("{what} is published again"));
        }
        *self = Self::default();
    }
}

/// Publishes.
struct Publisher {
    options: Options,
    server: Server,
    guests: Guests,
    /// With whoever looks at the moment.
    survey: Option<Survey>,
    /// What the API server has, and when it was written; the time is missing for what an earlier agent wrote.
    stored: Option<(Option<Instant>, LedgerStatus)>,
    ledger: Trouble,
    /// Labels that the API server has, when they were looked at, and what is wrong.
    labels: (Option<Labels>, Option<Instant>, Trouble),
}

impl Publisher {
    /// 1. The node is looked at.
    /// 2. Its guests are those of the ledger that was seen.
    /// 3. What is new is written; where the API server has not taken the last, not before its pause is over.
    ///
    /// Returns the processes of guests, whose ends are news.
    async fn turn(&mut self) -> Vec<Holder> {
        let seen = self.look().await;
        self.guests.follow(&seen.document, &seen.pods);
        let status = seen.status(self.guests.reports(), self.guests.ended_pods());
        if self.ledger.may_try() {
            match self.store(status).await {
                Ok(true) => self.ledger.succeeded(&self.options, "this node's NodeLedger"),
                Ok(false) => {}
                Err(error) => self.ledger.failed(&self.options, &error),
            }
        }
        self.label().await;
        seen.document.holdings.into_iter().map(|entry| entry.process).collect()
    }

    async fn look(&mut self) -> Seen {
        let mut survey = self.survey.take().unwrap_or_else(|| Survey::new(self.options.sources.clone()));
        let looking = spawn_blocking(move || {
            let seen = survey.look();
            (survey, seen)
        });
        match looking.await {
            Ok((survey, seen)) => {
                self.survey = Some(survey);
                seen
            }
            Err(_) => {
                Seen { obstacles: vec!["the agent cannot look at its node".to_owned()], ..Seen::default() }
            }
        }
    }

    /// Whether there was anything to write.
    async fn store(&mut self, mut status: LedgerStatus) -> Result<bool, PublishError> {
        if self.stored.is_none() {
            let before = self.server.status().await?.unwrap_or_default();
            self.stored = Some((None, before));
        }
        if let Some((at, before)) = &self.stored {
            keep(&mut status, before);
            if status == *before && at.is_some_and(|at| at.elapsed() < HEARD_EACH) {
                return Ok(false);
            }
        }
        let written = LedgerStatus { heard: Some(now()), ..status.clone() };
        self.server.store(&written).await?;
        self.stored = Some((Some(Instant::now()), status));
        Ok(true)
    }

    async fn label(&mut self) {
        let (stored, looked, trouble) = &mut self.labels;
        if !trouble.may_try() || looked.is_some_and(|at| at.elapsed() < LABELS_EACH) {
            return;
        }
        let sources = self.options.sources.clone();
        let Ok(Some(labels)) = spawn_blocking(move || sources.labels()).await else { return };
        *looked = Some(Instant::now());
        if stored.as_ref() == Some(&labels) {
            return;
        }
        match self.server.label(&labels).await {
            Ok(()) => {
                trouble.succeeded(&self.options, "what this node's labels say");
                *stored = Some(labels);
            }
            Err(error) => trouble.failed(&self.options, &error),
        }
    }
}

/// A guest that is in the phase that was published is in it since then, whichever agent saw it first. One that ran does not
/// start again: an agent that is new has not asked it yet.
fn keep(status: &mut LedgerStatus, before: &LedgerStatus) {
    for guest in &mut status.guests {
        let Some(known) = before.guests.iter().find(|b| b.pod_uid == guest.pod_uid) else { continue };
        let ran = matches!(known.phase, GuestPhase::Running | GuestPhase::Paused);
        if guest.phase == GuestPhase::Starting && ran {
            *guest = GuestReport { cpus: guest.cpus.clone(), ..known.clone() };
        } else if guest.phase == known.phase {
            guest.since = known.since;
        }
    }
}

/// Seconds are enough, and what the API server prints.
fn now() -> Timestamp {
    let now = Timestamp::now();
    Timestamp::from_second(now.as_second()).unwrap_or(now)
}

#[cfg(test)]
mod tests;
