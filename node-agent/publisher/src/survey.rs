//! Looks at the node: the ledger's file, the machine, the kubelet.
//!
//! On a thread that may wait. It only reads. What cannot be read now stays as it was seen last, and is told among the
//! obstacles.

use std::fs;
use std::io::Read;
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use pinion_discovery::{From, discover, refresh_memory};
use pinion_endpoint::chain;
use pinion_machine::Machine;
use pinion_node_agent::{FACTS_FILE, Labels, Ledger, LedgerDocument, NodeFacts, PodSources};
use pinion_pod_resources::{Pods, pods};
use serde_json::Value;

use crate::seen::Seen;

/// How often the kubelet is asked while nothing else changes.
pub(crate) const KUBELET_EACH: Duration = Duration::from_secs(2);
/// How long it may take.
const KUBELET_WITHIN: Duration = Duration::from_secs(5);
/// How often memory is looked at while nothing else changes.
const MEMORY_EACH: Duration = Duration::from_secs(10);
/// How often the whole machine is.
const MACHINE_EACH: Duration = Duration::from_secs(60);
/// The kubelet's state of its CPU manager, and the node's facts, are shorter.
const LONGEST: u64 = 1 << 20;

/// Where a node is looked at.
#[derive(Clone, Debug)]
pub struct Sources {
    /// The agent's ledger; the node's facts are beside it.
    pub ledger: Ledger,
    /// The machine.
    pub machine: From,
    /// Where the kubelet tells what containers have.
    pub kubelet: PathBuf,
    /// Where the kubelet keeps the state of its CPU manager.
    pub cpu_manager: PathBuf,
    /// KVM.
    pub kvm: PathBuf,
}

impl Sources {
    /// Where an agent looks.
    #[must_use]
    pub fn of(ledger: &Ledger, pods: &PodSources) -> Self {
        let kubelet = pods.kubelet.parent().and_then(Path::parent).unwrap_or(Path::new("/var/lib/kubelet"));
        Self {
            ledger: ledger.clone(),
            machine: pods.machine.clone(),
            kubelet: pods.kubelet.clone(),
            cpu_manager: kubelet.join("cpu_manager_state"),
            kvm: "/dev/kvm".into(),
        }
    }

    /// The node's labels, as the agent has written them last.
    pub(crate) fn labels(&self) -> Option<Labels> {
        let facts = fs::File::open(self.ledger.path().with_file_name(FACTS_FILE)).ok()?;
        let facts: NodeFacts = serde_json::from_reader(facts.take(LONGEST)).ok()?;
        Some(facts.labels)
    }
}

/// Looks at a node again and again.
#[derive(Debug)]
pub(crate) struct Survey {
    sources: Sources,
    machine: Option<Machine>,
    machine_read: Option<Instant>,
    memory_read: Option<Instant>,
    pods: Pods,
    kubelet_asked: Option<Instant>,
    kubelet_obstacle: Option<String>,
    document: LedgerDocument,
}

impl Survey {
    pub(crate) fn new(sources: Sources) -> Self {
        Self {
            sources,
            machine: None,
            machine_read: None,
            memory_read: None,
            pods: Pods::default(),
            kubelet_asked: None,
            kubelet_obstacle: None,
            document: LedgerDocument::default(),
        }
    }

    /// Looks.
    ///
    /// The ledger comes first, and memory after it: pages that a guest has populated are then missing from what is free before
    /// its entry says so, and never the other way round.
    pub(crate) fn look(&mut self) -> Seen {
        let mut obstacles = Vec::new();
        let mut changed = false;
        match self.sources.ledger.read() {
            Ok(document) => {
                let of = |d: &LedgerDocument| (d.generation, d.holdings.clone(), d.housekeeping.clone());
                changed = of(&document) != of(&self.document);
                self.document = document;
            }
            Err(error) => obstacles.push(format!("the agent's ledger cannot be read: {}", chain(&error))),
        }
        obstacles.extend(self.look_at_machine(changed));
        if changed || is_due(self.kubelet_asked, KUBELET_EACH) {
            self.ask_kubelet();
        }
        obstacles.extend(self.kubelet_obstacle.clone());
        obstacles.extend(self.host_obstacles());
        Seen {
            machine: self.machine.clone(),
            document: self.document.clone(),
            pods: self.pods.clone(),
            obstacles,
        }
    }

