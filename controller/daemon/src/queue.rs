//! What is to be looked at, and when: each object once, however often it is asked for, and never twice at the same time.
//!
//! Fed by the watchers and by time; emptied by the workers.

use std::collections::{BTreeSet, HashMap, HashSet};
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use tokio::sync::Notify;
use tokio::time::Instant;

use crate::kinds::Kind;

/// An object.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub(crate) struct Key {
    /// Its kind.
    pub(crate) kind: Kind,
    /// Its namespace; empty for the cluster.
    pub(crate) namespace: String,
    /// Its name.
    pub(crate) name: String,
}

/// The queue.
#[derive(Debug, Default)]
pub(crate) struct Queue {
    state: Mutex<State>,
    changed: Notify,
}

#[derive(Debug, Default)]
struct State {
    order: BTreeSet<(Instant, Key)>,
    due: HashMap<Key, Instant>,
    busy: HashSet<Key>,
}

impl Queue {
    /// Has an object looked at after a while; an earlier look that was asked for stays.
    pub(crate) fn add(&self, key: Key, after: Duration) {
        let at = Instant::now().checked_add(after).unwrap_or_else(Instant::now);
        let mut state = self.state();
        if let Some(before) = state.due.get(&key).copied() {
            if before <= at {
                return;
            }
            state.order.remove(&(before, key.clone()));
        }
        state.due.insert(key.clone(), at);
        state.order.insert((at, key));
        drop(state);
        self.changed.notify_waiters();
        self.changed.notify_one();
    }

    /// The next object that is due and that nobody looks at. Whoever takes it says [`Queue::done`].
    pub(crate) async fn take(&self) -> Key {
        loop {
            let changed = self.changed.notified();
            let wait = match self.state().pop(Instant::now()) {
                Ok(key) => return key,
                Err(wait) => wait,
            };
            match wait {
                Some(at) => {
                    tokio::select! {
                        () = changed => {}
                        () = tokio::time::sleep_until(at) => {}
                    }
                }
                None => changed.await,
            }
        }
    }

    /// An object was looked at.
    pub(crate) fn done(&self, key: &Key) {
        self.state().busy.remove(key);
        self.changed.notify_one();
    }

    /// Objects that wait, due or not.
    #[must_use]
    pub(crate) fn len(&self) -> usize {
        self.state().due.len()
    }

    fn state(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl State {
    /// One that is due, or when to look again.
    fn pop(&mut self, now: Instant) -> Result<Key, Option<Instant>> {
        let free = self.order.iter().find(|(_, key)| !self.busy.contains(key)).cloned();
        match free {
            Some((at, key)) if at <= now => {
                self.order.remove(&(at, key.clone()));
                self.due.remove(&key);
                self.busy.insert(key.clone());
                Ok(key)
            }
            Some((at, _)) => Err(Some(at)),
            None => Err(None),
        }
    }
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use super::*;

    fn key(name: &str) -> Key {
        Key { kind: Kind::Instance, namespace: "default".into(), name: name.into() }
    }

    #[tokio::test(start_paused = true)]
    async fn an_object_is_there_once_and_at_the_earliest_time_that_was_asked_for() {
        let queue = Queue::default();
        queue.add(key("a"), Duration::from_secs(60));
        queue.add(key("a"), Duration::from_secs(5));
        queue.add(key("a"), Duration::from_secs(30));
        assert_eq!(queue.len(), 1);
        let began = Instant::now();
        assert_eq!(queue.take().await, key("a"));
        assert_eq!(began.elapsed().as_secs(), 5);
        assert_eq!(queue.len(), 0);
    }

    #[tokio::test(start_paused = true)]
    async fn an_object_that_is_looked_at_waits_until_that_is_done() {
        let queue = Arc::new(Queue::default());
        queue.add(key("a"), Duration::ZERO);
        assert_eq!(queue.take().await, key("a"));
        queue.add(key("a"), Duration::ZERO);
        queue.add(key("b"), Duration::from_millis(1));
        assert_eq!(queue.take().await, key("b"));
        let again = Arc::clone(&queue);
        let taken = tokio::spawn(async move { again.take().await });
        tokio::time::sleep(Duration::from_secs(1)).await;
        assert!(!taken.is_finished());
        queue.done(&key("a"));
        assert_eq!(taken.await.unwrap(), key("a"));
    }

    #[tokio::test]
    async fn many_workers_miss_nothing() {
        let queue = Arc::new(Queue::default());
        let mut workers = tokio::task::JoinSet::new();
        for _ in 0..8 {
            let queue = Arc::clone(&queue);
            let _ = workers.spawn(async move {
                let mut seen = 0;
                while let Ok(key) = tokio::time::timeout(Duration::from_millis(500), queue.take()).await {
                    tokio::task::yield_now().await;
                    queue.done(&key);
                    seen += 1;
                }
                seen
            });
        }
        for number in 0..1000 {
            queue.add(key(&number.to_string()), Duration::from_millis(number % 7));
        }
        assert_eq!(workers.join_all().await.into_iter().sum::<u32>(), 1000);
    }
}
