//! Why something was not published.

use std::error::Error as _;
use std::time::Duration;

use pinion_endpoint::chain;
use pinion_node_agent::PublishOutcome;

const NOT_FOUND: u16 = 404;

/// Why something was not published.
#[derive(Debug, thiserror::Error)]
pub enum PublishError {
    /// The API server refused it.
    #[error("Cannot {verb} {what}: the API server says: {message}")]
    Refused {
        /// What was to be done.
        verb: &'static str,
        /// With what.
        what: String,
        /// What it says.
        message: String,
        /// Its code.
        code: u16,
    },
    /// It was not reached, or its answer was none.
    #[error("Cannot {verb} {what}: {cause}")]
    Unanswered {
        /// What was to be done.
        verb: &'static str,
        /// With what.
        what: String,
        /// Why.
        cause: String,
    },
    /// It did not answer in time.
    #[error("Cannot {verb} {what}: the API server has not answered for {} s", limit.as_secs())]
    Silent {
        /// What was to be done.
        verb: &'static str,
        /// With what.
        what: String,
        /// How long it was waited for.
        limit: Duration,
    },
    /// There is nothing that says where it is.
    #[error("Cannot find the API server: there is neither KUBECONFIG nor a service account: {0}")]
    NoServer(String),
}

impl PublishError {
    pub(crate) fn of(verb: &'static str, what: String, error: kube::Error) -> Self {
        match error {
            kube::Error::Api(status) => {
                Self::Refused { verb, what, message: status.message.clone(), code: status.code }
            }
            other => {
                let cause = other.source().map_or_else(|| other.to_string(), chain);
                Self::Unanswered { verb, what, cause }
            }
        }
    }

    /// Whether there is no such object.
    pub(crate) const fn is_absent(&self) -> bool {
        matches!(self, Self::Refused { code: NOT_FOUND, .. })
    }

    /// As it is counted.
    #[must_use]
    pub const fn outcome(&self) -> PublishOutcome {
        match self {
            Self::Refused { .. } => PublishOutcome::Refused,
            Self::Unanswered { .. } | Self::Silent { .. } | Self::NoServer(_) => PublishOutcome::Unanswered,
        }
    }
}
