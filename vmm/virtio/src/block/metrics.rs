//! What a disk has done. Written by the thread that serves it, read by anybody.

use std::collections::BTreeMap;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Mutex, PoisonError};
use std::time::Duration;

use vmm_block::{DiskError, FaultKind};

/// Operations of one kind.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct OperationStats {
    /// Finished well.
    pub operations: u64,
    /// Bytes moved by those.
    pub bytes: u64,
    /// Time spent in all of them, failed ones too.
    pub time: Duration,
}

/// A snapshot of a disk's counters, since the machine was built.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct BlockStats {
    /// Reads.
    pub reads: OperationStats,
    /// Writes.
    pub writes: OperationStats,
    /// Flushes, also those that write-through implies.
    pub flushes: OperationStats,
    /// Discards and writes of zeroes.
    pub discards: OperationStats,
    /// Requests that the guest got an error for, by the reason's label.
    pub errors: BTreeMap<&'static str, u64>,
    /// The newest such error, in words, with what to do.
    pub last_error: Option<String>,
}

#[derive(Debug, Default)]
struct Counters {
    operations: AtomicU64,
    bytes: AtomicU64,
    nanoseconds: AtomicU64,
}

impl Counters {
    fn add(&self, bytes: Option<u64>, time: Duration) {
        if let Some(bytes) = bytes {
            self.operations.fetch_add(1, Ordering::Relaxed);
            self.bytes.fetch_add(bytes, Ordering::Relaxed);
        }
        let nanoseconds = u64::try_from(time.as_nanos()).unwrap_or(u64::MAX);
        self.nanoseconds.fetch_add(nanoseconds, Ordering::Relaxed);
    }

    fn get(&self) -> OperationStats {
        OperationStats {
            operations: self.operations.load(Ordering::Relaxed),
            bytes: self.bytes.load(Ordering::Relaxed),
            time: Duration::from_nanos(self.nanoseconds.load(Ordering::Relaxed)),
        }
    }
}

/// Which counters an operation goes to.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Operation {
    Read,
    Write,
    Flush,
    Discard,
}

#[derive(Debug, Default)]
struct Errors {
    counts: BTreeMap<&'static str, u64>,
    last: Option<String>,
}

/// The counters of one disk.
#[derive(Debug, Default)]
pub struct BlockMetrics {
    reads: Counters,
    writes: Counters,
    flushes: Counters,
    discards: Counters,
    errors: Mutex<Errors>,
}

impl BlockMetrics {
    /// The present values.
    #[must_use]
    pub fn snapshot(&self) -> BlockStats {
        let errors = self.errors.lock().unwrap_or_else(PoisonError::into_inner);
        BlockStats {
            reads: self.reads.get(),
            writes: self.writes.get(),
            flushes: self.flushes.get(),
            discards: self.discards.get(),
            errors: errors.counts.clone(),
            last_error: errors.last.clone(),
        }
    }

    /// `bytes` is none when the operation failed.
    pub(crate) fn count(&self, operation: Operation, bytes: Option<u64>, time: Duration) {
        let counters = match operation {
            Operation::Read => &self.reads,
            Operation::Write => &self.writes,
            Operation::Flush => &self.flushes,
            Operation::Discard => &self.discards,
        };
        counters.add(bytes, time);
    }

    pub(crate) fn count_error(&self, error: &DiskError) {
        self.fail(error.kind, format!("{error} ({})", error.source));
    }

    /// The guest asked for what its disk does not have.
    pub(crate) fn count_bad_request(&self, disk: &str) {
        self.fail(
            FaultKind::OutOfRange,
            format!("The guest made an impossible request to disk image {disk}"),
        );
    }

    fn fail(&self, kind: FaultKind, message: String) {
        let mut errors = self.errors.lock().unwrap_or_else(PoisonError::into_inner);
        *errors.counts.entry(kind.label()).or_default() += 1;
        errors.last = Some(message);
    }
}
