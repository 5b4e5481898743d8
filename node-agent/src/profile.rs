//! What a node is for: which CPUs may be dedicated, which huge pages are kept, which switches may be changed.
//!
//! A file on one host; later an object of the cluster. Pure: it is given the text. What is wrong with it is told whole.

use std::collections::BTreeSet;

use pinion_api::{FieldPath, FieldProblem, PlainDocument, PlainFields, PlainReading};
use pinion_machine::{CpuSet, Machine, NodeId};
use serde_json::Value;

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
    #[error(transparent)]
    Field(FieldProblem),
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
        let document = PlainDocument::read(text)
            .map_err(|problems| malformed(problems.to_string().trim().to_owned()))?;
        let value = document.value();
        if PlainReading::is_of_another(&value, API_VERSION, KIND) {
            return Err(vec![ProfileProblem::Kind]);
        }
        let mut reading = PlainReading::new(&document);
        let profile = file(&mut reading, &value).unwrap_or_default();
        reading.finish(profile).map_err(|problems| problems.into_iter().map(ProfileProblem::Field).collect())
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
        for (field, given) in [("housekeeping", &self.housekeeping), ("dedicated", &self.dedicated)] {
            let absent = given.as_ref().map(|g| g.difference(&online)).unwrap_or_default();
            if !absent.is_empty() {
                wrong(
                    &mut problems,
                    &of_spec(field),
                    format!("CPUs {absent} are not online: there are {online}"),
                );
            }
        }
        let reserved = self.reserved(machine);
        if reserved.as_ref().is_some_and(CpuSet::is_empty) {
            wrong(&mut problems, &of_spec("dedicated"), "no CPU is left for the host".to_owned());
        }
        for entry in &ledger.holdings {
            let taken = reserved.as_ref().map(|r| r.intersection(&entry.holding.cpus)).unwrap_or_default();
            if !taken.is_empty() {
                let message = format!("CPUs {taken} are dedicated to {} until it ends", entry.holding.owner);
                wrong(&mut problems, &of_spec("dedicated"), message);
            }
        }
        for (index, pages) in self.huge_pages.iter().enumerate() {
            let node = machine.node(pages.node);
            let known = node
                .is_some_and(|n| n.huge_pages.iter().any(|p| p.page_size.bytes() >> 10 == pages.size_kib));
            if !known {
                let message = format!("node {} has no huge pages of {} KiB", pages.node, pages.size_kib);
                wrong(&mut problems, &of_spec("hugePages").index(index), message);
            }
        }
        problems
    }
}

fn wrong(problems: &mut Vec<ProfileProblem>, path: &FieldPath, message: String) {
    let problem = FieldProblem { path: path.clone(), position: None, message };
    problems.push(ProfileProblem::Field(problem));
}

/// The path of a field of the spec.
fn of_spec(field: &str) -> FieldPath {
    FieldPath::root().field("spec").field(field)
}

fn file(reading: &mut PlainReading<'_>, value: &Value) -> Option<NodeProfile> {
    let root = FieldPath::root();
    let file = reading.object(value, &root)?;
    for name in ["apiVersion", "kind"] {
        reading.words(file, &root, name);
    }
    reading.known(file, &root, &["apiVersion", "kind", "metadata", "spec"]);
    let mut profile = NodeProfile { name: "profile".to_owned(), ..NodeProfile::default() };
    if let Some(metadata) = file.get("metadata").filter(|value| !value.is_null()) {
        let path = root.field("metadata");
        let metadata = reading.object(metadata, &path)?;
        reading.known(metadata, &path, &["name"]);
        let name = reading.field(metadata, &path, "name", PlainReading::text).filter(|name| !name.is_empty());
        profile.name = name.unwrap_or(profile.name);
    }
    if let Some(spec) = file.get("spec").filter(|value| !value.is_null()) {
        let spec = reading.object(spec, &root.field("spec"))?;
        read_spec(reading, spec, &mut profile);
    }
    Some(profile)
}

