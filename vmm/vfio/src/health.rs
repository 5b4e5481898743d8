//! How a passed-through function fares: counted by its device, read by whoever asks, from any thread.

use std::fmt;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Mutex, PoisonError};

/// Counters of one function. `news` is called when vectors come or go, or the device is lost: on whichever thread
/// that happens, so it must not wait.
pub struct Health {
    news: Box<dyn Fn() + Send + Sync>,
    vectors: AtomicU64,
    generation: AtomicU64,
    resets: AtomicU64,
    faults: AtomicU64,
    lost: AtomicBool,
    last_fault: Mutex<Option<String>>,
}

/// What [`Health`] says at one moment.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct HealthReport {
    /// Vectors that signal the guest.
    pub vectors: u64,
    /// Changes whenever the host's vectors are set up anew.
    pub generation: u64,
    /// Resets that succeeded.
    pub resets: u64,
    /// Accesses, resets and interrupts that failed.
    pub faults: u64,
    /// The device is gone.
    pub lost: bool,
    /// What failed last.
    pub last_fault: Option<String>,
}

impl Health {
    /// Nothing has happened; `news` is called when something does.
    #[must_use]
    pub fn new(news: impl Fn() + Send + Sync + 'static) -> Self {
        Self {
            news: Box::new(news),
            vectors: AtomicU64::new(0),
            generation: AtomicU64::new(0),
            resets: AtomicU64::new(0),
            faults: AtomicU64::new(0),
            lost: AtomicBool::new(false),
            last_fault: Mutex::new(None),
        }
    }

    /// What it says now.
    #[must_use]
    pub fn report(&self) -> HealthReport {
        let count = |c: &AtomicU64| c.load(Ordering::Relaxed);
        HealthReport {
            vectors: count(&self.vectors),
            generation: count(&self.generation),
            resets: count(&self.resets),
            faults: count(&self.faults),
            lost: self.lost.load(Ordering::Relaxed),
            last_fault: self.last_fault.lock().unwrap_or_else(PoisonError::into_inner).clone(),
        }
    }

    /// The device reported an error that its bus could not correct.
    pub fn reported_error(&self, name: &str) {
        self.fault(format!("{name}: the device reported an uncorrectable bus error"));
    }

    pub(crate) fn vectors_are(&self, count: u64) {
        self.vectors.store(count, Ordering::Relaxed);
        self.generation.fetch_add(1, Ordering::Relaxed);
        self.tell();
    }

    pub(crate) fn was_reset(&self) {
        self.resets.fetch_add(1, Ordering::Relaxed);
    }

    /// A guest can cause faults as fast as it likes: only a new kind of them is told.
    pub(crate) fn fault(&self, what: String) {
        self.faults.fetch_add(1, Ordering::Relaxed);
        let mut last = self.last_fault.lock().unwrap_or_else(PoisonError::into_inner);
        if last.as_ref() != Some(&what) {
            *last = Some(what);
            drop(last);
            self.tell();
        }
    }

    pub(crate) fn is_lost(&self) {
        self.lost.store(true, Ordering::Relaxed);
        self.vectors.store(0, Ordering::Relaxed);
        self.tell();
    }

    fn tell(&self) {
        (self.news)();
    }
}

impl fmt::Debug for Health {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_tuple("Health").field(&self.report()).finish()
    }
}
