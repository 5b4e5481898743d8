//! Text to documents: what the command line and admission call.

use serde::de::DeserializeOwned;
use serde_json::Value as Json;

use crate::VirtualMachine;
use crate::VirtualMachineInstance;
use crate::VirtualMachineInstanceReplicaSet;
use crate::defaults;
use crate::node::{Node, ScalarKind, Value};
use crate::path::{FieldPath, Segment};
use crate::problem::{DocumentName, Finding, Findings, Position, Problem, ProblemCode, Problems};
use crate::read;
use crate::schema::{Place, Schema, Type};
use crate::validate;
use crate::yaml::{self, RawDocument};

/// Largest file that is read, bytes.
pub const MAX_BYTES: usize = 16 << 20;
/// Most problems that are reported of a file.
const MOST_PROBLEMS: usize = 1000;
/// The API version of every document.
pub const API_VERSION: &str = "kubevirt.io/v1";
/// Kinds of KubeVirt that are known and not read.
const OTHER_KINDS: [&str; 6] = [
    "VirtualMachineInstanceReplicaSet",
    "VirtualMachineInstanceMigration",
    "VirtualMachineInstancePreset",
    "VirtualMachinePool",
    "VirtualMachineClone",
    "KubeVirt",
];

/// A document that can be run.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Document {
    /// A virtual machine.
    VirtualMachine(Box<VirtualMachine>),
    /// A virtual machine instance.
    VirtualMachineInstance(Box<VirtualMachineInstance>),
    /// A replica set of instances.
    ReplicaSet(Box<VirtualMachineInstanceReplicaSet>),
}

impl Document {
    /// The instance it makes, or each of them, with every default filled in.
    #[must_use]
    pub fn into_instance(self) -> VirtualMachineInstance {
        let mut instance = match self {
            Self::VirtualMachine(machine) => machine.into_instance(),
            Self::VirtualMachineInstance(instance) => *instance,
            Self::ReplicaSet(set) => set.into_instance(),
        };
        defaults::fill_in(&mut instance);
        instance
    }
}

/// Reads a file for `pinion run`: YAML or JSON, one document or several, each a `VirtualMachine`, a
/// `VirtualMachineInstance` or a `List` of them.
///
/// # Errors
/// Every problem of the file at once; then nothing of it is returned.
pub fn parse(input: impl AsRef<[u8]>) -> Result<Vec<Document>, Problems> {
    parse_at(Place::Host, input)
}

/// As [`parse`], of guests that are to run at a place; replica sets are read for a cluster.
///
/// # Errors
/// As [`parse`].
pub fn parse_at(place: Place, input: impl AsRef<[u8]>) -> Result<Vec<Document>, Problems> {
    let text = text(input.as_ref())?;
    let mut problems = Vec::new();
    let mut documents = Vec::new();
    for (index, raw) in yaml::documents(text).into_iter().enumerate() {
        let mut reading = Reading { place, index, documents: &mut documents, problems: &mut problems };
        reading.raw(raw);
        if problems.len() > MOST_PROBLEMS {
            break;
        }
    }
    if problems.len() > MOST_PROBLEMS {
        problems.truncate(MOST_PROBLEMS);
        let message = format!("More than {MOST_PROBLEMS} problems: the others are not shown");
        problems.extend(Problems::one(ProblemCode::TooLarge, message, None).iter().cloned());
    }
    Problems::check(problems)?;
    if documents.is_empty() {
        let message = "The file holds no document: it needs a VirtualMachine or VirtualMachineInstance";
        return Err(Problems::one(ProblemCode::Empty, message.to_owned(), None));
    }
    Ok(documents)
}

/// The one document of a YAML or JSON text as plain JSON, with the limits of specs: for files of Pinion's
/// own.
///
/// # Errors
/// Why it cannot be read; a text with several documents is refused.
pub fn plain_yaml(input: &str) -> Result<serde_json::Value, Problems> {
    PlainDocument::read(input).map(|document| document.value())
}

/// A document that is read without knowing its fields, and where in the text each of them is.
#[derive(Clone, Debug)]
pub struct PlainDocument(Node);

impl PlainDocument {
    /// As [`plain_yaml`].
    ///
    /// # Errors
    /// As [`plain_yaml`].
    pub fn read(input: &str) -> Result<Self, Problems> {
        one(input).map(Self)
    }

    /// It as plain JSON.
    #[must_use]
    pub fn value(&self) -> serde_json::Value {
        plain(&self.0)
    }

