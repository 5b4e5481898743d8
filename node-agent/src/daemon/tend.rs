//! What the desk does besides requests: the profile, the last qualification, and the node's facts.
//!
//! On the desk's thread. A file that cannot be understood changes nothing, and is told once.

use std::collections::BTreeMap;
use std::fs;
use std::io::Read;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::SystemTime;

use pinion_discovery::{From, discover};
use pinion_machine::Machine;

use super::gather::node_name;
use crate::facts::{FACTS_FILE, Labels, NodeFacts, Sources, cpu_labels};
use crate::ledger::{Ledger, LedgerDocument};
use crate::partition::Isolation;
use crate::profile::{MAX_PROFILE_BYTES, NodeProfile};
use crate::qualification::{Fingerprint, Qualification};
use crate::settings::Keeper;

/// Files that are read when they change, and what they said.
#[derive(Debug)]
pub(super) struct Tended {
    /// The node's own file, and the cluster's: the first that there is counts.
    profile_paths: [PathBuf; 2],
    profile: NodeProfile,
    profile_seen: Option<(PathBuf, SystemTime)>,
    /// What stands in the way of the profile, as it was told.
    pub(super) obstacles: Vec<String>,
    qualification_path: PathBuf,
    qualification_seen: Option<SystemTime>,
    /// The last measurement, as long as it holds.
    pub(super) qualification: Option<Arc<Qualification>>,
    machine: Option<Arc<Machine>>,
    cpu_labels: Option<Labels>,
    facts: NodeFacts,
}

impl Tended {
    pub(super) fn new(profiles: [PathBuf; 2], qualification: PathBuf) -> Self {
        Self {
            profile_paths: profiles,
            profile: NodeProfile::default(),
            profile_seen: None,
            obstacles: Vec::new(),
            qualification_path: qualification,
            qualification_seen: None,
            qualification: None,
            machine: None,
            cpu_labels: None,
            facts: NodeFacts::default(),
        }
    }

    /// The machine is another: it is read anew.
    pub(super) fn forget_machine(&mut self) {
        self.machine = None;
    }

    fn machine(&mut self) -> Option<Arc<Machine>> {
        if self.machine.is_none() {
            self.machine = discover(&From::Host).ok().map(Arc::new);
        }
        self.machine.clone()
    }

    /// The profile's name.
    pub(super) fn profile_name(&self) -> &str {
        &self.profile.name
    }

    /// Reads the profile where it has changed, and applies what can be applied. What is told is new.
    ///
    /// Safe at any time: switches, and huge pages, which only grow while guests use them. CPUs change their role as
    /// soon as no guest has them.
    pub(super) fn apply_profile(&mut self, ledger: &Ledger, keeper: &mut Keeper) -> Vec<String> {
        let seen = self.profile_paths.iter().find_map(|path| Some((path.clone(), modified(path)?)));
        let changed = seen != self.profile_seen;
        let before = std::mem::take(&mut self.obstacles);
        let path =
            seen.as_ref().or(self.profile_seen.as_ref()).map_or_else(PathBuf::new, |(path, _)| path.clone());
        if changed {
            self.profile_seen = seen;
            match read_profile(&path) {
                Ok(profile) => self.profile = profile,
                Err(problems) => {
                    self.obstacles = problems;
                    return self.obstacles.clone();
                }
            }
        } else if before.is_empty() {
            return Vec::new();
        }
        let (Some(machine), Ok(document)) = (self.machine(), ledger.read()) else { return Vec::new() };
        keeper.allow(self.profile.knobs.clone());
        let kept = |p: &crate::profile::KeptPages| ((p.node, p.size_kib), p.count);
        keeper.keep_pages(self.profile.huge_pages.iter().map(kept).collect::<BTreeMap<_, _>>());
        let obstacles = self.profile.obstacles(&machine, &document);
        self.obstacles = obstacles.iter().map(|o| format!("{}: {o}", path.display())).collect();
        if obstacles.is_empty()
            && let reserved = self.profile.reserved(&machine).unwrap_or_default()
            && reserved != document.housekeeping
            && let Err(e) = ledger.set_housekeeping(reserved)
        {
            self.obstacles.push(pinion_endpoint::chain(&e));
        }
        self.obstacles.iter().filter(|o| !before.contains(o)).cloned().collect()
    }

    /// Reads the last measurement where it has changed; one of another kernel or command line has expired.
    pub(super) fn read_qualification(&mut self) -> Option<String> {
        let seen = modified(&self.qualification_path);
        if seen == self.qualification_seen {
            return None;
        }
        self.qualification_seen = seen;
        self.qualification = None;
        match Qualification::read(&self.qualification_path) {
            Ok(None) => None,
            Ok(Some(read)) => {
                let now = Fingerprint::of(Path::new("/"), &read.fingerprint.profile);
                let differences = read.fingerprint.differences(&now);
                if differences.is_empty() {
                    self.qualification = Some(Arc::new(read));
                    return None;
                }
                Some(format!(
                    "the last qualification has expired: another {}",
                    differences.join(", another ")
                ))
            }
            Err(e) => Some(pinion_endpoint::chain(&e)),
        }
    }