    fn look_at_machine(&mut self, changed: bool) -> Option<String> {
        let now = Some(Instant::now());
        let from = &self.sources.machine;
        let outcome = match &mut self.machine {
            Some(machine) if !is_due(self.machine_read, MACHINE_EACH) => {
                if !changed && !is_due(self.memory_read, MEMORY_EACH) {
                    return None;
                }
                self.memory_read = now;
                refresh_memory(from, machine)
            }
            kept => discover(from).map(|machine| {
                *kept = Some(machine);
                (self.machine_read, self.memory_read) = (now, now);
            }),
        };
        outcome.err().map(|error| format!("the machine cannot be read: {}", chain(&error)))
    }

    fn ask_kubelet(&mut self) {
        self.kubelet_asked = Some(Instant::now());
        match pods(&self.sources.kubelet, KUBELET_WITHIN) {
            Ok(pods) => (self.pods, self.kubelet_obstacle) = (pods, None),
            Err(error) => self.kubelet_obstacle = Some(chain(&error)),
        }
    }

    fn host_obstacles(&self) -> Vec<String> {
        let mut obstacles = Vec::new();
        if !self.sources.kvm.exists() {
            obstacles.push(format!(
                "{} is not there: enable virtualization in the firmware setup, and load kvm_intel or kvm_amd",
                self.sources.kvm.display()
            ));
        }
        if let Some(policy) = cpu_policy(&self.sources.cpu_manager).filter(|policy| policy != "static") {
            obstacles.push(format!(
                "the kubelet's CPU manager has the policy {policy:?}, so that no container has CPUs of its own: set \
                 cpuManagerPolicy: static in the kubelet's configuration"
            ));
        }
        obstacles
    }
}

fn is_due(last: Option<Instant>, each: Duration) -> bool {
    last.is_none_or(|last| last.elapsed() >= each)
}

/// The policy of the kubelet's CPU manager, where its state says it.
fn cpu_policy(state: &Path) -> Option<String> {
    let file = fs::File::open(state).ok()?;
    let state: Value = serde_json::from_reader(file.take(LONGEST)).ok()?;
    state.get("policyName")?.as_str().map(|policy| policy.chars().take(40).collect())
}

#[cfg(test)]
mod tests {
    use pinion_pod_resources::fake::FakeKubelet;

    use super::*;

    fn sources(folder: &Path) -> Sources {
        let pods = PodSources {
            machine: From::Synthetic("pack:1 [numa(memory=4GB)] core:4 pu:2".into()),
            kubelet: folder.join("pod-resources/kubelet.sock"),
            ..PodSources::default()
        };
        let sources = Sources::of(&Ledger::at(folder.join("ledger.json")), &pods);
        Sources { kvm: folder.join("kvm"), ..sources }
    }

    #[test]
    fn what_keeps_guests_from_starting_is_said_and_goes() {
        let folder = tempfile::tempdir().unwrap();
        fs::create_dir(folder.path().join("pod-resources")).unwrap();
        fs::write(folder.path().join("cpu_manager_state"), r#"{"policyName": "none"}"#).unwrap();
        let mut survey = Survey::new(sources(folder.path()));
        let said = survey.look().obstacles;
        assert_eq!(said.len(), 3, "{said:#?}");
        assert!(said[0].contains("Cannot reach the kubelet at"), "{said:#?}");
        assert!(said[1].contains("/kvm is not there: enable"), "{said:#?}");
        assert!(said[2].contains("\"none\"") && said[2].contains("cpuManagerPolicy: static"), "{said:#?}");
        fs::write(folder.path().join("cpu_manager_state"), r#"{"policyName": "static"}"#).unwrap();
        fs::write(folder.path().join("kvm"), "").unwrap();
        let kubelet = FakeKubelet::new(&[2, 3]).pod("lab", "db", &[2], &[]);
        kubelet.serve(&folder.path().join("pod-resources/kubelet.sock")).unwrap();
        survey.kubelet_asked = None;
        let seen = survey.look();
        assert_eq!(seen.obstacles, Vec::<String>::new());
        assert_eq!((seen.pods.containers.len(), seen.machine.unwrap().cores.len()), (1, 4));
    }

    #[test]
    fn a_damaged_ledger_is_told_and_what_was_known_stays() {
        let folder = tempfile::tempdir().unwrap();
        let sources = sources(folder.path());
        sources.ledger.set_housekeeping("0-1".parse().unwrap()).unwrap();
        let mut survey = Survey::new(sources);
        assert_eq!(survey.look().document.generation, 1);
        fs::write(folder.path().join("ledger.json"), "{").unwrap();
        let seen = survey.look();
        assert_eq!(seen.document.generation, 1);
        assert!(seen.obstacles[0].starts_with("the agent's ledger cannot be read: "), "{:?}", seen.obstacles);
    }
}
