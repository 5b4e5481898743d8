//! Reads a document against the schema: unknown, repeated and missing fields, types, and
//! fields that are not implemented. What is left is JSON that the typed structs accept.

use serde_json::{Map, Number, Value as Json};

use crate::node::{Entry, Node, Scalar, ScalarKind, Value, shorten};
use crate::path::FieldPath;
use crate::problem::{Findings, ProblemCode};
use crate::quantity::Quantity;
use crate::schema::{Choice, Field, Object, Place, Status, Type};

/// Whether what is read belongs to something that is already refused as a whole.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Context {
    /// No: each field speaks for itself.
    Live,
    /// Yes: only spelling and types are looked at.
    Refused,
}

/// Reads a document as an object.
pub(crate) fn object(node: &Node, object: &'static Object, findings: &mut Findings) -> Json {
    Reader { findings }
        .object(node, object, &FieldPath::root(), Context::Live)
        .unwrap_or(Json::Object(Map::new()))
}

struct Reader<'a> {
    findings: &'a mut Findings,
}

impl Reader<'_> {
    fn value(&mut self, node: &Node, ty: &Type, path: &FieldPath, context: Context) -> Option<Json> {
        match *ty {
            Type::Object(object) => self.object(node, object, path, context),
            Type::Map(item) => self.map(node, item, path, context),
            Type::List(item) => self.list(node, item, path, context),
            Type::Any => self.any(node, path),
            Type::Choice(choice) => self.choice(node, choice, path, context),
            Type::Bool => match node.scalar().map(|scalar| scalar.kind) {
                Some(ScalarKind::Bool(value)) => Some(Json::Bool(value)),
                _ => self.wrong_type(node, "true or false", path),
            },
            Type::String => match node.text() {
                Some(text) => Some(Json::String(text.to_owned())),
                None => self.not_text(node, path),
            },
            Type::Quantity => self.quantity(node, path),
            Type::IntOrString => match node.text() {
                Some(text) => Some(Json::String(text.to_owned())),
                None => self.integer(node, path, (i64::MIN.into(), i64::MAX.into())),
            },
            Type::Int32 => self.integer(node, path, (i32::MIN.into(), i32::MAX.into())),
            Type::Int64 => self.integer(node, path, (i64::MIN.into(), i64::MAX.into())),
            Type::Uint32 => self.integer(node, path, (0, u32::MAX.into())),
            Type::Uint64 => self.integer(node, path, (0, i64::MAX.into())),
        }
    }

    fn object(&mut self, node: &Node, object: &Object, path: &FieldPath, context: Context) -> Option<Json> {
        let Value::Map(entries) = &node.value else {
            return self.wrong_type(node, "an object", path);
        };
        self.repeated(entries, path);
        let mut fields = Map::new();
        for entry in entries {
            let below = path.key(&entry.key);
            let Some(field) = object.field(&entry.key) else {
                self.unknown(entry, object, &below);
                continue;
            };
            if entry.value.is_null() || fields.contains_key(field.name) {
                continue;
            }
            if let Some(value) = self.field(entry, field, &below, context) {
                fields.insert(field.name.to_owned(), value);
            }
        }
        if context == Context::Live {
            for field in object.fields.iter().filter(|field| field.required) {
                let given = node.get(field.name).is_some_and(|entry| !entry.value.is_null());
                if !given {
                    let message = format!("required: {}", lower_first(field.doc));
                    self.findings.at(&path.field(field.name), ProblemCode::Required, message, node.at);
                }
            }
        }
        Some(Json::Object(fields))
    }

    fn field(&mut self, entry: &Entry, field: &Field, path: &FieldPath, context: Context) -> Option<Json> {
        if matches!(field.ty, Type::Choice(_)) && entry.value.text() == Some("") {
            return None;
        }
        if matches!(field.status, Status::System(_)) {
            // Not acted on, so a value that cannot be read is no problem of the user's.
            let mut unheard = Findings::at_place(self.findings.place);
            let value =
                Reader { findings: &mut unheard }.value(&entry.value, &field.ty, path, Context::Refused);
            return value.filter(|_| unheard.list.is_empty());
        }
        let mut below = context;
        if context == Context::Live {
            match field.status.at(self.findings.place) {
                Status::Planned(_) | Status::Refused(_) | Status::Cluster(_) | Status::Host(_)
                    if asks_for_nothing(&entry.value, &field.ty) => {}
                Status::Planned(text)
                | Status::Refused(text)
                | Status::Cluster(text)
                | Status::Host(text) => {
                    let (code, lead) = missing(field.status);
                    self.findings.at(path, code, format!("{lead}: {text}"), entry.at);
                    below = Context::Refused;
                }
                Status::Only(works, why) => {
                    let given = entry.value.scalar().map(|scalar| scalar.kind);
                    if given == Some(ScalarKind::Bool(!works)) {
                        let message = format!("must be {works}: {why}");
                        self.findings.at(path, ProblemCode::Refused, message, entry.at);
                    }
                }
                Status::Works(_)
                | Status::ClusterBoth(..)
                | Status::Libvirt(_)
                | Status::NativeOnly(..)
                | Status::Part
                | Status::System(_) => {}
            }
        }
        self.value(&entry.value, &field.ty, path, below)
    }

    fn map(&mut self, node: &Node, item: &Type, path: &FieldPath, context: Context) -> Option<Json> {
        let Value::Map(entries) = &node.value else {
            return self.wrong_type(node, "a map", path);
        };
        self.repeated(entries, path);
        let mut map = Map::new();
        for entry in entries {
            if let Some(value) = self.value(&entry.value, item, &path.key(&entry.key), context) {
                map.insert(entry.key.clone(), value);
            }
        }
        Some(Json::Object(map))
    }

    fn list(&mut self, node: &Node, item: &Type, path: &FieldPath, context: Context) -> Option<Json> {
        let Value::List(items) = &node.value else {
            return self.wrong_type(node, "a list", path);
        };
        let mut list = Vec::with_capacity(items.len());
        for (index, node) in items.iter().enumerate() {
            // An item that cannot be read keeps its place, so that later paths stay true.
            let value = self.value(node, item, &path.index(index), context);
            list.push(value.unwrap_or_else(|| placeholder(item)));
        }
        Some(Json::Array(list))
    }

    fn any(&mut self, node: &Node, path: &FieldPath) -> Option<Json> {
        Some(match &node.value {
            Value::Scalar(Scalar { text, kind }) => match kind {
                ScalarKind::Null => Json::Null,
                ScalarKind::Bool(value) => Json::Bool(*value),
                ScalarKind::Int | ScalarKind::Float => match text.parse::<Number>() {
                    Ok(number) => Json::Number(number),
                    Err(_) => Json::String(text.clone()),
                },
                ScalarKind::Ambiguous | ScalarKind::Text => Json::String(text.clone()),
            },
            Value::List(items) => Json::Array(
                items
                    .iter()
                    .enumerate()
                    .filter_map(|(index, item)| self.any(item, &path.index(index)))
                    .collect(),
            ),
            Value::Map(entries) => {
                self.repeated(entries, path);
                let mut map = Map::new();
                for entry in entries {
                    if let Some(value) = self.any(&entry.value, &path.key(&entry.key)) {
                        map.insert(entry.key.clone(), value);
                    }
                }
                Json::Object(map)
            }
        })
    }

    fn choice(&mut self, node: &Node, choice: &Choice, path: &FieldPath, context: Context) -> Option<Json> {
        let Some(text) = node.text() else {
            return self.not_text(node, path);
        };
        let Some(word) = choice.values.iter().find(|word| word.text == text) else {
            let words: Vec<_> = choice.values.iter().map(|word| word.text).collect();
            let working = working(choice, self.findings.place);
            let message = format!("unknown value {:?}, use one of {working}", shorten(text));
            let message = match nearest(text, words.iter().copied()) {
                Some(near) => format!("unknown value {:?}, did you mean {near:?}?", shorten(text)),
                None => message,
            };
            self.findings.at(path, ProblemCode::UnknownValue, message, node.at);
            return None;
        };
        if context == Context::Live {
            match word.status.at(self.findings.place) {
                Status::Planned(why) | Status::Refused(why) | Status::Cluster(why) | Status::Host(why) => {
                    let (code, lead) = missing(word.status);
                    self.findings.at(path, code, format!("{text:?} is {lead}: {why}"), node.at);
                }
                _ => {}
            }
        }
        Some(Json::String(text.to_owned()))
    }

    fn quantity(&mut self, node: &Node, path: &FieldPath) -> Option<Json> {
        let text = match node.scalar() {
            Some(Scalar { text, kind: ScalarKind::Int | ScalarKind::Float | ScalarKind::Text }) => text,
            _ => return self.wrong_type(node, "a quantity, such as 512Mi", path),
        };
        match text.parse::<Quantity>() {
            Ok(_) => Some(Json::String(text.clone())),
            Err(error) => {
                let message = format!("{:?}: {}", shorten(text), lower_first(&error.to_string()));
                self.findings.at(path, ProblemCode::Invalid, message, node.at);
                None
            }
        }
    }

    fn integer(&mut self, node: &Node, path: &FieldPath, (least, most): (i128, i128)) -> Option<Json> {
        let text = match node.scalar() {
            Some(Scalar { text, kind: ScalarKind::Int }) => text,
            Some(Scalar { text, kind: ScalarKind::Ambiguous }) => {
                let message = format!("{text} is ambiguous: write the number without leading zeros");
                self.findings.at(path, ProblemCode::WrongType, message, node.at);
                return None;
            }
            _ => return self.wrong_type(node, "an integer", path),
        };
        match parse_integer(text).filter(|value| (least..=most).contains(value)) {
            Some(value) => Number::from_i128(value).map(Json::Number),
            None => {
                let message = format!("{} is out of bounds: between {least} and {most}", shorten(text));
                self.findings.at(path, ProblemCode::Invalid, message, node.at);
                None
            }
        }
    }

    fn not_text(&mut self, node: &Node, path: &FieldPath) -> Option<Json> {
        match node.scalar() {
            Some(scalar) if scalar.kind != ScalarKind::Null => {
                let message = format!("must be text, but is {}: put it in quotes", node.describe());
                self.findings.at(path, ProblemCode::WrongType, message, node.at);
                None
            }
            _ => self.wrong_type(node, "text", path),
        }
    }

    fn wrong_type(&mut self, node: &Node, expected: &str, path: &FieldPath) -> Option<Json> {
        let message = format!("must be {expected}, but is {}", node.describe());
        self.findings.at(path, ProblemCode::WrongType, message, node.at);
        None
    }

    fn repeated(&mut self, entries: &[Entry], path: &FieldPath) {
        let mut seen: std::collections::HashMap<&str, &Entry> = std::collections::HashMap::new();
        for entry in entries {
            if let Some(first) = seen.insert(&entry.key, entry) {
                let place = first.at.map(|at| format!(", first in line {}", at.line)).unwrap_or_default();
                let message = format!("given twice{place}: remove one");
                self.findings.at(&path.key(&entry.key), ProblemCode::DuplicateField, message, entry.at);
            }
        }
    }

    fn unknown(&mut self, entry: &Entry, object: &Object, path: &FieldPath) {
        let message = match nearest(&entry.key, object.fields.iter().map(|field| field.name)) {
            Some(near) => format!("unknown field, did you mean {near:?}?"),
            None => "unknown field".to_owned(),
        };
        self.findings.at(path, ProblemCode::UnknownField, message, entry.at);
    }
}

