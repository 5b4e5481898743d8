//! What a node is for: which CPUs may be dedicated, which huge pages are kept, which switches may be changed.
//!
//! A file on one host; later an object of the cluster. Pure: it is given the text. What is wrong with it is told whole.

use std::collections::BTreeSet;

use pinion_api::plain_yaml;
use pinion_machine::{CpuSet, Machine, NodeId};
use serde::Deserialize;

use crate::ledger::LedgerDocument;
use crate::settings::Knob;

/// Where the profile is unless another file is named.
pub const DEFAULT_PROFILE_PATH: &str = "/etc/pinion/profile.yaml";
/// Longest profile that is read, bytes.
pub const MAX_PROFILE_BYTES: u64 = 1 << 20;

const API_VERSION: &str = "pinion.dev/v1alpha1";
const KIND: &str = "NodeProfile";

/// What a node is for.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct NodeProfile {
    /// Its name.
    pub name: String,
    /// CPUs that are never dedicated; the default where absent.
    pub housekeeping: Option<CpuSet>,
    /// CPUs that may be dedicated; all others where absent.
    pub dedicated: Option<CpuSet>,
    /// Huge pages that there are at least.
    pub huge_pages: Vec<KeptPages>,
    /// Switches of the kernel that may be changed.
    pub knobs: BTreeSet<Knob>,
}

/// Huge pages that are kept on a node.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct KeptPages {
    /// The node.
    pub node: NodeId,
    /// Their size, KiB.
    pub size_kib: u64,
    /// How many.
    pub count: u64,
}

/// Something that is wrong with a profile, or cannot be done now.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum ProfileProblem {
    /// It is no YAML, or has fields that are not known.
    #[error("{0}")]
    Malformed(String),
    /// It is of another kind or version.
    #[error("It must say apiVersion: {API_VERSION} and kind: {KIND}")]
    Kind,
    /// One field is wrong.
    #[error("{path}: {message}")]
    Field {
        /// Its path.
        path: String,
        /// What is wrong with it.
        message: String,
    },
}

#[derive(Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
struct File {
    api_version: String,
    kind: String,
    #[serde(default)]
    metadata: Metadata,
    #[serde(default)]
    spec: Spec,
}

#[derive(Default, Deserialize)]
#[serde(deny_unknown_fields)]
struct Metadata {
    #[serde(default)]
    name: String,
}

#[derive(Default, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
struct Spec {
    #[serde(default)]
    housekeeping: Option<serde_json::Value>,
    #[serde(default)]
    dedicated: Option<serde_json::Value>,
    #[serde(default)]
    huge_pages: Vec<Pages>,
    #[serde(default)]
    knobs: Option<Vec<String>>,
}

#[derive(Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
struct Pages {
    node: u32,
    page_size: String,
    count: u64,
}

impl Default for NodeProfile {
    fn default() -> Self {
        Self {
            name: "default".to_owned(),
            housekeeping: None,
            dedicated: None,
            huge_pages: Vec::new(),
            knobs: Knob::ALL.into(),
        }
    }
}

impl NodeProfile {
    /// Reads a profile.
    ///
    /// # Errors
    /// All that is wrong with it.
    pub fn parse(text: &str) -> Result<Self, Vec<ProfileProblem>> {
        let malformed = |message: String| vec![ProfileProblem::Malformed(message)];
        let value = plain_yaml(text).map_err(|problems| malformed(problems.to_string().trim().to_owned()))?;
        let file: File = serde_json::from_value(value).map_err(|e| malformed(e.to_string()))?;
        if file.api_version != API_VERSION || file.kind != KIND {
            return Err(vec![ProfileProblem::Kind]);
        }
        let mut problems = Vec::new();
        let housekeeping = cpus("spec.housekeeping", file.spec.housekeeping, &mut problems);
        let dedicated = cpus("spec.dedicated", file.spec.dedicated, &mut problems);
        if let (Some(housekeeping), Some(dedicated)) = (&housekeeping, &dedicated) {
            let both = housekeeping.intersection(dedicated);
            if !both.is_empty() {
                wrong(&mut problems, "spec.dedicated", format!("CPUs {both} are housekeeping too"));
            }
        }
        let pages = (0..).zip(&file.spec.huge_pages);
        let huge_pages = pages.filter_map(|(i, raw): (u32, _)| kept(i, raw, &mut problems)).collect();
        let knobs = file.spec.knobs.map_or_else(|| Knob::ALL.into(), |names| knobs(&names, &mut problems));
        let name = if file.metadata.name.is_empty() { "profile".to_owned() } else { file.metadata.name };
        if problems.is_empty() {
            Ok(Self { name, housekeeping, dedicated, huge_pages, knobs })
        } else {
            Err(problems)
        }
    }

