//! How publishing to an API server goes: counted by whoever publishes, shown with the node's metrics.
//!
//! Atomic counters: neither waits for the other.

use std::sync::atomic::{AtomicI64, AtomicU64, Ordering};

use jiff::Timestamp;

/// How a publication went.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum PublishOutcome {
    /// The API server stored it.
    Stored,
    /// The API server said no.
    Refused,
    /// The API server did not answer.
    Unanswered,
}

impl PublishOutcome {
    /// All of them.
    pub const ALL: [Self; 3] = [Self::Stored, Self::Refused, Self::Unanswered];

    /// As the metric's label has it.
    #[must_use]
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Stored => "stored",
            Self::Refused => "refused",
            Self::Unanswered => "unanswered",
        }
    }
}

/// Counts of publications.
#[derive(Debug, Default)]
pub struct Published {
    stored: AtomicU64,
    refused: AtomicU64,
    unanswered: AtomicU64,
    last: AtomicI64,
}

impl Published {
    /// One went so.
    pub fn count(&self, outcome: PublishOutcome) {
        let _ = self.of(outcome).fetch_add(1, Ordering::Relaxed);
        if outcome == PublishOutcome::Stored {
            self.last.store(Timestamp::now().as_millisecond(), Ordering::Relaxed);
        }
    }

    /// How many went so.
    #[must_use]
    pub fn total(&self, outcome: PublishOutcome) -> u64 {
        self.of(outcome).load(Ordering::Relaxed)
    }

    /// When the last was stored; `None` before the first.
    #[must_use]
    pub fn last(&self) -> Option<Timestamp> {
        Timestamp::from_millisecond(self.last.load(Ordering::Relaxed))
            .ok()
            .filter(|at| at.as_millisecond() > 0)
    }

    const fn of(&self, outcome: PublishOutcome) -> &AtomicU64 {
        match outcome {
            PublishOutcome::Stored => &self.stored,
            PublishOutcome::Refused => &self.refused,
            PublishOutcome::Unanswered => &self.unanswered,
        }
    }
}
