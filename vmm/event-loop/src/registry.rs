//! Who listens to which descriptor. Shared by the loop's thread and all handles.
//!
//! Each subscriber has its own lock, held while it runs. The map's lock is held only for
//! look-ups and is never held together with a wait for a subscriber.

use std::collections::HashMap;
use std::io;
use std::os::fd::RawFd;
use std::sync::atomic::{AtomicU32, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use vmm_sys_util::epoll::{ControlOperation, Epoll, EpollEvent};

use crate::{Event, EventLoopError, Interest, Subscriber, Watch};

/// Identifies a subscriber within its loop.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct SubscriberId(u32);

/// The id that marks the loop's own wake-up descriptor.
const WAKE: u32 = 0;

#[derive(Debug)]
struct Slot {
    subscriber: Option<Box<dyn Subscriber>>,
    watched: Vec<(u32, RawFd)>,
}

#[derive(Debug)]
pub(crate) struct Registry {
    epoll: Epoll,
    next: AtomicU32,
    slots: Mutex<HashMap<u32, Arc<Mutex<Slot>>>>,
}

fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

fn key(id: u32, token: u32) -> u64 {
    (u64::from(id) << 32) | u64::from(token)
}

impl Registry {
    pub(crate) fn new(wake: RawFd) -> io::Result<Self> {
        let epoll = Epoll::new()?;
        let event = EpollEvent::new(Watch::Readable.event_set(), key(WAKE, 0));
        epoll.ctl(ControlOperation::Add, wake, event)?;
        Ok(Self { epoll, next: AtomicU32::new(WAKE + 1), slots: Mutex::default() })
    }

    /// Waits at most `timeout` milliseconds; negative: for as long as it takes.
    pub(crate) fn wait(&self, timeout: i32, events: &mut [EpollEvent]) -> io::Result<usize> {
        self.epoll.wait(timeout, events)
    }

    pub(crate) fn add(
        &self,
        subscriber: Box<dyn Subscriber>,
        interests: &[Interest],
    ) -> Result<SubscriberId, EventLoopError> {
        let id = self.next.fetch_add(1, Ordering::Relaxed);
        let slot = Arc::new(Mutex::new(Slot { subscriber: Some(subscriber), watched: Vec::new() }));
        // Held until all descriptors are watched: an early event waits for it.
        let mut guard = lock(&slot);
        lock(&self.slots).insert(id, Arc::clone(&slot));
        for interest in interests {
            if let Err(error) = self.watch(id, &mut guard.watched, *interest) {
                lock(&self.slots).remove(&id);
                self.forget_all(&mut guard.watched);
                guard.subscriber = None;
                return Err(error);
            }
        }
        drop(guard);
        Ok(SubscriberId(id))
    }

    pub(crate) fn remove(&self, id: SubscriberId) -> Option<Box<dyn Subscriber>> {
        let slot = lock(&self.slots).remove(&id.0)?;
        let mut slot = lock(&slot);
        self.forget_all(&mut slot.watched);
        slot.subscriber.take()
    }

    /// Runs the subscriber of an event; false when the event is the loop's own.
    pub(crate) fn dispatch(&self, event: &EpollEvent) -> bool {
        let [i0, i1, i2, i3, t0, t1, t2, t3] = event.data().to_be_bytes();
        let (id, token) = (u32::from_be_bytes([i0, i1, i2, i3]), u32::from_be_bytes([t0, t1, t2, t3]));
        if id == WAKE {
            return false;
        }
        let Some(slot) = lock(&self.slots).get(&id).cloned() else { return true };
        let mut slot = lock(&slot);
        let Slot { subscriber, watched } = &mut *slot;
        // An earlier event of the same batch may have ended the subscriber or this watch.
        if !watched.iter().any(|&(watched, _)| watched == token) {
            return true;
        }
        let Some(running) = subscriber else { return true };
        let mut control = Control { registry: self, id, watched, ended: false };
        running.ready(Event::new(token, event.event_set()), &mut control);
        if control.ended {
            self.forget_all(watched);
            *subscriber = None;
            lock(&self.slots).remove(&id);
        }
        true
    }

    fn watch(
        &self,
        id: u32,
        watched: &mut Vec<(u32, RawFd)>,
        interest: Interest,
    ) -> Result<(), EventLoopError> {
        let Interest { fd, token, watch } = interest;
        self.control(ControlOperation::Add, "watch", fd, EpollEvent::new(watch.event_set(), key(id, token)))?;
        watched.push((token, fd));
        Ok(())
    }

    fn control(
        &self,
        operation: ControlOperation,
        action: &'static str,
        fd: RawFd,
        event: EpollEvent,
    ) -> Result<(), EventLoopError> {
        self.epoll.ctl(operation, fd, event).map_err(|source| EventLoopError::Watch { action, fd, source })
    }

    fn forget_all(&self, watched: &mut Vec<(u32, RawFd)>) {
        for (_, fd) in watched.drain(..) {
            // A descriptor that was closed early is no longer watched, which is what we want.
            let _ = self.epoll.ctl(ControlOperation::Delete, fd, EpollEvent::default());
        }
    }
}

/// What a running subscriber may change about itself.
#[derive(Debug)]
pub struct Control<'a> {
    registry: &'a Registry,
    id: u32,
    watched: &'a mut Vec<(u32, RawFd)>,
    ended: bool,
}

impl Control<'_> {
    /// Watches one more descriptor.
    ///
    /// # Errors
    /// [`EventLoopError::Watch`] when the kernel refuses.
    pub fn add(&mut self, interest: Interest) -> Result<(), EventLoopError> {
        self.registry.watch(self.id, self.watched, interest)
    }

    /// Changes what is watched on a descriptor.
    ///
    /// # Errors
    /// [`EventLoopError::Watch`] when it is not watched.
    pub fn change(&mut self, interest: Interest) -> Result<(), EventLoopError> {
        let Interest { fd, token, watch } = interest;
        let event = EpollEvent::new(watch.event_set(), key(self.id, token));
        self.registry.control(ControlOperation::Modify, "change", fd, event)?;
        for entry in self.watched.iter_mut().filter(|entry| entry.1 == fd) {
            entry.0 = token;
        }
        Ok(())
    }

    /// Watches the descriptor of `interest` no more.
    ///
    /// # Errors
    /// [`EventLoopError::Watch`] when it is not watched.
    pub fn forget(&mut self, interest: Interest) -> Result<(), EventLoopError> {
        let fd = interest.fd;
        self.registry.control(ControlOperation::Delete, "forget", fd, EpollEvent::default())?;
        self.watched.retain(|&(_, watched)| watched != fd);
        Ok(())
    }

    /// Drops this subscriber once it returns.
    pub fn remove_me(&mut self) {
        self.ended = true;
    }
}
