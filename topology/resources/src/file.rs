//! Reading the file: every error at once, each with its line, column and path.

use pinion_api::{FieldPath, PlainDocument, PlainReading};
use pinion_machine::{Bdf, NodeId};
use serde_json::Value;

use crate::{API_VERSION, KIND, Resource, ResourcesError, Selector};

/// What only functions have.
const OF_FUNCTIONS: [&str; 5] = ["address", "vendor", "device", "class", "driver"];

/// Reads all of it.
pub(crate) fn read(text: &str) -> Result<Vec<Resource>, Vec<ResourcesError>> {
    let malformed = |message: String| vec![ResourcesError::Malformed(message)];
    let document =
        PlainDocument::read(text).map_err(|problems| malformed(problems.to_string().trim().to_owned()))?;
    let value = document.value();
    if PlainReading::is_of_another(&value, API_VERSION, KIND) {
        return Err(vec![ResourcesError::Kind]);
    }
    let mut reading = PlainReading::new(&document);
    let resources = file(&mut reading, &value);
    reading.finish(resources).map_err(|problems| problems.into_iter().map(ResourcesError::Field).collect())
}

fn file(reading: &mut PlainReading<'_>, value: &Value) -> Vec<Resource> {
    let root = FieldPath::root();
    let Some(file) = reading.object(value, &root) else { return Vec::new() };
    for name in ["apiVersion", "kind"] {
        reading.words(file, &root, name);
    }
    let mut resources: Vec<Resource> = Vec::new();
    let path = root.field("resources");
    for (index, entry) in reading.list(file.get("resources"), &path).iter().enumerate() {
        let path = path.index(index);
        let Some(resource) = resource(reading, entry, &path) else { continue };
        if resources.iter().any(|r| r.name == resource.name) {
            reading.wrong(&path.field("name"), format!("{:?} is given twice", resource.name));
        }
        resources.push(resource);
    }
    reading.known(file, &root, &["apiVersion", "kind", "resources"]);
    resources
}

fn resource(reading: &mut PlainReading<'_>, value: &Value, path: &FieldPath) -> Option<Resource> {
    let entry = reading.object(value, path)?;
    let name = reading.words(entry, path, "name").unwrap_or_default();
    if !name.is_empty() && !is_resource_name(&name) {
        reading
            .wrong(&path.field("name"), format!("{name:?} is not a resource name such as example.com/gpu"));
    }
    let bind = match entry.get("bind") {
        None => false,
        Some(Value::Bool(bind)) => *bind,
        Some(other) => {
            reading.wrong(&path.field("bind"), format!("must be true or false, not {other}"));
            false
        }
    };
    let below = path.field("select");
    let select = reading.list(entry.get("select"), &below);
    if entry.get("select").is_some_and(Value::is_array) && select.is_empty() {
        reading.wrong(&below, "nothing is selected: give at least one selector");
    }
    let selectors: Vec<Selector> = select
        .iter()
        .enumerate()
        .filter_map(|(index, raw)| selector(reading, raw, &below.index(index)))
        .collect();
    if selectors.iter().any(|s| s.mediated_type.is_some())
        && selectors.iter().any(|s| s.mediated_type.is_none())
    {
        reading.wrong(&below, "mediated devices and functions have different names: make it two resources");
    }
    reading.known(entry, path, &["name", "bind", "select"]);
    Some(Resource { name, bind, selectors })
}

fn selector(reading: &mut PlainReading<'_>, value: &Value, path: &FieldPath) -> Option<Selector> {
    let fields = reading.object(value, path)?;
    let before = reading.count();
    let selector = Selector {
        address: reading.field(fields, path, "address", address),
        vendor: reading.field(fields, path, "vendor", id),
        device: reading.field(fields, path, "device", id),
        class: reading.field(fields, path, "class", class),
        driver: reading.field(fields, path, "driver", |value| Ok(text(value))),
        parent: reading.field(fields, path, "parent", address),
        node: reading.field(fields, path, "node", node),
        mediated_type: reading.field(fields, path, "mediatedType", |value| Ok(text(value))),
    };
    if selector.mediated_type.is_some() {
        for name in OF_FUNCTIONS.iter().filter(|name| fields.contains_key(**name)) {
            reading.wrong(
                &path.field(name),
                "a mediated device has none; only parent and node go with mediatedType",
            );
        }
    }
    let names = [&OF_FUNCTIONS[..], &["parent", "node", "mediatedType"]].concat();
    reading.known(fields, path, &names);
    if selector == Selector::default() && reading.count() == before {
        reading.wrong(path, "an empty selector would select every device");
    }
    Some(selector)
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