    /// CPUs that are never dedicated on a machine; `None` where the profile does not say.
    #[must_use]
    pub fn reserved(&self, machine: &Machine) -> Option<CpuSet> {
        match (&self.housekeeping, &self.dedicated) {
            (_, Some(dedicated)) => Some(machine.online().difference(dedicated)),
            (Some(housekeeping), None) => Some(housekeeping.clone()),
            (None, None) => None,
        }
    }

    /// What of it cannot be had on this machine, or not while these guests run.
    #[must_use]
    pub fn obstacles(&self, machine: &Machine, ledger: &LedgerDocument) -> Vec<ProfileProblem> {
        let mut problems = Vec::new();
        let online = machine.online();
        for (path, given) in [("spec.housekeeping", &self.housekeeping), ("spec.dedicated", &self.dedicated)]
        {
            let absent = given.as_ref().map(|g| g.difference(&online)).unwrap_or_default();
            if !absent.is_empty() {
                wrong(&mut problems, path, format!("CPUs {absent} are not online: there are {online}"));
            }
        }
        let reserved = self.reserved(machine);
        if reserved.as_ref().is_some_and(CpuSet::is_empty) {
            wrong(&mut problems, "spec.dedicated", "no CPU is left for the host".to_owned());
        }
        for entry in &ledger.holdings {
            let taken = reserved.as_ref().map(|r| r.intersection(&entry.holding.cpus)).unwrap_or_default();
            if !taken.is_empty() {
                let message = format!("CPUs {taken} are dedicated to {} until it ends", entry.holding.owner);
                wrong(&mut problems, "spec.dedicated", message);
            }
        }
        for (index, pages) in self.huge_pages.iter().enumerate() {
            let node = machine.node(pages.node);
            let known = node
                .is_some_and(|n| n.huge_pages.iter().any(|p| p.page_size.bytes() >> 10 == pages.size_kib));
            if !known {
                let message = format!("node {} has no huge pages of {} KiB", pages.node, pages.size_kib);
                wrong(&mut problems, &format!("spec.hugePages[{index}]"), message);
            }
        }
        problems
    }
}

fn wrong(problems: &mut Vec<ProfileProblem>, path: &str, message: String) {
    problems.push(ProfileProblem::Field { path: path.to_owned(), message });
}

/// A list as `0-1,8`; a single CPU is a number in YAML.
fn cpus(path: &str, value: Option<serde_json::Value>, problems: &mut Vec<ProfileProblem>) -> Option<CpuSet> {
    let text = match value? {
        serde_json::Value::Null => return None,
        serde_json::Value::String(text) => text,
        other => other.to_string(),
    };
    match text.parse::<CpuSet>() {
        Ok(cpus) if !cpus.is_empty() => Some(cpus),
        _ => {
            wrong(problems, path, format!("{text:?} is no list of CPUs such as 0-1,8"));
            None
        }
    }
}

fn kept(index: u32, raw: &Pages, problems: &mut Vec<ProfileProblem>) -> Option<KeptPages> {
    let size_kib = match raw.page_size.as_str() {
        "2Mi" => 2 << 10,
        "1Gi" => 1 << 20,
        other => {
            wrong(
                problems,
                &format!("spec.hugePages[{index}].pageSize"),
                format!("{other:?} is neither 2Mi nor 1Gi"),
            );
            return None;
        }
    };
    Some(KeptPages { node: NodeId(raw.node), size_kib, count: raw.count })
}

