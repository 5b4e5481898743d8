//! Whether a change may be stored, and what is said of it.

use crate::Cause;

/// Most causes in a message.
const SHOWN: usize = 20;

/// Whether a change may be stored.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Verdict {
    /// It may.
    Allowed,
    /// It may not, for these reasons; at least one.
    Refused(Vec<Cause>),
}

impl Verdict {
    /// Whether it may.
    #[must_use]
    pub const fn is_allowed(&self) -> bool {
        matches!(self, Self::Allowed)
    }

    /// A refusal for people, a line for each cause; `None` where it is allowed. `name` is the object's.
    #[must_use]
    pub fn message(&self, kind: &str, name: &str) -> Option<String> {
        match self {
            Self::Allowed => None,
            Self::Refused(causes) => Some(message(kind, name, causes)),
        }
    }
}

/// One problem on the line, several below it.
fn message(kind: &str, name: &str, causes: &[Cause]) -> String {
    let lead = if name.is_empty() { kind.to_owned() } else { format!("{kind} {name:?}") };
    if let [only] = causes {
        return format!("{lead} is invalid: {only}");
    }
    let mut text = format!("{lead} is invalid:");
    for cause in causes.iter().take(SHOWN) {
        text.push_str(&format!("\n* {cause}"));
    }
    let left = causes.len().saturating_sub(SHOWN);
    if left > 0 {
        text.push_str(&format!("\n* and {left} more"));
    }
    text
}
