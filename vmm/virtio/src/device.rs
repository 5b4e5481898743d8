//! What a virtio device implements, apart from its transport.

use std::fmt;
use std::sync::Arc;

use vmm_event_loop::EventLoopError;
use vmm_sys_util::eventfd::EventFd;

use crate::{VirtQueue, VirtioInterrupt};

/// Device numbers of the standard.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum DeviceType {
    /// Network card.
    Net,
    /// Block device.
    Block,
    /// Entropy source.
    Rng,
}

impl DeviceType {
    /// The number.
    #[must_use]
    pub const fn id(self) -> u16 {
        match self {
            Self::Net => 1,
            Self::Block => 2,
            Self::Rng => 4,
        }
    }
}

/// A queue that the driver has set up.
#[derive(Debug)]
pub struct ActiveQueue {
    /// Its number.
    pub index: u16,
    /// The queue.
    pub queue: VirtQueue,
    /// Signalled when the driver has added buffers.
    pub kick: Arc<EventFd>,
}

/// All that a device needs once the driver says that it is ready.
#[derive(Debug)]
pub struct Activation {
    /// Negotiated features.
    pub features: u64,
    /// The queues that the driver enabled, in order.
    pub queues: Vec<ActiveQueue>,
    /// For configuration changes and failures.
    pub interrupt: Arc<VirtioInterrupt>,
}

/// Why a device did not start.
#[derive(Debug, thiserror::Error)]
pub enum ActivateError {
    /// The driver did not enable a queue that the device cannot do without.
    #[error("The driver did not set up queue {index}")]
    QueueMissing {
        /// Which.
        index: u16,
    },
    /// The event loop refused.
    #[error("Cannot serve the device's queues")]
    EventLoop(#[from] EventLoopError),
    /// The host's side refused.
    #[error("Cannot prepare the host's side of the device")]
    Host(#[from] std::io::Error),
}

/// A device behind a transport. All calls are made under the transport's lock.
pub trait VirtioDevice: Send + fmt::Debug {
    /// What kind of device.
    fn device_type(&self) -> DeviceType;

    /// Features on offer, without those of the transport and the rings.
    fn features(&self) -> u64;

    /// Largest size of each queue: powers of two.
    fn queue_sizes(&self) -> &[u16];

    /// Reads the device's configuration; zeroes past its end.
    fn config_read(&self, offset: u64, data: &mut [u8]);

    /// Writes the device's configuration; most fields are read-only.
    fn config_write(&mut self, offset: u64, data: &[u8]) {
        let _ = (offset, data);
    }

    /// Starts. Called once between resets.
    ///
    /// # Errors
    /// [`ActivateError`]; the transport then asks the driver for a reset.
    fn activate(&mut self, activation: Activation) -> Result<(), ActivateError>;

    /// Stops. When this returns no thread touches queues or guest memory any more. Called
    /// also when the device never started.
    fn reset(&mut self);
}