/// What is said first of a field or word that does not work where the guest is to run.
const fn missing(status: Status) -> (ProblemCode, &'static str) {
    match status {
        Status::Planned(_) => (ProblemCode::Planned, "not implemented yet"),
        Status::Cluster(_) => (ProblemCode::ClusterOnly, "for clusters only"),
        Status::Host(_) => (ProblemCode::HostOnly, "for `pinion run` on one host only"),
        _ => (ProblemCode::Refused, "refused"),
    }
}

/// Whether a value of a field that is not implemented asks for nothing: off, empty or none.
fn asks_for_nothing(node: &Node, ty: &Type) -> bool {
    match (&node.value, ty) {
        (Value::Scalar(scalar), _) => {
            matches!(scalar.kind, ScalarKind::Null | ScalarKind::Bool(false))
                || (scalar.kind == ScalarKind::Text && scalar.text.is_empty())
        }
        (Value::List(items), _) => items.is_empty(),
        (Value::Map(entries), Type::Map(_)) => entries.is_empty(),
        (Value::Map(_), _) => false,
    }
}

/// What stands in for a list item that could not be read.
fn placeholder(ty: &Type) -> Json {
    match ty {
        Type::Object(_) | Type::Map(_) => Json::Object(Map::new()),
        Type::List(_) => Json::Array(Vec::new()),
        Type::Bool => Json::Bool(false),
        Type::Quantity => Json::String("0".to_owned()),
        Type::Int32 | Type::Int64 | Type::Uint32 | Type::Uint64 | Type::IntOrString => Json::from(0),
        Type::String => Json::String(String::new()),
        Type::Choice(choice) => choice.values.first().map_or(Json::Null, |word| Json::from(word.text)),
        Type::Any => Json::Null,
    }
}

