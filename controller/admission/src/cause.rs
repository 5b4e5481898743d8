//! What is wrong with a field, as `metav1.StatusCause` says it.

use std::fmt;

use pinion_api::{Problem, ProblemCode};
use serde_json::Value;

use crate::Kind;

/// One thing that is wrong.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Cause {
    /// Path of the field; empty for the object as a whole.
    pub field: String,
    /// Of what sort it is.
    pub kind: CauseKind,
    /// What is wrong and what to do.
    pub message: String,
}

/// Of what sort a cause is. Source: `metav1.CauseType`.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum CauseKind {
    /// `FieldValueRequired`.
    Required,
    /// `FieldValueDuplicate`.
    Duplicate,
    /// `FieldValueInvalid`.
    Invalid,
    /// `FieldValueNotSupported`.
    NotSupported,
    /// `FieldValueNotFound`.
    NotFound,
}

impl CauseKind {
    /// As Kubernetes writes it.
    #[must_use]
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Required => "FieldValueRequired",
            Self::Duplicate => "FieldValueDuplicate",
            Self::Invalid => "FieldValueInvalid",
            Self::NotSupported => "FieldValueNotSupported",
            Self::NotFound => "FieldValueNotFound",
        }
    }

    const fn of(code: ProblemCode) -> Self {
        match code {
            ProblemCode::Required => Self::Required,
            ProblemCode::DuplicateField | ProblemCode::DuplicateName => Self::Duplicate,
            ProblemCode::UnknownValue
            | ProblemCode::Planned
            | ProblemCode::Refused
            | ProblemCode::ClusterOnly
            | ProblemCode::HostOnly
            | ProblemCode::UnsupportedKind => Self::NotSupported,
            ProblemCode::NotFound => Self::NotFound,
            ProblemCode::TooLarge
            | ProblemCode::NotText
            | ProblemCode::Syntax
            | ProblemCode::Empty
            | ProblemCode::UnknownField
            | ProblemCode::WrongType
            | ProblemCode::Invalid
            | ProblemCode::Conflict => Self::Invalid,
        }
    }
}

impl Cause {
    pub(crate) fn of(problem: &Problem) -> Self {
        let path = &problem.path;
        let field = if path.segments().is_empty() { String::new() } else { path.to_string() };
        Self { field, kind: CauseKind::of(problem.code), message: problem.message.clone() }
    }
}

impl fmt::Display for Cause {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        if !self.field.is_empty() {
            write!(f, "{}: ", self.field)?;
        }
        f.write_str(&self.message)
    }
}

/// What of an object was changed that must stay as it was made.
pub(crate) fn fixed(kind: Kind, old: &Value, new: &Value) -> Vec<Cause> {
    let (field, message) = match kind {
        // Rule 56 of KubeVirt's.
        Kind::Instance => (
            "spec",
            "a guest stays what it was started as: change the template of its VirtualMachine and restart it, or delete \
             the instance and make another",
        ),
        Kind::ReplicaSet => ("spec.selector", "cannot be changed: instances that it has would be nobody's"),
        Kind::Machine => return Vec::new(),
    };
    let at = |object: &'_ Value| object.pointer(&format!("/{}", field.replace('.', "/"))).cloned();
    if at(old) == at(new) {
        return Vec::new();
    }
    vec![Cause { field: field.to_owned(), kind: CauseKind::Invalid, message: message.to_owned() }]
}
