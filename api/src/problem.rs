//! What is wrong with a file: every problem at once, each with its path.
//!
//! Made by the reader and the validation rules; printed by the command line and answered
//! by admission. Codes are stable, messages are for people.

use std::fmt;

use serde::Serialize;

use crate::FieldPath;
use crate::schema::Place;

/// Stable code of a [`Problem`].
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize)]
pub enum ProblemCode {
    /// The file is larger than a spec can be.
    TooLarge,
    /// The file is not text.
    NotText,
    /// The file is neither YAML nor JSON.
    Syntax,
    /// The file holds no document.
    Empty,
    /// A document is of a kind or version that is not read.
    UnsupportedKind,
    /// No such field.
    UnknownField,
    /// No such word for a field that takes one of a few.
    UnknownValue,
    /// A field is given twice.
    DuplicateField,
    /// A field holds something of another type.
    WrongType,
    /// A field must be given.
    Required,
    /// A field is not implemented yet.
    Planned,
    /// A field will not be implemented.
    Refused,
    /// A field that works in a cluster, and not on one host.
    ClusterOnly,
    /// A field that works on one host, and not in a cluster.
    HostOnly,
    /// A value is out of bounds or malformed.
    Invalid,
    /// Two fields contradict each other.
    Conflict,
    /// Two items have the same name.
    DuplicateName,
    /// A name refers to nothing.
    NotFound,
}

/// A place in the text, both from 1.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize)]
pub struct Position {
    /// Line.
    pub line: usize,
    /// Column, in characters.
    pub column: usize,
}

/// Which document of a file.
#[derive(Clone, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Serialize)]
pub struct DocumentName {
    /// Its number, from 0.
    pub index: usize,
    /// Its kind, where it says.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub kind: Option<String>,
    /// Its name, where it has one.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub name: Option<String>,
}

/// One thing that is wrong.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct Problem {
    /// The document it is in.
    pub document: DocumentName,
    /// The field it is about; empty for the document as a whole.
    pub path: FieldPath,
    /// Stable code.
    pub code: ProblemCode,
    /// What is wrong and what to do.
    pub message: String,
    /// Where the field is in the text, where known.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub position: Option<Position>,
}

/// Everything that is wrong with a file; at least one problem, in the order of the file.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
#[serde(transparent)]
pub struct Problems(Vec<Problem>);

impl Problems {
    /// The problems, if there are any.
    pub(crate) fn check(problems: Vec<Problem>) -> Result<(), Self> {
        if problems.is_empty() { Ok(()) } else { Err(Self(problems)) }
    }

    /// The only problem of a file.
    pub(crate) fn one(code: ProblemCode, message: String, position: Option<Position>) -> Self {
        let document = DocumentName::default();
        Self(vec![Problem { document, path: FieldPath::root(), code, message, position }])
    }

    /// The problems in the order of the file.
    pub fn iter(&self) -> std::slice::Iter<'_, Problem> {
        self.0.iter()
    }
}

impl<'a> IntoIterator for &'a Problems {
    type Item = &'a Problem;
    type IntoIter = std::slice::Iter<'a, Problem>;

    fn into_iter(self) -> Self::IntoIter {
        self.iter()
    }
}

impl fmt::Display for Position {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "line {}, column {}", self.line, self.column)
    }
}

impl fmt::Display for DocumentName {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "document {}", self.index + 1)?;
        match (&self.kind, &self.name) {
            (Some(kind), Some(name)) => write!(f, " ({kind} {name})"),
            (Some(word), None) | (None, Some(word)) => write!(f, " ({word})"),
            (None, None) => Ok(()),
        }
    }
}

impl fmt::Display for Problem {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        if !self.path.segments().is_empty() {
            write!(f, "{}: ", self.path)?;
        }
        f.write_str(&self.message)?;
        match self.position {
            Some(position) => write!(f, " ({position})"),
            None => Ok(()),
        }
    }
}

impl fmt::Display for Problems {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let several = self.0.iter().any(|problem| problem.document.index > 0);
        for (number, problem) in self.0.iter().enumerate() {
            if number > 0 {
                f.write_str("\n")?;
            }
            if several {
                write!(f, "{}: ", problem.document)?;
            }
            write!(f, "{problem}")?;
        }
        Ok(())
    }
}

impl std::error::Error for Problems {}

/// A problem before it is known in which document and where in the text it is.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Finding {
    pub(crate) path: FieldPath,
    pub(crate) code: ProblemCode,
    pub(crate) message: String,
    pub(crate) position: Option<Position>,
}

/// Collects findings about a document.
#[derive(Debug)]
pub(crate) struct Findings {
    /// Where its guest is to run.
    pub(crate) place: Place,
    pub(crate) list: Vec<Finding>,
}

impl Findings {
    /// None yet, of a guest that is to run there.
    pub(crate) const fn at_place(place: Place) -> Self {
        Self { place, list: Vec::new() }
    }

    /// Whether its guest is to run in a cluster.
    pub(crate) fn in_cluster(&self) -> bool {
        self.place == Place::Cluster
    }

    /// Adds one whose place in the text follows from its path.
    pub(crate) fn add(&mut self, path: &FieldPath, code: ProblemCode, message: impl Into<String>) {
        self.at(path, code, message, None);
    }

    /// Adds one.
    pub(crate) fn at(
        &mut self,
        path: &FieldPath,
        code: ProblemCode,
        message: impl Into<String>,
        position: Option<Position>,
    ) {
        self.list.push(Finding { path: path.clone(), code, message: message.into(), position });
    }
}
