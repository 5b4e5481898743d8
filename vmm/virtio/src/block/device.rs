//! The block device: configuration, start and stop.

use std::sync::{Arc, PoisonError};

use vmm_block::SharedDisk;
use vmm_event_loop::{EventLoopHandle, Interest, Watch};

use super::config::BlockConfig;
use super::metrics::BlockMetrics;
use super::worker::{BlockWorker, Executor};
use crate::service::{Service, StopFlag};
use crate::{ActivateError, Activation, DeviceType, VirtioDevice};

/// What the guest sees under `/dev/disk/by-id`: up to 20 bytes, zero-padded.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct SerialNumber([u8; 20]);

impl SerialNumber {
    /// The first 20 bytes of `text`.
    #[must_use]
    pub fn new(text: &str) -> Self {
        let mut bytes = [0; 20];
        for (to, from) in bytes.iter_mut().zip(text.bytes()) {
            *to = from;
        }
        Self(bytes)
    }

    pub(crate) fn bytes(&self) -> &[u8] {
        &self.0
    }
}

/// How a disk looks to the guest.
#[derive(Clone, Copy, Debug)]
pub struct BlockOptions {
    /// Its serial number.
    pub serial: SerialNumber,
    /// Queues; all are served by one thread. At least 1.
    pub queues: u16,
    /// Descriptors of each queue: a power of two.
    pub queue_size: u16,
}

impl Default for BlockOptions {
    fn default() -> Self {
        Self { serial: SerialNumber::default(), queues: 1, queue_size: 256 }
    }
}

/// A virtio block device.
#[derive(Debug)]
pub struct BlockDevice {
    disk: SharedDisk,
    serial: SerialNumber,
    config: BlockConfig,
    queue_sizes: Vec<u16>,
    metrics: Arc<BlockMetrics>,
    service: Service,
}

impl BlockDevice {
    /// A device over `disk`, served by `event_loop`.
    #[must_use]
    pub fn new(disk: SharedDisk, options: BlockOptions, event_loop: EventLoopHandle) -> Self {
        let BlockOptions { serial, queues, queue_size } = options;
        let queues = queues.max(1);
        let config =
            BlockConfig::new(&**disk.lock().unwrap_or_else(PoisonError::into_inner), queues, queue_size);
        Self {
            disk,
            serial,
            config,
            queue_sizes: vec![queue_size; usize::from(queues)],
            metrics: Arc::default(),
            service: Service::new(event_loop),
        }
    }

    /// Its counters; they outlive resets.
    #[must_use]
    pub fn metrics(&self) -> Arc<BlockMetrics> {
        Arc::clone(&self.metrics)
    }
}

impl VirtioDevice for BlockDevice {
    fn device_type(&self) -> DeviceType {
        DeviceType::Block
    }

    fn features(&self) -> u64 {
        self.config.features()
    }

    fn queue_sizes(&self) -> &[u16] {
        &self.queue_sizes
    }

    fn config_read(&self, offset: u64, data: &mut [u8]) {
        self.config.read(offset, data);
    }

    fn config_write(&mut self, offset: u64, data: &[u8]) {
        self.config.write(offset, data);
    }

    fn activate(&mut self, activation: Activation) -> Result<(), ActivateError> {
        let Activation { features, queues, interrupt } = activation;
        if queues.is_empty() {
            return Err(ActivateError::QueueMissing { index: 0 });
        }
        let stop = StopFlag::default();
        let executor = Executor {
            disk: Arc::clone(&self.disk),
            metrics: Arc::clone(&self.metrics),
            serial: self.serial,
            writeback: self.config.writeback(features),
        };
        let interests: Vec<Interest> = (0..)
            .zip(&queues)
            .map(|(token, active)| Interest::new(&*active.kick, token, Watch::Readable))
            .collect();
        let worker = BlockWorker { queues, executor, interrupt, stop: stop.clone() };
        Ok(self.service.start(Box::new(worker), &interests, stop)?)
    }

    fn reset(&mut self) {
        self.service.stop();
        self.config.reset();
    }
}
