//! The event loop of one I/O or emulator thread: level-triggered epoll.
//!
//! Whoever spawns a thread builds an [`EventLoop`] and calls [`EventLoop::run`] on it; the
//! loop never creates a thread of its own. Devices hold an [`EventLoopHandle`], which any
//! thread may use at any time, also before the loop runs and after it stopped.
//! Removing a [`Subscriber`] returns only once it is not running: that is the proof of
//! quiescence that device resets rest on. A subscriber must never block for long, and must
//! never wait for a thread that may be removing it.

#![forbid(unsafe_code)]

mod registry;

pub use registry::{Control, SubscriberId};

use std::fmt;
use std::io;
use std::os::fd::{AsRawFd, RawFd};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use registry::Registry;
use vmm_sys_util::epoll::{EpollEvent, EventSet};
use vmm_sys_util::eventfd::{EFD_CLOEXEC, EFD_NONBLOCK, EventFd};

/// Events taken from the kernel in one go; more wait for the next round.
const BATCH: usize = 32;
const FOREVER: i32 = -1;

/// What a subscriber wants to hear of on one file descriptor.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Watch {
    /// Readable, or hung up.
    Readable,
    /// Writable, or hung up.
    Writable,
    /// Both.
    Both,
    /// Errors and hang-ups only: the kernel always reports those.
    Nothing,
}

impl Watch {
    fn event_set(self) -> EventSet {
        match self {
            Self::Readable => EventSet::IN,
            Self::Writable => EventSet::OUT,
            Self::Both => EventSet::IN | EventSet::OUT,
            Self::Nothing => EventSet::empty(),
        }
    }
}

/// A file descriptor to watch. The subscriber keeps it open for as long as it is watched.
#[derive(Clone, Copy, Debug)]
pub struct Interest {
    fd: RawFd,
    token: u32,
    watch: Watch,
}

impl Interest {
    /// Watches `source`; its events carry `token`.
    pub fn new(source: &(impl AsRawFd + ?Sized), token: u32, watch: Watch) -> Self {
        Self { fd: source.as_raw_fd(), token, watch }
    }
}

/// One ready file descriptor.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Event {
    /// The token given in [`Interest::new`].
    pub token: u32,
    /// There is something to read.
    pub readable: bool,
    /// There is room to write.
    pub writable: bool,
    /// The other side hung up, or the descriptor is broken. Reported again and again until
    /// the descriptor is forgotten.
    pub hung_up: bool,
}

impl Event {
    fn new(token: u32, set: EventSet) -> Self {
        Self {
            token,
            readable: set.contains(EventSet::IN),
            writable: set.contains(EventSet::OUT),
            hung_up: set.intersects(EventSet::HANG_UP | EventSet::ERROR | EventSet::READ_HANG_UP),
        }
    }
}