    /// Where a field is in the text, or the nearest thing above it that was written.
    #[must_use]
    pub fn position(&self, path: &FieldPath) -> Option<Position> {
        self.0.position_of(path)
    }
}

fn one(input: &str) -> Result<Node, Problems> {
    let text = text(input.as_bytes())?;
    let mut documents = yaml::documents(text).into_iter();
    let problem = |code, message: &str| Problems::one(code, message.to_owned(), None);
    let first = documents.next().ok_or_else(|| problem(ProblemCode::Empty, "The file is empty"))?;
    let node = first.map_err(|raw| Problems::one(raw.code, raw.message, raw.at))?;
    if documents.next().is_some() {
        return Err(problem(ProblemCode::Invalid, "The file has more than one document"));
    }
    Ok(node)
}

fn plain(node: &Node) -> serde_json::Value {
    match &node.value {
        Value::List(items) => items.iter().map(plain).collect(),
        Value::Map(entries) => {
            entries.iter().map(|e| (e.key.clone(), plain(&e.value))).collect::<serde_json::Map<_, _>>().into()
        }
        Value::Scalar(scalar) => match scalar.kind {
            ScalarKind::Null => serde_json::Value::Null,
            ScalarKind::Bool(yes) => yes.into(),
            ScalarKind::Int => scalar
                .text
                .parse::<i64>()
                .map_or_else(|_| scalar.text.clone().into(), serde_json::Value::from),
            ScalarKind::Ambiguous | ScalarKind::Float | ScalarKind::Text => scalar.text.clone().into(),
        },
    }
}

/// The text of a file, if it can be one of a spec.
fn text(input: &[u8]) -> Result<&str, Problems> {
    if input.len() > MAX_BYTES {
        let message = format!(
            "The file has {} bytes; a VM spec has at most {MAX_BYTES}. Is this the spec, or a disk image?",
            input.len()
        );
        return Err(Problems::one(ProblemCode::TooLarge, message, None));
    }
    let input = input.strip_prefix(b"\xef\xbb\xbf").unwrap_or(input);
    let text = std::str::from_utf8(input).map_err(|error| {
        let message = format!("The file is not text: byte {} is not UTF-8", error.valid_up_to());
        Problems::one(ProblemCode::NotText, message, None)
    })?;
    if let Some(at) = text.find('\0') {
        let message = format!("The file is not text: byte {at} is zero");
        return Err(Problems::one(ProblemCode::NotText, message, None));
    }
    Ok(text)
}

/// Reads one document of a file.
struct Reading<'a> {
    place: Place,
    index: usize,
    documents: &'a mut Vec<Document>,
    problems: &'a mut Vec<Problem>,
}

