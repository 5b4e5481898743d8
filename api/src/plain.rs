//! Reading documents of our own kinds: every error at once, each with its line, column and path.
//!
//! Used where a type of ours is read from a file on a host. It knows no kind: who reads one asks for its fields.

use serde_json::{Map, Value};

use crate::parse::PlainDocument;
use crate::path::FieldPath;
use crate::problem::Position;
use crate::read::nearest;

/// A field that is wrong.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("{}{path}: {message}", at(*position))]
pub struct FieldProblem {
    /// Its path.
    pub path: FieldPath,
    /// Where it is in the text; where what is missing would be. `None` for what is not about the text.
    pub position: Option<Position>,
    /// What is wrong with it.
    pub message: String,
}

fn at(position: Option<Position>) -> String {
    position.map(|position| format!("{position}: ")).unwrap_or_default()
}

/// A document that is being read, and what was found wrong with it.
#[derive(Debug)]
pub struct PlainReading<'a> {
    document: &'a PlainDocument,
    problems: Vec<FieldProblem>,
}

/// Fields of an object of a document.
pub type PlainFields = Map<String, Value>;

impl<'a> PlainReading<'a> {
    /// Nothing is wrong yet.
    #[must_use]
    pub const fn new(document: &'a PlainDocument) -> Self {
        Self { document, problems: Vec::new() }
    }

    /// Whether it says that it is of another kind or version; one that says nothing has two fields less than it needs.
    #[must_use]
    pub fn is_of_another(value: &Value, api_version: &str, kind: &str) -> bool {
        value["apiVersion"].is_string()
            && value["kind"].is_string()
            && (value["apiVersion"] != api_version || value["kind"] != kind)
    }

    /// Notes that a field is wrong.
    pub fn wrong(&mut self, path: &FieldPath, message: impl Into<String>) {
        let position = self.document.position(path);
        self.problems.push(FieldProblem { path: path.clone(), position, message: message.into() });
    }

    /// How much was wrong so far.
    #[must_use]
    pub const fn count(&self) -> usize {
        self.problems.len()
    }

    /// What was read.
    ///
    /// # Errors
    /// All that is wrong, in the order of the text.
    pub fn finish<T>(mut self, read: T) -> Result<T, Vec<FieldProblem>> {
        if self.problems.is_empty() {
            return Ok(read);
        }
        self.problems.sort_by_key(|problem| problem.position);
        Err(self.problems)
    }

    /// A field that may be left out.
    pub fn field<T>(
        &mut self,
        fields: &PlainFields,
        path: &FieldPath,
        name: &str,
        read: impl Fn(&Value) -> Result<T, String>,
    ) -> Option<T> {
        let read = read(fields.get(name).filter(|value| !value.is_null())?);
        read.map_err(|message| self.wrong(&path.field(name), message)).ok()
    }

    /// A field that must be there. One that is null is: `read` says what is wrong with that.
    pub fn needed<T>(
        &mut self,
        fields: &PlainFields,
        path: &FieldPath,
        name: &str,
        read: impl Fn(&Value) -> Result<T, String>,
    ) -> Option<T> {
        let read = fields.get(name).map_or_else(|| Err("must be given".to_owned()), read);
        read.map_err(|message| self.wrong(&path.field(name), message)).ok()
    }

    /// Text that must be there.
    pub fn words(&mut self, fields: &PlainFields, path: &FieldPath, name: &str) -> Option<String> {
        self.needed(fields, path, name, Self::text)
    }

    /// Text, for [`PlainReading::field`].
    ///
    /// # Errors
    /// Where it is none, in words.
    pub fn text(value: &Value) -> Result<String, String> {
        value.as_str().map(str::to_owned).ok_or_else(|| format!("must be text, not {value}"))
    }

    /// An object.
    pub fn object<'v>(&mut self, value: &'v Value, path: &FieldPath) -> Option<&'v PlainFields> {
        if value.as_object().is_none() {
            self.wrong(path, "must be an object with fields");
        }
        value.as_object()
    }

    /// A list that must be there; empty where it is not.
    pub fn list<'v>(&mut self, value: Option<&'v Value>, path: &FieldPath) -> &'v [Value] {
        match value {
            Some(Value::Array(items)) => return items,
            Some(_) => self.wrong(path, "must be a list"),
            None => self.wrong(path, "must be given"),
        }
        &[]
    }

    /// Notes every field that nobody knows.
    pub fn known(&mut self, fields: &PlainFields, path: &FieldPath, names: &[&str]) {
        for name in fields.keys().filter(|name| !names.contains(&name.as_str())) {
            let message = match nearest(name, names.iter().copied()) {
                Some(near) => format!("unknown field, did you mean {near:?}?"),
                None => format!("unknown field; there are {}", names.join(", ")),
            };
            self.wrong(&path.key(name), message);
        }
    }
}
