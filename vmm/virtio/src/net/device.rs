//! The network device: configuration, start and stop.

use std::sync::{Arc, Mutex, PoisonError};

use vmm_event_loop::{EventLoopHandle, Interest, Watch};

use super::config::{F_MRG_RXBUF, MacAddress, NetConfig, offloads};
use super::metrics::NetMetrics;
use super::port::PacketPort;
use super::receive::{Merging, Receiver};
use super::transmit::Transmitter;
use super::worker::{NetWorker, SharedPort, TOKEN_PORT, TOKEN_RECEIVE, TOKEN_TRANSMIT};
use crate::service::{Service, StopFlag};
use crate::{ActivateError, Activation, DeviceType, VirtioDevice};

const QUEUE_SIZE: u16 = 256;
const RECEIVE: u16 = 0;
const TRANSMIT: u16 = 1;

/// How an interface looks to the guest.
#[derive(Clone, Copy, Debug)]
pub struct NetOptions {
    /// Its address.
    pub mac: MacAddress,
    /// Largest packet to use, if the network does not take the usual 1500 bytes.
    pub mtu: Option<u16>,
}

/// A virtio network device with one pair of queues.
#[derive(Debug)]
pub struct NetDevice {
    port: SharedPort,
    config: NetConfig,
    metrics: Arc<NetMetrics>,
    service: Service,
}

impl NetDevice {
    /// A device over `port`, served by `event_loop`.
    #[must_use]
    pub fn new(port: Box<dyn PacketPort>, options: NetOptions, event_loop: EventLoopHandle) -> Self {
        Self {
            port: Arc::new(Mutex::new(port)),
            config: NetConfig::new(options.mac, options.mtu),
            metrics: Arc::default(),
            service: Service::new(event_loop),
        }
    }

    /// Its counters; they outlive resets.
    #[must_use]
    pub fn metrics(&self) -> Arc<NetMetrics> {
        Arc::clone(&self.metrics)
    }
}

impl VirtioDevice for NetDevice {
    fn device_type(&self) -> DeviceType {
        DeviceType::Net
    }

    fn features(&self) -> u64 {
        self.config.features()
    }

    fn queue_sizes(&self) -> &[u16] {
        &[QUEUE_SIZE, QUEUE_SIZE]
    }

    fn config_read(&self, offset: u64, data: &mut [u8]) {
        self.config.read(offset, data);
    }

    fn activate(&mut self, activation: Activation) -> Result<(), ActivateError> {
        let Activation { features, queues, interrupt } = activation;
        let mut queues = queues.into_iter();
        let receive = queues.next().filter(|queue| queue.index == RECEIVE);
        let receive = receive.ok_or(ActivateError::QueueMissing { index: RECEIVE })?;
        let transmit = queues.next().ok_or(ActivateError::QueueMissing { index: TRANSMIT })?;
        let mut port = self.port.lock().unwrap_or_else(PoisonError::into_inner);
        port.set_offloads(offloads(features))?;
        let stop = StopFlag::default();
        let interests = [
            Interest::new(&*receive.kick, TOKEN_RECEIVE, Watch::Readable),
            Interest::new(&*transmit.kick, TOKEN_TRANSMIT, Watch::Readable),
            Interest::new(&**port, TOKEN_PORT, Watch::Readable),
        ];
        drop(port);
        let merging = if features & F_MRG_RXBUF == 0 { Merging::Off } else { Merging::On };
        let worker = NetWorker::new(
            Arc::clone(&self.port),
            Receiver::new(receive, merging, Arc::clone(&self.metrics)),
            Transmitter::new(transmit, Arc::clone(&self.metrics)),
            interrupt,
            stop.clone(),
        );
        Ok(self.service.start(Box::new(worker), &interests, stop)?)
    }

    fn reset(&mut self) {
        self.service.stop();
    }
}
