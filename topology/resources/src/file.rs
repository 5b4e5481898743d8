//! Reading the file: every error at once, each with its line, column and path.

use pinion_api::{FieldPath, PlainDocument, nearest};
use pinion_machine::{Bdf, NodeId};
use serde_json::{Map, Value};

use crate::{API_VERSION, KIND, Resource, ResourcesError, Selector};

/// What only functions have.
const OF_FUNCTIONS: [&str; 5] = ["address", "vendor", "device", "class", "driver"];

/// Reads all of it.
pub(crate) fn read(text: &str) -> Result<Vec<Resource>, Vec<ResourcesError>> {
    let malformed = |message: String| vec![ResourcesError::Malformed(message)];
    let document =
        PlainDocument::read(text).map_err(|problems| malformed(problems.to_string().trim().to_owned()))?;
    let value = document.value();
    if value["apiVersion"].is_string()
        && value["kind"].is_string()
        && (value["apiVersion"] != API_VERSION || value["kind"] != KIND)
    {
        return Err(vec![ResourcesError::Kind]);
    }
    let mut reading = Reading { document: &document, problems: Vec::new() };
    let resources = reading.file(&value);
    reading.problems.sort_by_key(|problem| match problem {
        ResourcesError::Field { position, .. } => *position,
        _ => None,
    });
    if reading.problems.is_empty() { Ok(resources) } else { Err(reading.problems) }
}

struct Reading<'a> {
    document: &'a PlainDocument,
    problems: Vec<ResourcesError>,
}

impl Reading<'_> {
    fn wrong(&mut self, path: &FieldPath, message: impl Into<String>) {
        let position = self.document.position(path);
        self.problems.push(ResourcesError::Field { path: path.clone(), position, message: message.into() });
    }

    fn file(&mut self, value: &Value) -> Vec<Resource> {
        let root = FieldPath::root();
        let Some(file) = self.object(value, &root) else { return Vec::new() };
        for name in ["apiVersion", "kind"] {
            self.words(file, &root, name);
        }
        let mut resources: Vec<Resource> = Vec::new();
        let path = root.field("resources");
        for (index, entry) in self.list(file.get("resources"), &path).iter().enumerate() {
            let path = path.index(index);
            let Some(resource) = self.resource(entry, &path) else { continue };
            if resources.iter().any(|r| r.name == resource.name) {
                self.wrong(&path.field("name"), format!("{:?} is given twice", resource.name));
            }
            resources.push(resource);
        }
        self.known(file, &root, &["apiVersion", "kind", "resources"]);
        resources
    }

    fn resource(&mut self, value: &Value, path: &FieldPath) -> Option<Resource> {
        let entry = self.object(value, path)?;
        let name = self.words(entry, path, "name").unwrap_or_default();
        if !name.is_empty() && !is_resource_name(&name) {
            self.wrong(
                &path.field("name"),
                format!("{name:?} is not a resource name such as example.com/gpu"),
            );
        }
        let bind = match entry.get("bind") {
            None => false,
            Some(Value::Bool(bind)) => *bind,
            Some(other) => {
                self.wrong(&path.field("bind"), format!("must be true or false, not {other}"));
                false
            }
        };
        let below = path.field("select");
        let select = self.list(entry.get("select"), &below);
        if entry.get("select").is_some_and(Value::is_array) && select.is_empty() {
            self.wrong(&below, "nothing is selected: give at least one selector");
        }
        let selectors: Vec<Selector> = select
            .iter()
            .enumerate()
            .filter_map(|(index, raw)| self.selector(raw, &below.index(index)))
            .collect();
        if selectors.iter().any(|s| s.mediated_type.is_some())
            && selectors.iter().any(|s| s.mediated_type.is_none())
        {
            self.wrong(&below, "mediated devices and functions have different names: make it two resources");
        }
        self.known(entry, path, &["name", "bind", "select"]);
        Some(Resource { name, bind, selectors })
    }

    fn selector(&mut self, value: &Value, path: &FieldPath) -> Option<Selector> {
        let fields = self.object(value, path)?;
        let before = self.problems.len();
        let selector = Selector {
            address: self.field(fields, path, "address", address),
            vendor: self.field(fields, path, "vendor", id),
            device: self.field(fields, path, "device", id),
            class: self.field(fields, path, "class", class),
            driver: self.field(fields, path, "driver", |value| Ok(text(value))),
            parent: self.field(fields, path, "parent", address),
            node: self.field(fields, path, "node", node),
            mediated_type: self.field(fields, path, "mediatedType", |value| Ok(text(value))),
        };
        if selector.mediated_type.is_some() {
            for name in OF_FUNCTIONS.iter().filter(|name| fields.contains_key(**name)) {
                self.wrong(
                    &path.field(name),
                    "a mediated device has none; only parent and node go with mediatedType",
                );
            }
        }
        let names = [&OF_FUNCTIONS[..], &["parent", "node", "mediatedType"]].concat();
        self.known(fields, path, &names);
        if selector == Selector::default() && self.problems.len() == before {
            self.wrong(path, "an empty selector would select every device");
        }
        Some(selector)
    }

    /// A field that may be left out.
    fn field<T>(
        &mut self,
        fields: &Map<String, Value>,
        path: &FieldPath,
        name: &str,
        read: impl Fn(&Value) -> Result<T, String>,
    ) -> Option<T> {
        match read(fields.get(name).filter(|value| !value.is_null())?) {
            Ok(value) => Some(value),
            Err(message) => {
                self.wrong(&path.field(name), message);
                None
            }
        }
    }

    /// Text that must be there.
    fn words(&mut self, fields: &Map<String, Value>, path: &FieldPath, name: &str) -> Option<String> {
        match fields.get(name) {
            Some(Value::String(text)) => return Some(text.clone()),
            Some(other) => self.wrong(&path.field(name), format!("must be text, not {other}")),
            None => self.wrong(&path.field(name), "must be given"),
        }
        None
    }

    fn object<'v>(&mut self, value: &'v Value, path: &FieldPath) -> Option<&'v Map<String, Value>> {
        if value.as_object().is_none() {
            self.wrong(path, "must be an object with fields");
        }
        value.as_object()
    }

    fn list<'v>(&mut self, value: Option<&'v Value>, path: &FieldPath) -> &'v [Value] {
        match value {
            Some(Value::Array(items)) => return items,
            Some(_) => self.wrong(path, "must be a list"),
            None => self.wrong(path, "must be given"),
        }
        &[]
    }

    /// Every field that nobody knows.
    fn known(&mut self, fields: &Map<String, Value>, path: &FieldPath, names: &[&str]) {
        for name in fields.keys().filter(|name| !names.contains(&name.as_str())) {
            let message = match nearest(name, names.iter().copied()) {
                Some(near) => format!("unknown field, did you mean {near:?}?"),
                None => format!("unknown field; there are {}", names.join(", ")),
            };
            self.wrong(&path.key(name), message);
        }
    }
}

