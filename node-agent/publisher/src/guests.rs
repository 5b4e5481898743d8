//! How the guests of this node's pods are: each is followed by a task of its own, from its entry in the ledger to its end.
//!
//! On the publisher's runtime. A task asks the guest's launcher now and then, often while the guest starts. A launcher is not
//! trusted: what it says is bounded, and about its own guest.

use std::collections::{BTreeMap, BTreeSet, VecDeque};
use std::path::PathBuf;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use jiff::Timestamp;
use pinion_endpoint::ask;
use pinion_endpoint::guest::{GuestRequest, GuestStatus};
use pinion_node_agent::{Ledger, LedgerDocument, LedgerEntry};
use pinion_nodes::{GuestPhase, GuestReport};
use pinion_pod_resources::Pods;
use tokio::sync::Notify;
use tokio::task::{JoinHandle, spawn_blocking};
use tokio::time::sleep;

use crate::pods::{PodKey, key_of};

/// How often a guest is asked that starts.
const STARTING_EACH: Duration = Duration::from_millis(200);
/// How often one is that runs.
const RUNNING_EACH: Duration = Duration::from_secs(2);
/// How long a launcher may take.
const ANSWER_WITHIN: Duration = Duration::from_secs(1);
/// How long the report of a guest is kept that has ended.
const KEPT_FOR: Duration = Duration::from_secs(60);
/// At most this many reports of guests that have ended are kept.
const MOST_ENDED: usize = 256;
/// Mismatches that are told, and their longest text.
const MISMATCHES: (usize, usize) = (8, 300);
/// Longest verdict.
const LONGEST_VERDICT: usize = 32;

/// The guests of this node's pods.
#[derive(Debug)]
pub(crate) struct Guests {
    ledger: Ledger,
    followed: BTreeMap<(i32, u64), Followed>,
    ended: VecDeque<(Instant, GuestReport)>,
    ended_pods: BTreeSet<PodKey>,
    news: Arc<Notify>,
}

/// A guest that is followed until this is dropped.
#[derive(Debug)]
struct Followed {
    report: Arc<Mutex<GuestReport>>,
    pod: PodKey,
    task: JoinHandle<()>,
}

impl Drop for Followed {
    fn drop(&mut self) {
        self.task.abort();
    }
}

impl Guests {
    /// `news` is told what there is to be said of one.
    pub(crate) const fn new(ledger: Ledger, news: Arc<Notify>) -> Self {
        Self { ledger, followed: BTreeMap::new(), ended: VecDeque::new(), ended_pods: BTreeSet::new(), news }
    }

    /// Pods whose guests are gone, and which are not gone yet.
    pub(crate) const fn ended_pods(&self) -> &BTreeSet<PodKey> {
        &self.ended_pods
    }

    /// Follows the guests that are in the ledger, and no others.
    ///
    /// Called inside of a runtime.
    pub(crate) fn follow(&mut self, document: &LedgerDocument, pods: &Pods) {
        let key = |e: &LedgerEntry| (e.process.pid, e.process.start_ticks);
        let here: BTreeSet<(i32, u64)> = document.holdings.iter().map(key).collect();
        let gone: Vec<(i32, u64)> = self.followed.keys().filter(|k| !here.contains(k)).copied().collect();
        for key in gone {
            if let Some(followed) = self.followed.remove(&key) {
                self.end(&followed);
            }
        }
        for entry in &document.holdings {
            let Some(pod) = key_of(entry) else { continue };
            let followed = self.followed.entry(key(entry)).or_insert_with(|| {
                let report = Arc::new(Mutex::new(begin(entry)));
                let socket = self.ledger.socket_of(entry.process.pid);
                let following = follow(socket, Arc::clone(&report), Arc::clone(&self.news));
                Followed { report, pod, task: tokio::spawn(following) }
            });
            let mut report = locked(&followed.report);
            (report.owner, report.cpus) = (entry.holding.owner.clone(), entry.holding.cpus.clone());
        }
        let there = |pod: &PodKey| pods.containers.iter().any(|c| (&c.namespace, &c.pod) == (&pod.0, &pod.1));
        let lives: BTreeSet<PodKey> = self.followed.values().map(|f| f.pod.clone()).collect();
        self.ended_pods.retain(|pod| there(pod) && !lives.contains(pod));
    }

    /// What it said last may say how it ended; else the pod's exit code does, which others read.
    fn end(&mut self, followed: &Followed) {
        let _ = self.ended_pods.insert(followed.pod.clone());
        let report = locked(&followed.report).clone();
        if matches!(report.phase, GuestPhase::Succeeded | GuestPhase::Failed) {
            self.ended.push_back((Instant::now(), report));
        }
        while self.ended.len() > MOST_ENDED {
            let _ = self.ended.pop_front();
        }
    }

