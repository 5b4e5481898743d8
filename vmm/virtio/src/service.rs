//! Queues served by an event loop: started by activation, stopped by reset.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use vmm_event_loop::{EventLoopError, EventLoopHandle, Interest, Subscriber, SubscriberId};

use crate::{ActiveQueue, Chain, QueueError};

/// Chains served in one go; then other devices of the loop have their turn.
const BUDGET: usize = 128;

/// The running half of a device.
#[derive(Debug)]
pub(crate) struct Service {
    event_loop: EventLoopHandle,
    running: Option<(SubscriberId, StopFlag)>,
}

/// Tells a running subscriber to leave at the next chain.
#[derive(Clone, Debug, Default)]
pub(crate) struct StopFlag(Arc<AtomicBool>);

impl StopFlag {
    pub(crate) fn is_set(&self) -> bool {
        self.0.load(Ordering::Acquire)
    }
}

impl Service {
    pub(crate) fn new(event_loop: EventLoopHandle) -> Self {
        Self { event_loop, running: None }
    }

    pub(crate) fn start(
        &mut self,
        subscriber: Box<dyn Subscriber>,
        interests: &[Interest],
        stop: StopFlag,
    ) -> Result<(), EventLoopError> {
        self.stop();
        self.running = Some((self.event_loop.add(subscriber, interests)?, stop));
        Ok(())
    }

    /// Returns when the subscriber does not run and never will again.
    pub(crate) fn stop(&mut self) {
        if let Some((id, stop)) = self.running.take() {
            stop.0.store(true, Ordering::Release);
            drop(self.event_loop.remove(id));
        }
    }
}

impl Drop for Service {
    fn drop(&mut self) {
        self.stop();
    }
}

/// Serves what the driver has made available: `serve` does a chain and says how many bytes it
/// wrote. Each chain is handed back before the next is looked at.
pub(crate) fn drain(
    active: &mut ActiveQueue,
    stop: &StopFlag,
    mut serve: impl FnMut(&Chain) -> Result<u32, QueueError>,
) -> Result<(), QueueError> {
    // Fails when another look was enough already.
    let _ = active.kick.read();
    let mut left = BUDGET;
    for _ in 0..BUDGET {
        active.queue.ignore_kicks()?;
        while let Some(chain) = active.queue.pop()? {
            let written = serve(&chain)?;
            active.queue.push(chain.head(), written)?;
            active.queue.notify()?;
            left -= 1;
            if stop.is_set() {
                return Ok(());
            }
            if left == 0 {
                break;
            }
        }
        if left == 0 {
            break;
        }
        if !active.queue.want_kicks()? {
            return Ok(());
        }
    }
    // There is more: back through the loop, so that others have their turn.
    let _ = active.kick.write(1);
    Ok(())
}