/// YAML reads `1234` as a number: ids and classes are hexadecimal however they are written.
fn text(value: &Value) -> String {
    value.as_str().map_or_else(|| value.to_string(), str::to_owned)
}

fn address(value: &Value) -> Result<Bdf, String> {
    text(value).parse().map_err(|e: pinion_machine::BdfError| e.to_string())
}

fn node(value: &Value) -> Result<NodeId, String> {
    let number = value.as_u64().and_then(|n| u32::try_from(n).ok());
    number.map(NodeId).ok_or_else(|| format!("must be the number of a NUMA node, not {value}"))
}

fn id(value: &Value) -> Result<u16, String> {
    let text = text(value);
    let digits = text.strip_prefix("0x").unwrap_or(&text);
    let wrong = || format!("{text:?} is not an id of four hexadecimal digits such as \"10de\"");
    if digits.len() > 4 { Err(wrong()) } else { u16::from_str_radix(digits, 16).map_err(|_| wrong()) }
}

fn class(value: &Value) -> Result<String, String> {
    let text = text(value).to_lowercase();
    let is_class = matches!(text.len(), 2 | 4 | 6) && text.chars().all(|c| c.is_ascii_hexdigit());
    if is_class {
        Ok(text)
    } else {
        Err(format!("{text:?} is not a class code such as \"03\", \"0302\" or \"030200\""))
    }
}

/// `example.com/gpu`: a domain and a name, as extended resources of Kubernetes have it.
fn is_resource_name(name: &str) -> bool {
    let part = |text: &str, more: &[char]| {
        !text.is_empty()
            && text.len() <= 253
            && text.chars().all(|c| c.is_ascii_alphanumeric() || more.contains(&c))
            && text.starts_with(|c: char| c.is_ascii_alphanumeric())
            && text.ends_with(|c: char| c.is_ascii_alphanumeric())
    };
    name.split_once('/')
        .is_some_and(|(domain, name)| part(domain, &['-', '.']) && part(name, &['-', '.', '_']))
}