/// Code that runs on the loop's thread when a descriptor is ready.
pub trait Subscriber: Send + fmt::Debug {
    /// One descriptor is ready. It is reported until it is no longer ready, so read it or
    /// change its [`Watch`]. Do a bounded amount of work, then return.
    fn ready(&mut self, event: Event, control: &mut Control<'_>);
}

/// Why a loop could not be made, run or changed.
#[derive(Debug, thiserror::Error)]
pub enum EventLoopError {
    /// The kernel has no more descriptors for us.
    #[error("Cannot create an event loop; raise the limit of open files (RLIMIT_NOFILE)")]
    Create(#[source] io::Error),
    /// Waiting failed.
    #[error("Cannot wait for events")]
    Wait(#[source] io::Error),
    /// A descriptor cannot be watched (regular files cannot), is closed, or is watched already.
    #[error("Cannot {action} file descriptor {fd} in an event loop")]
    Watch {
        /// What was attempted: "watch", "change" or "forget".
        action: &'static str,
        /// The descriptor.
        fd: RawFd,
        /// What the kernel said.
        #[source]
        source: io::Error,
    },
}

/// What the loop and its handles share.
#[derive(Debug)]
struct Shared {
    registry: Registry,
    wake: EventFd,
    stop: AtomicBool,
}

/// The loop itself; one thread runs it.
#[derive(Debug)]
pub struct EventLoop {
    shared: Arc<Shared>,
}

/// Adds, removes and stops from any thread.
#[derive(Clone, Debug)]
pub struct EventLoopHandle {
    shared: Arc<Shared>,
}

impl EventLoop {
    /// A loop without subscribers.
    ///
    /// # Errors
    /// [`EventLoopError::Create`] when the process is out of file descriptors.
    pub fn new() -> Result<Self, EventLoopError> {
        let wake = EventFd::new(EFD_NONBLOCK | EFD_CLOEXEC).map_err(EventLoopError::Create)?;
        let registry = Registry::new(wake.as_raw_fd()).map_err(EventLoopError::Create)?;
        Ok(Self { shared: Arc::new(Shared { registry, wake, stop: AtomicBool::new(false) }) })
    }

    /// A handle for other threads.
    #[must_use]
    pub fn handle(&self) -> EventLoopHandle {
        EventLoopHandle { shared: Arc::clone(&self.shared) }
    }

    /// Serves events on the calling thread until [`EventLoopHandle::stop`]. A stop that came
    /// before counts. Subscribers stay, so the loop may be run again.
    ///
    /// # Errors
    /// [`EventLoopError::Wait`] when the kernel refuses to wait.
    pub fn run(&self) -> Result<(), EventLoopError> {
        let mut events = [EpollEvent::default(); BATCH];
        loop {
            if self.shared.stop.swap(false, Ordering::AcqRel) {
                return Ok(());
            }
            self.round(&mut events, FOREVER)?;
        }
    }

    /// Serves what is ready now on the calling thread, without waiting; says how many events
    /// there were. For callers that bring their own loop, such as tests.
    ///
    /// # Errors
    /// As [`EventLoop::run`].
    pub fn serve_ready(&self) -> Result<usize, EventLoopError> {
        self.round(&mut [EpollEvent::default(); BATCH], 0)
    }

    fn round(&self, events: &mut [EpollEvent], timeout: i32) -> Result<usize, EventLoopError> {
        let ready = match self.shared.registry.wait(timeout, events) {
            Ok(count) => events.get(..count).unwrap_or_default(),
            Err(error) if error.kind() == io::ErrorKind::Interrupted => &[],
            Err(error) => return Err(EventLoopError::Wait(error)),
        };
        for event in ready {
            if !self.shared.registry.dispatch(event) {
                // The wake-up descriptor: drained, its meaning is in `stop`.
                let _ = self.shared.wake.read();
            }
        }
        Ok(ready.len())
    }
}

impl EventLoopHandle {
    /// Adds a subscriber with its descriptors.
    ///
    /// # Errors
    /// [`EventLoopError::Watch`] when a descriptor cannot be watched; nothing is added then.
    pub fn add(
        &self,
        subscriber: Box<dyn Subscriber>,
        interests: &[Interest],
    ) -> Result<SubscriberId, EventLoopError> {
        self.shared.registry.add(subscriber, interests)
    }

    /// Takes a subscriber out and hands it back. When this returns it is not running and will
    /// not run again. `None`: it was removed before. Never call it from that subscriber's own
    /// [`Subscriber::ready`]: use [`Control::remove_me`] there.
    #[must_use = "dropping the subscriber closes what it owns"]
    pub fn remove(&self, id: SubscriberId) -> Option<Box<dyn Subscriber>> {
        self.shared.registry.remove(id)
    }

    /// Makes [`EventLoop::run`] return after the subscriber that is running now.
    pub fn stop(&self) {
        self.shared.stop.store(true, Ordering::Release);
        self.wake();
    }

    /// Wakes the loop's thread, which finds nothing to do and waits on.
    pub fn wake(&self) {
        // Fails only when the counter is full, and then the loop is awake anyway.
        let _ = self.shared.wake.write(1);
    }
}

#[cfg(test)]
mod tests;
