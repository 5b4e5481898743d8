//! One line of the diagnosis.

use serde::Serialize;

use crate::wrap::wrapped;

/// What was found about one property of the host.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "camelCase")]
pub(crate) struct Check {
    /// Stable name of the property.
    pub(crate) name: &'static str,
    /// Whether it is as deterministic guests need it.
    pub(crate) verdict: Verdict,
    /// What was found.
    pub(crate) finding: String,
    /// What to do about it; absent where it holds.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(crate) remedy: Option<String>,
}

/// Whether a property is as deterministic guests need it.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "camelCase")]
pub(crate) enum Verdict {
    /// It is.
    Holds,
    /// It is not: guests run, but may be disturbed, or some specs are refused.
    Lacks,
    /// It is not, and no guest can run.
    Fails,
}

impl Check {
    /// The property is as it should be.
    pub(crate) fn holds(name: &'static str, finding: impl Into<String>) -> Self {
        Self { name, verdict: Verdict::Holds, finding: finding.into(), remedy: None }
    }

    /// Guests run, but may be disturbed.
    pub(crate) fn lacks(name: &'static str, finding: impl Into<String>, remedy: impl Into<String>) -> Self {
        Self { name, verdict: Verdict::Lacks, finding: finding.into(), remedy: Some(remedy.into()) }
    }

    /// No guest can run.
    pub(crate) fn fails(name: &'static str, finding: impl Into<String>, remedy: impl Into<String>) -> Self {
        Self { name, verdict: Verdict::Fails, finding: finding.into(), remedy: Some(remedy.into()) }
    }

    /// The check as lines of at most `width` columns.
    pub(crate) fn picture(&self, width: usize) -> String {
        let mark = match self.verdict {
            Verdict::Holds => '✓',
            Verdict::Lacks => '!',
            Verdict::Fails => '✗',
        };
        let mut lines =
            wrapped(&format!("{mark} "), &format!("{:<14} {}", self.name, self.finding), 17, width);
        if let Some(remedy) = &self.remedy {
            lines.push_str(&wrapped(&" ".repeat(17), &format!("→ {remedy}"), 19, width));
        }
        lines
    }
}
