//! The entropy device: start and stop.

use std::sync::Arc;

use vmm_event_loop::{EventLoopHandle, Interest, Watch};
use vmm_sys_util::timerfd::TimerFd;

use super::metrics::RngMetrics;
use super::queue::{Allowance, RngWorker, TOKEN_QUEUE, TOKEN_TIMER};
use crate::service::{Service, StopFlag};
use crate::{ActivateError, Activation, DeviceType, VirtioDevice};

/// A virtio entropy device. It gives at most 1 MiB a second, so that a guest cannot keep a
/// host CPU busy with it.
#[derive(Debug)]
pub struct RngDevice {
    metrics: Arc<RngMetrics>,
    service: Service,
}

impl RngDevice {
    /// A device served by `event_loop`.
    #[must_use]
    pub fn new(event_loop: EventLoopHandle) -> Self {
        Self { metrics: Arc::default(), service: Service::new(event_loop) }
    }

    /// Its counters.
    #[must_use]
    pub fn metrics(&self) -> Arc<RngMetrics> {
        Arc::clone(&self.metrics)
    }
}

impl VirtioDevice for RngDevice {
    fn device_type(&self) -> DeviceType {
        DeviceType::Rng
    }

    fn features(&self) -> u64 {
        0
    }

    fn queue_sizes(&self) -> &[u16] {
        &[64]
    }

    fn config_read(&self, _offset: u64, data: &mut [u8]) {
        data.fill(0);
    }

    fn activate(&mut self, activation: Activation) -> Result<(), ActivateError> {
        let Activation { queues, interrupt, .. } = activation;
        let active = queues.into_iter().next().ok_or(ActivateError::QueueMissing { index: 0 })?;
        let timer = TimerFd::new().map_err(std::io::Error::from)?;
        let stop = StopFlag::default();
        let interests = [
            Interest::new(&*active.kick, TOKEN_QUEUE, Watch::Readable),
            Interest::new(&timer, TOKEN_TIMER, Watch::Readable),
        ];
        let metrics = Arc::clone(&self.metrics);
        let allowance = Allowance::full();
        let worker = RngWorker { active, interrupt, stop: stop.clone(), timer, allowance, metrics };
        Ok(self.service.start(Box::new(worker), &interests, stop)?)
    }

    fn reset(&mut self) {
        self.service.stop();
    }
}