    /// What is to be said of them now.
    pub(crate) fn reports(&mut self) -> Vec<GuestReport> {
        self.ended.retain(|(at, _)| at.elapsed() < KEPT_FOR);
        let live = self.followed.values().map(|f| locked(&f.report).clone());
        live.chain(self.ended.iter().map(|(_, report)| report.clone())).collect()
    }
}

fn locked(report: &Mutex<GuestReport>) -> MutexGuard<'_, GuestReport> {
    report.lock().unwrap_or_else(PoisonError::into_inner)
}

/// What is known of a guest before its launcher has said anything.
fn begin(entry: &LedgerEntry) -> GuestReport {
    GuestReport {
        pod_uid: entry.pod.as_ref().map(|pod| pod.uid.clone()).unwrap_or_default(),
        owner: entry.holding.owner.clone(),
        phase: GuestPhase::Starting,
        verdict: String::new(),
        mismatches: Vec::new(),
        cpus: entry.holding.cpus.clone(),
        message: None,
        since: entry.since,
    }
}

/// Asks a guest again and again.
async fn follow(socket: PathBuf, report: Arc<Mutex<GuestReport>>, news: Arc<Notify>) {
    loop {
        let socket = socket.clone();
        let asking =
            spawn_blocking(move || ask::<_, GuestStatus>(&socket, &GuestRequest::Status, ANSWER_WITHIN));
        if let Ok(Ok(status)) = asking.await
            && take(&mut locked(&report), &status)
        {
            news.notify_one();
        }
        let starts = locked(&report).phase == GuestPhase::Starting;
        sleep(if starts { STARTING_EACH } else { RUNNING_EACH }).await;
    }
}

/// Takes what a launcher says; whether it is news.
fn take(report: &mut GuestReport, status: &GuestStatus) -> bool {
    let phase = match status.phase.as_str() {
        "Running" if status.paused.is_some() => GuestPhase::Paused,
        "Running" => GuestPhase::Running,
        "Succeeded" => GuestPhase::Succeeded,
        "Failed" => GuestPhase::Failed,
        _ => GuestPhase::Starting,
    };
    let short = |text: &String, most: usize| text.chars().take(most).collect::<String>();
    let verdict = status.verdict.as_ref().map(|verdict| short(verdict, LONGEST_VERDICT)).unwrap_or_default();
    let (most, longest) = MISMATCHES;
    let mismatches: Vec<String> =
        status.mismatches.iter().take(most).map(|text| short(text, longest)).collect();
    let message =
        status.paused.as_ref().filter(|_| phase == GuestPhase::Paused).map(|why| short(why, longest));
    let now = (phase, verdict, mismatches, message);
    if now == (report.phase, report.verdict.clone(), report.mismatches.clone(), report.message.clone()) {
        return false;
    }
    if report.phase != phase {
        report.since = Timestamp::now();
    }
    (report.phase, report.verdict, report.mismatches, report.message) = now;
    true
}

#[cfg(test)]
mod tests {
    use super::*;

    fn report() -> GuestReport {
        GuestReport {
            pod_uid: "u".into(),
            owner: "lab/a".into(),
            phase: GuestPhase::Starting,
            verdict: String::new(),
            mismatches: Vec::new(),
            cpus: "2".parse().unwrap(),
            message: None,
            since: Timestamp::UNIX_EPOCH,
        }
    }

    #[test]
    fn what_a_launcher_says_is_news_once_and_bounded() {
        let mut report = report();
        let mut status = GuestStatus { phase: "Scheduled".into(), ..GuestStatus::default() };
        assert!(!take(&mut report, &status), "it starts, as was known");
        status.phase = "Running".into();
        status.verdict = Some("holds".into());
        assert!(take(&mut report, &status) && !take(&mut report, &status));
        assert_eq!((report.phase, report.verdict.as_str()), (GuestPhase::Running, "holds"));
        assert_ne!(report.since, Timestamp::UNIX_EPOCH);
        status.verdict = Some("drifted".repeat(100));
        status.mismatches = vec!["x".repeat(10_000); 100];
        let since = report.since;
        assert!(take(&mut report, &status));
        assert_eq!((report.verdict.len(), report.mismatches.len(), report.mismatches[0].len()), (32, 8, 300));
        assert_eq!(report.since, since, "the same phase");
        status.paused = Some("the user asked".into());
        assert!(take(&mut report, &status));
        assert_eq!((report.phase, report.message.as_deref()), (GuestPhase::Paused, Some("the user asked")));
        for (phase, is) in [("Succeeded", GuestPhase::Succeeded), ("Failed", GuestPhase::Failed)] {
            status.phase = phase.into();
            assert!(take(&mut report, &status));
            assert_eq!((report.phase, report.message.is_none()), (is, true));
        }
    }
}