fn parse_integer(text: &str) -> Option<i128> {
    let (sign, digits) = match text.strip_prefix('-') {
        Some(digits) => (-1, digits),
        None => (1, text.strip_prefix('+').unwrap_or(text)),
    };
    let magnitude = if let Some(hex) = digits.strip_prefix("0x") {
        i128::from_str_radix(hex, 16)
    } else if let Some(octal) = digits.strip_prefix("0o") {
        i128::from_str_radix(octal, 8)
    } else {
        digits.parse()
    };
    magnitude.ok()?.checked_mul(sign)
}

/// The words of a choice that work there.
fn working(choice: &Choice, place: Place) -> String {
    let works: Vec<_> = choice
        .values
        .iter()
        .filter(|word| matches!(word.status.at(place), Status::Works(_)))
        .map(|word| word.text)
        .collect();
    works.join(", ")
}

/// The name that was probably meant.
#[must_use]
pub fn nearest<'a>(written: &str, names: impl Iterator<Item = &'a str>) -> Option<&'a str> {
    let lower = written.to_lowercase();
    names
        .map(|name| (strsim::damerau_levenshtein(&lower, &name.to_lowercase()), name))
        .filter(|(distance, name)| *distance <= (name.len().min(written.len()) / 3).max(1))
        .min_by_key(|(distance, _)| *distance)
        .map(|(_, name)| name)
}

pub(crate) fn lower_first(text: &str) -> String {
    let mut chars = text.chars();
    let first: String = chars.next().map(|c| c.to_lowercase().collect()).unwrap_or_default();
    let rest = chars.as_str().trim_end_matches('.');
    // An abbreviation keeps its capitals.
    if rest.starts_with(|c: char| c.is_uppercase()) {
        return text.trim_end_matches('.').to_owned();
    }
    format!("{first}{rest}")
}
