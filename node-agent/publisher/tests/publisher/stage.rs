//! A node that is played: a kubelet, a ledger, and guests whose launchers say what they are told to.

use std::fs;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::sync::{Arc, Mutex};
use std::thread;

use jiff::Timestamp;
use pinion_discovery::From;
use pinion_endpoint::guest::GuestStatus;
use pinion_endpoint::{Reply, bind, serve};
use pinion_machine::CpuSet;
use pinion_node_agent::{
    FACTS_FILE, Holder, HostWishes, Labels, Ledger, LedgerDocument, LedgerEntry, NodeFacts, PodPlace,
    PodSources,
};
use pinion_planner::{Holding, HoldingState};
use pinion_pod_resources::fake::FakeKubelet;
use tokio::runtime::Builder;
use tokio::task::LocalSet;

/// Four cores of two threads; the kubelet keeps the first for the system.
const MACHINE: &str = "pack:1 [numa(memory=4GB)] core:4 pu:2";

/// A played node: its pod `lab/db` has CPU 7 for itself, and its pod `lab/virt-launcher-a` CPUs 2-3.
#[derive(Debug)]
pub(crate) struct PlayedNode {
    folder: tempfile::TempDir,
    document: LedgerDocument,
}

/// A guest's process, and what its launcher says.
#[derive(Debug)]
pub(crate) struct PlayedGuest {
    process: Child,
    says: Arc<Mutex<GuestStatus>>,
}

impl PlayedNode {
    pub(crate) fn new() -> Self {
        let folder = tempfile::tempdir().unwrap();
        let at = |name: &str| folder.path().join(name);
        fs::create_dir_all(at("kubelet/pod-resources")).unwrap();
        fs::create_dir_all(at("run/guests")).unwrap();
        fs::write(at("kubelet/cpu_manager_state"), r#"{"policyName": "static"}"#).unwrap();
        fs::write(at("kvm"), "").unwrap();
        let kubelet = FakeKubelet::new(&[2, 3, 4, 5, 6, 7]).pod("lab", "db", &[7], &[]).pod(
            "lab",
            "virt-launcher-a",
            &[2, 3],
            &[("pinion.dev/agent", "agent-0")],
        );
        kubelet.serve(&at("kubelet/pod-resources/kubelet.sock")).unwrap();
        Self { folder, document: LedgerDocument::default() }
    }

    pub(crate) fn path(&self, name: &str) -> PathBuf {
        self.folder.path().join(name)
    }

    pub(crate) fn ledger(&self) -> Ledger {
        Ledger::at(self.path("run/ledger.json"))
    }

    pub(crate) fn pods(&self) -> PodSources {
        PodSources {
            machine: From::Synthetic(MACHINE.into()),
            kubelet: self.path("kubelet/pod-resources/kubelet.sock"),
            ..PodSources::default()
        }
    }

    /// The guest `lab/NAME` of the pod `lab/virt-launcher-NAME` gets its place.
    pub(crate) fn guest(&mut self, name: &str, cpus: &str) -> PlayedGuest {
        let process = Command::new("cat").stdin(Stdio::piped()).stdout(Stdio::null()).spawn().unwrap();
        let pid = i32::try_from(process.id()).unwrap();
        let guest = PlayedGuest { process, says: Arc::default() };
        guest.serve(&self.ledger().socket_of(pid));
        let pod = PodPlace {
            namespace: "lab".into(),
            name: format!("virt-launcher-{name}"),
            uid: format!("uid-{name}"),
            pod_group: "pod".into(),
            group: "pod/container".into(),
            housekeeping: CpuSet::new(),
        };
        let holding = Holding {
            owner: format!("lab/{name}"),
            state: HoldingState::Committed,
            cpus: cpus.parse().unwrap(),
            floating: Vec::new(),
            memory: Vec::new(),
            devices: Vec::new(),
        };
        let entry = LedgerEntry {
            holding,
            host: HostWishes::default(),
            pod: Some(pod),
            process: Holder::of(pid).unwrap(),
            since: Timestamp::now(),
        };
        self.document.holdings.push(entry);
        self.count();
        guest
    }

    /// The ledger counts up.
    pub(crate) fn count(&mut self) {
        self.document.generation += 1;
        replace(self.ledger().path(), &serde_json::to_string(&self.document).unwrap());
    }

    pub(crate) fn facts(&self, labels: &[(&str, &str)]) {
        let labels: Labels = labels.iter().map(|(k, v)| ((*k).to_owned(), (*v).to_owned())).collect();
        let facts = NodeFacts { labels, ..NodeFacts::default() };
        replace(&self.path("run").join(FACTS_FILE), &serde_json::to_string(&facts).unwrap());
    }
}

fn replace(path: &Path, text: &str) {
    let draft = path.with_extension("draft");
    fs::write(&draft, text).unwrap();
    fs::rename(&draft, path).unwrap();
}

impl PlayedGuest {
    fn serve(&self, socket: &Path) {
        let listener = bind(socket, 0o600).unwrap();
        let says = Arc::clone(&self.says);
        // It serves until the test's process ends.
        drop(thread::spawn(move || {
            let runtime = Builder::new_current_thread().enable_all().build().unwrap();
            LocalSet::new().block_on(&runtime, async {
                let _ = serve(listener, move |caller| {
                    let status = says.lock().unwrap().clone();
                    async move { caller.reply(&Reply::Done(status)).await }
                })
                .await;
            });
        }));
    }

    pub(crate) fn says(&self, phase: &str, verdict: &str) {
        let mut says = self.says.lock().unwrap();
        says.phase = phase.into();
        says.verdict = Some(verdict.to_owned()).filter(|verdict| !verdict.is_empty());
    }

    pub(crate) fn end(mut self) {
        self.process.kill().unwrap();
        let _ = self.process.wait().unwrap();
    }
}