fn read_spec(reading: &mut PlainReading<'_>, spec: &PlainFields, profile: &mut NodeProfile) {
    let path = FieldPath::root().field("spec");
    profile.housekeeping = reading.field(spec, &path, "housekeeping", cpus);
    profile.dedicated = reading.field(spec, &path, "dedicated", cpus);
    if let (Some(housekeeping), Some(dedicated)) = (&profile.housekeeping, &profile.dedicated) {
        let both = housekeeping.intersection(dedicated);
        if !both.is_empty() {
            reading.wrong(&path.field("dedicated"), format!("CPUs {both} are housekeeping too"));
        }
    }
    if spec.contains_key("hugePages") {
        let path = path.field("hugePages");
        let entries = reading.list(spec.get("hugePages"), &path).iter().enumerate();
        let kept = entries.filter_map(|(index, entry)| kept(reading, entry, &path.index(index)));
        profile.huge_pages = kept.collect();
    }
    if spec.get("knobs").is_some_and(|names| !names.is_null()) {
        let path = path.field("knobs");
        let mut found = BTreeSet::new();
        for (index, name) in reading.list(spec.get("knobs"), &path).iter().enumerate() {
            match serde_json::from_value(name.clone()) {
                Ok(knob) => drop(found.insert(knob)),
                Err(_) => {
                    let known: Vec<String> = Knob::ALL.iter().map(|k| k.id()).collect();
                    let message = format!("{name} is no switch: there are {}", known.join(", "));
                    reading.wrong(&path.index(index), message);
                }
            }
        }
        profile.knobs = found;
    }
    reading.known(spec, &path, &["housekeeping", "dedicated", "hugePages", "knobs"]);
}

fn kept(reading: &mut PlainReading<'_>, value: &Value, path: &FieldPath) -> Option<KeptPages> {
    let entry = reading.object(value, path)?;
    reading.known(entry, path, &["node", "pageSize", "count"]);
    let (node, count) =
        (reading.needed(entry, path, "node", number), reading.needed(entry, path, "count", number));
    let size_kib = reading.needed(entry, path, "pageSize", page_size)?;
    Some(KeptPages { node: NodeId(node?), size_kib, count: count?.into() })
}

/// No machine has as many of anything as do not fit into 32 bits.
fn number(value: &Value) -> Result<u32, String> {
    let number = value.as_u64().and_then(|number| u32::try_from(number).ok());
    number.ok_or_else(|| format!("must be a number, not {value}"))
}

/// KiB.
fn page_size(value: &Value) -> Result<u64, String> {
    match value.as_str() {
        Some("2Mi") => Ok(2 << 10),
        Some("1Gi") => Ok(1 << 20),
        _ => Err(format!("{value} is neither 2Mi nor 1Gi")),
    }
}

/// A list as `0-1,8`; a single CPU is a number in YAML.
fn cpus(value: &Value) -> Result<CpuSet, String> {
    let text = value.as_str().map_or_else(|| value.to_string(), str::to_owned);
    let cpus = text.parse::<CpuSet>().ok().filter(|cpus| !cpus.is_empty());
    cpus.ok_or_else(|| format!("{text:?} is no list of CPUs such as 0-1,8"))
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
            assert!(told.iter().any(|t| t.contains(&format!(": {path}: "))), "{path}: {told:?}");
        }
        let misspelt = GOOD.replace("dedicated", "dedicatd").replace("count: 64", "count: -1");
        let told: Vec<String> =
            NodeProfile::parse(&misspelt).unwrap_err().iter().map(ToString::to_string).collect();
        let wanted = [
            "line 5, column 3: spec.dedicatd: unknown field, did you mean \"dedicated\"?",
            "line 6, column 40: spec.hugePages[0].count: must be a number, not -1",
        ];
        assert_eq!(told, wanted);
        let null = NodeProfile::parse(&GOOD.replace("count: 64", "count: null")).unwrap_err();
        assert_eq!(null.len(), 1, "what is left empty is not passed over: {null:?}");
        let any = NodeProfile::parse(&GOOD.replace("[statInterval, numaBalancing]", "null")).unwrap();
        assert_eq!(any.knobs, Knob::ALL.into());
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
            pod: None,
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
