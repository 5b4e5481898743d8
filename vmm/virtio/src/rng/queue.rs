//! Fills the driver's buffers with random bytes, on the emulator thread.

use std::sync::Arc;
use std::time::Duration;

use vm_memory::{GuestMemoryMmap, Permissions};
use vmm_event_loop::{Control, Event, Subscriber};
use vmm_sys_util::timerfd::TimerFd;

use super::metrics::RngMetrics;
use crate::buffers::Buffers;
use crate::service::StopFlag;
use crate::{ActiveQueue, Chain, QueueError, VirtioInterrupt};

pub(crate) const TOKEN_QUEUE: u32 = 0;
pub(crate) const TOKEN_TIMER: u32 = 1;

/// Bytes of one buffer that are filled at most; a driver asks again for more.
const CHUNK: usize = 4096;
/// Bytes for each period.
const ALLOWANCE: u64 = 64 * 1024;
/// Looks at the queue in one go.
const ROUNDS: usize = 64;
const PERIOD: Duration = Duration::from_millis(64);

/// What may still be given in this period.
#[derive(Debug)]
pub(crate) struct Allowance(u64);

impl Allowance {
    pub(crate) fn full() -> Self {
        Self(ALLOWANCE)
    }
}

#[derive(Debug)]
pub(crate) struct RngWorker {
    pub(crate) active: ActiveQueue,
    pub(crate) interrupt: Arc<VirtioInterrupt>,
    pub(crate) stop: StopFlag,
    pub(crate) timer: TimerFd,
    pub(crate) allowance: Allowance,
    pub(crate) metrics: Arc<RngMetrics>,
}

/// Why filling stopped.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Pause {
    /// Nothing to fill.
    Idle,
    /// The allowance is used up.
    Spent,
}

impl Subscriber for RngWorker {
    fn ready(&mut self, event: Event, control: &mut Control<'_>) {
        if event.token == TOKEN_TIMER {
            // Only says how many periods have passed; one allowance is enough.
            let _ = self.timer.wait();
            self.allowance = Allowance::full();
        } else {
            // Fails when another look was enough already.
            let _ = self.active.kick.read();
        }
        match self.fill() {
            Ok(Pause::Idle) => {}
            Ok(Pause::Spent) => {
                self.metrics.throttle();
                // A timer that cannot be set would silence the device for good.
                if self.timer.reset(PERIOD, None).is_err() {
                    self.interrupt.needs_reset();
                    control.remove_me();
                }
            }
            Err(_) => {
                self.interrupt.needs_reset();
                control.remove_me();
            }
        }
    }
}

impl RngWorker {
    fn fill(&mut self) -> Result<Pause, QueueError> {
        let memory = self.active.queue.memory();
        for _ in 0..ROUNDS {
            self.active.queue.ignore_kicks()?;
            while self.allowance.0 > 0 {
                let Some(chain) = self.active.queue.pop()? else { break };
                let written = fill_chain(&memory, &chain, self.allowance.0)?;
                self.allowance.0 -= u64::from(written).clamp(1, self.allowance.0);
                self.metrics.give(written.into());
                self.active.queue.push(chain.head(), written)?;
                self.active.queue.notify()?;
                if self.stop.is_set() {
                    return Ok(Pause::Idle);
                }
            }
            if self.allowance.0 == 0 {
                return Ok(Pause::Spent);
            }
            if !self.active.queue.want_kicks()? {
                return Ok(Pause::Idle);
            }
        }
        // There is more: back through the loop, so that others have their turn.
        let _ = self.active.kick.write(1);
        Ok(Pause::Idle)
    }
}

fn fill_chain(memory: &GuestMemoryMmap, chain: &Chain, limit: u64) -> Result<u32, QueueError> {
    let buffers = Buffers::new(memory, &chain.writable, Permissions::Write)?;
    if buffers.len() == 0 {
        return Err(QueueError::Request);
    }
    let mut bytes = [0; CHUNK];
    let len = usize::try_from(buffers.len().min(limit)).unwrap_or(CHUNK).min(CHUNK);
    let bytes = bytes.get_mut(..len).unwrap_or_default();
    // Without entropy the buffer goes back empty: the driver's users wait or ask elsewhere.
    if getrandom::fill(bytes).is_err() {
        return Ok(0);
    }
    u32::try_from(buffers.write_from(bytes)).map_err(|_| QueueError::Buffer)
}