fn knobs(names: &[String], problems: &mut Vec<ProfileProblem>) -> BTreeSet<Knob> {
    let mut found = BTreeSet::new();
    for (index, name) in names.iter().enumerate() {
        match serde_json::from_value(serde_json::Value::String(name.clone())) {
            Ok(knob) => drop(found.insert(knob)),
            Err(_) => {
                let known: Vec<String> = Knob::ALL.iter().map(|k| k.id()).collect();
                let message = format!("{name:?} is no switch: there are {}", known.join(", "));
                wrong(problems, &format!("spec.knobs[{index}]"), message);
            }
        }
    }
    found
}

#[cfg(test)]
mod tests {
    use jiff::Timestamp;
    use pinion_planner::{Holding, HoldingState, Shape};

    use super::*;
    use crate::ledger::{Holder, LedgerEntry};
    use crate::settings::HostWishes;

    const GOOD: &str = "apiVersion: pinion.dev/v1alpha1\nkind: NodeProfile\nmetadata: {name: realtime}\nspec:\n  \
        dedicated: 2-7\n  hugePages: [{node: 0, pageSize: 2Mi, count: 64}]\n  knobs: [statInterval, numaBalancing]\n";

    #[test]
    fn a_profile_says_what_may_be_dedicated() {
        let profile = NodeProfile::parse(GOOD).unwrap();
        let machine = Shape::new(2, 4).build();
        assert_eq!(profile.reserved(&machine), Some("0-1".parse().unwrap()));
        assert_eq!(profile.knobs.len(), 2);
        assert_eq!(profile.huge_pages, [KeptPages { node: NodeId(0), size_kib: 2048, count: 64 }]);
    }

    #[test]
    fn all_that_is_wrong_is_told_with_its_path() {
        let text = "apiVersion: pinion.dev/v1alpha1\nkind: NodeProfile\nspec:\n  housekeeping: 3-1\n  dedicated: \
            many\n  hugePages: [{node: 0, pageSize: 3Mi, count: 1}]\n  knobs: [swappiness]\n";
        let told: Vec<String> =
            NodeProfile::parse(text).unwrap_err().iter().map(ToString::to_string).collect();
        for path in ["spec.housekeeping", "spec.dedicated", "spec.hugePages[0].pageSize", "spec.knobs[0]"] {
            assert!(told.iter().any(|t| t.starts_with(path)), "{path}: {told:?}");
        }
        for text in ["kind: Pod", "{", "apiVersion: pinion.dev/v1alpha1\nkind: NodeProfile\ncolour: red"] {
            assert!(NodeProfile::parse(text).is_err(), "{text}");
        }
    }

    #[test]
    fn what_a_guest_holds_stays_dedicated() {
        let profile = NodeProfile { dedicated: Some("4-7".parse().unwrap()), ..NodeProfile::default() };
        let holding = Holding {
            owner: "default/a".into(),
            state: HoldingState::Committed,
            cpus: "2-5".parse().unwrap(),
            floating: vec![],
            memory: vec![],
            devices: vec![],
        };
        let entry = LedgerEntry {
            holding,
            host: HostWishes::default(),
            process: Holder::current().unwrap(),
            since: Timestamp::UNIX_EPOCH,
        };
        let ledger = LedgerDocument { holdings: vec![entry], ..LedgerDocument::default() };
        let told = profile.obstacles(&Shape::new(2, 4).build(), &ledger);
        assert_eq!(told.len(), 1);
        assert!(
            told[0].to_string().contains("CPUs 2-3 are dedicated to default/a until it ends"),
            "{told:?}"
        );
        let elsewhere = NodeProfile { dedicated: Some("0-9".parse().unwrap()), ..NodeProfile::default() };
        let told = elsewhere.obstacles(&Shape::new(2, 4).build(), &LedgerDocument::default());
        assert_eq!(told.len(), 2, "not online, and none left: {told:?}");
    }
}
