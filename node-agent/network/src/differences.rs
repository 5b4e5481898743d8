//! What was read back, compared with what should be there.

use std::fmt;

use serde::Serialize;

/// Something in the pod that is not as it was made.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct Difference {
    /// What it is.
    pub what: String,
    /// How it should be.
    pub wanted: String,
    /// How it is.
    pub found: String,
}

impl fmt::Display for Difference {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} is {}, and should be {}", self.what, self.found, self.wanted)
    }
}

impl Difference {
    pub(crate) fn list(all: &[Self]) -> String {
        all.iter().map(Self::to_string).collect::<Vec<_>>().join("; ")
    }
}

/// Differences found so far.
#[derive(Debug, Default)]
pub(crate) struct Differences(pub(crate) Vec<Difference>);

impl Differences {
    pub(crate) fn expect(&mut self, what: &str, wanted: &impl ToString, found: &impl ToString) {
        let (wanted, found) = (wanted.to_string(), found.to_string());
        if wanted != found {
            self.0.push(Difference { what: what.to_owned(), wanted, found });
        }
    }
}