    /// Writes the node's facts where they have changed.
    pub(super) fn write_facts(&mut self, ledger: &Ledger, keeper: &Keeper, document: &LedgerDocument) {
        let Some(machine) = self.machine() else { return };
        let cpu_labels = self.cpu_labels.get_or_insert_with(|| cpu_labels(Path::new("/")));
        let occupancy = document.occupancy().with_housekeeping(&machine);
        let isolation = if keeper.can_isolate() { Isolation::Isolated } else { Isolation::Pinned };
        let class = self.qualification.as_ref().and_then(|q| q.latency_class.clone());
        let sources = Sources {
            machine: &machine,
            occupancy: &occupancy,
            isolation,
            latency_class: class.as_deref(),
            cpu_labels,
            root: Path::new("/"),
        };
        // Planning the largest guest is the dear part; nothing but the ledger changes what it finds.
        let is_same = self.facts.generation == occupancy.generation && !self.facts.labels.is_empty();
        let facts = NodeFacts::of(&node_name(), sources, is_same.then_some(self.facts.largest_guest_vcpus));
        if facts != self.facts && facts.write(&ledger.path().with_file_name(FACTS_FILE)).is_ok() {
            self.facts = facts;
        }
    }
}

fn modified(path: &Path) -> Option<SystemTime> {
    fs::metadata(path).and_then(|m| m.modified()).ok()
}

/// A missing profile is the default one.
fn read_profile(path: &Path) -> Result<NodeProfile, Vec<String>> {
    let named = |problem: String| format!("{}: {problem}; the profile before it stays", path.display());
    let mut text = String::new();
    match fs::File::open(path) {
        Err(e) if e.kind() == std::io::ErrorKind::NotFound => return Ok(NodeProfile::default()),
        Err(e) => return Err(vec![named(e.to_string())]),
        Ok(file) => {
            file.take(MAX_PROFILE_BYTES).read_to_string(&mut text).map_err(|e| vec![named(e.to_string())])?
        }
    };
    NodeProfile::parse(&text).map_err(|problems| problems.iter().map(|p| named(p.to_string())).collect())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_wrong_profile_is_told_once_and_the_one_before_stays() {
        let folder = tempfile::tempdir().unwrap();
        let (path, ledger) = (folder.path().join("p.yaml"), Ledger::at(folder.path().join("ledger.json")));
        let mut keeper = Keeper::new(&ledger);
        let mut tended =
            Tended::new([path.clone(), folder.path().join("c.json")], folder.path().join("q.json"));
        let mut apply = |tended: &mut Tended| tended.apply_profile(&ledger, &mut keeper);
        assert!(apply(&mut tended).is_empty());
        let good = "apiVersion: pinion.dev/v1alpha1\nkind: NodeProfile\nmetadata: {name: p}\nspec: {housekeeping: 0}\n";
        fs::write(&path, good).unwrap();
        assert!(apply(&mut tended).is_empty());
        assert_eq!(ledger.read().unwrap().housekeeping, "0".parse().unwrap());
        let later = SystemTime::now() + std::time::Duration::from_secs(5);
        fs::write(&path, "kind: Pod").unwrap();
        fs::File::options().write(true).open(&path).unwrap().set_modified(later).unwrap();
        assert_eq!(apply(&mut tended).len(), 1);
        assert_eq!(tended.profile_name(), "p");
        assert!(apply(&mut tended).is_empty(), "told already");
        assert_eq!(ledger.read().unwrap().housekeeping, "0".parse().unwrap());
    }

    #[test]
    fn the_clusters_profile_counts_where_the_node_has_no_file() {
        let folder = tempfile::tempdir().unwrap();
        let paths = ["own.yaml", "cluster.json"].map(|name| folder.path().join(name));
        let ledger = Ledger::at(folder.path().join("ledger.json"));
        let mut keeper = Keeper::new(&ledger);
        let mut tended = Tended::new(paths.clone(), folder.path().join("q.json"));
        let mut name = |tended: &mut Tended| {
            let _ = tended.apply_profile(&ledger, &mut keeper);
            tended.profile_name().to_owned()
        };
        let of = |name: &str| {
            format!(
                "apiVersion: pinion.dev/v1alpha1\nkind: NodeProfile\nmetadata: {{name: {name}}}\nspec: {{knobs: []}}\n"
            )
        };
        assert_eq!(name(&mut tended), "default");
        fs::write(&paths[1], of("cluster")).unwrap();
        assert_eq!(name(&mut tended), "cluster");
        fs::write(&paths[0], of("own")).unwrap();
        assert_eq!(name(&mut tended), "own");
        fs::remove_file(&paths[0]).unwrap();
        assert_eq!(name(&mut tended), "cluster");
        fs::remove_file(&paths[1]).unwrap();
        assert_eq!(name(&mut tended), "default");
    }
}