impl Reading<'_> {
    fn raw(&mut self, raw: RawDocument) {
        match raw {
            Ok(node) => self.node(&node, &FieldPath::root()),
            Err(raw) => {
                let document = DocumentName { index: self.index, ..DocumentName::default() };
                let path = FieldPath::root();
                let (code, message, position) = (raw.code, raw.message, raw.at);
                self.problems.push(Problem { document, path, code, message, position });
            }
        }
    }

    fn node(&mut self, node: &Node, prefix: &FieldPath) {
        let kind = node.get("kind").and_then(|entry| entry.value.text());
        let version = node.get("apiVersion").and_then(|entry| entry.value.text());
        if (version, kind) == (Some("v1"), Some("List"))
            && let Some(Value::List(items)) = node.get("items").map(|entry| &entry.value.value)
        {
            for (index, item) in items.iter().enumerate() {
                self.node(item, &prefix.field("items").index(index));
            }
            return;
        }
        match (version, kind) {
            (Some(API_VERSION), Some("VirtualMachine")) => {
                let rules = validate::virtual_machine;
                let machine = self.typed::<VirtualMachine>(node, prefix, rules);
                self.documents.extend(machine.map(|machine| Document::VirtualMachine(Box::new(machine))));
            }
            (Some(API_VERSION), Some("VirtualMachineInstance")) => {
                let rules = validate::instance;
                let instance = self.typed::<VirtualMachineInstance>(node, prefix, rules);
                self.documents
                    .extend(instance.map(|instance| Document::VirtualMachineInstance(Box::new(instance))));
            }
            (Some(API_VERSION), Some("VirtualMachineInstanceReplicaSet")) if self.place == Place::Cluster => {
                let rules = validate::replica_set;
                let set = self.typed::<VirtualMachineInstanceReplicaSet>(node, prefix, rules);
                self.documents.extend(set.map(|set| Document::ReplicaSet(Box::new(set))));
            }
            _ => self.report(node, prefix, vec![unsupported(node, version, kind)]),
        }
    }

    /// Reads and validates; `None` if that found problems, which are then reported.
    fn typed<T: Schema + DeserializeOwned>(
        &mut self,
        node: &Node,
        prefix: &FieldPath,
        rules: fn(&T, &mut Findings),
    ) -> Option<T> {
        let mut findings = Findings::at_place(self.place);
        let json = match T::TYPE {
            Type::Object(object) => read::object(node, object, &mut findings),
            _ => Json::Null,
        };
        let typed = match serde_json::from_value::<T>(json) {
            Ok(typed) => typed,
            Err(error) => {
                findings.add(&FieldPath::root(), ProblemCode::Invalid, format!("cannot be read: {error}"));
                self.report(node, prefix, findings.list);
                return None;
            }
        };
        let mut broken = Findings::at_place(self.place);
        rules(&typed, &mut broken);
        let unread: Vec<FieldPath> = findings
            .list
            .iter()
            .filter(|finding| is_unread(finding))
            .map(|finding| finding.path.clone())
            .collect();
        broken.list.retain(|finding| !follows(finding, &unread));
        findings.list.append(&mut broken.list);
        if findings.list.is_empty() {
            return Some(typed);
        }
        self.report(node, prefix, findings.list);
        None
    }

    fn report(&mut self, node: &Node, prefix: &FieldPath, findings: Vec<Finding>) {
        let text = |entry: Option<&crate::node::Entry>| {
            entry.and_then(|entry| entry.value.text()).map(crate::node::shorten)
        };
        let name = node.get("metadata").and_then(|metadata| text(metadata.value.get("name")));
        let document = DocumentName { index: self.index, kind: text(node.get("kind")), name };
        let mut problems: Vec<Problem> = findings
            .into_iter()
            .map(|finding| Problem {
                document: document.clone(),
                position: finding.position.or_else(|| node.position_of(&finding.path)),
                path: finding.path.below(prefix),
                code: finding.code,
                message: finding.message,
            })
            .collect();
        problems.sort_by_key(|problem| problem.position);
        self.problems.append(&mut problems);
    }
}

/// Whether a finding means that the value of its field is not known.
fn is_unread(finding: &Finding) -> bool {
    matches!(
        finding.code,
        ProblemCode::UnknownField
            | ProblemCode::UnknownValue
            | ProblemCode::WrongType
            | ProblemCode::Required
            | ProblemCode::Invalid
    )
}

/// Whether a broken rule says nothing new: it is about a field that could not be read, about
/// what is around or inside it, or about a name that stands where nothing could be read.
fn follows(broken: &Finding, unread: &[FieldPath]) -> bool {
    const NAMED: [&str; 5] = ["disks", "volumes", "interfaces", "networks", "name"];
    unread.iter().any(|path| {
        let names =
            matches!(path.segments().last(), Some(Segment::Name(last)) if NAMED.contains(&last.as_str()));
        path.segments().starts_with(broken.path.segments())
            || broken.path.segments().starts_with(path.segments())
            || (broken.code == ProblemCode::NotFound && names)
    })
}

/// What to say of a document that is of no kind that is read.
fn unsupported(node: &Node, version: Option<&str>, kind: Option<&str>) -> Finding {
    const KINDS: &str = "Pinion reads VirtualMachine and VirtualMachineInstance of kubevirt.io/v1";
    let root = FieldPath::root();
    let finding = |path: FieldPath, code, message| Finding { path, code, message, position: None };
    let kind_is_ours = matches!(kind, Some("VirtualMachine" | "VirtualMachineInstance"));
    match (version, kind) {
        _ if !matches!(node.value, Value::Map(_)) => {
            let message = format!("must be an object, but is {}: {KINDS}", node.describe());
            finding(root, ProblemCode::WrongType, message)
        }
        (_, None) => finding(root.field("kind"), ProblemCode::Required, format!("required: {KINDS}")),
        (None, _) => {
            finding(root.field("apiVersion"), ProblemCode::Required, format!("required: use {API_VERSION}"))
        }
        (Some(version), Some(_)) if kind_is_ours => finding(
            root.field("apiVersion"),
            ProblemCode::UnsupportedKind,
            format!("{version:?} is not read: use {API_VERSION}"),
        ),
        (Some(version), Some(kind)) => {
            let yet = if OTHER_KINDS.contains(&kind) { " yet" } else { "" };
            let message = format!("{kind:?} of {version:?} is not read{yet}: {KINDS}");
            finding(root.field("kind"), ProblemCode::UnsupportedKind, message)
        }
    }
}
