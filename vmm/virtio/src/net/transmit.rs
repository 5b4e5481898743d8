//! From the guest to the host: packets out of the driver's buffers.

use std::io;
use std::sync::Arc;

use vm_memory::Permissions;

use super::metrics::NetMetrics;
use super::port::PacketPort;
use crate::buffers::Buffers;
use crate::service::StopFlag;
use crate::{ActiveQueue, QueueError};

/// Bytes of a virtio header.
pub(crate) const HEADER: usize = 12;
/// The header and the longest packet that segmentation allows, with its Ethernet header.
pub(crate) const MAX_PACKET: usize = HEADER + 65_535 + 18;
/// Packets in one go; then other devices of the loop have their turn.
const BUDGET: usize = 64;

#[derive(Debug)]
pub(crate) struct Transmitter {
    pub(crate) active: ActiveQueue,
    metrics: Arc<NetMetrics>,
    packet: Vec<u8>,
    /// Bytes of a packet that waits for room in the port.
    waiting: usize,
}

impl Transmitter {
    pub(crate) fn new(active: ActiveQueue, metrics: Arc<NetMetrics>) -> Self {
        Self { active, metrics, packet: vec![0; MAX_PACKET], waiting: 0 }
    }

    /// A packet waits until the port is writable.
    pub(crate) fn wants_room(&self) -> bool {
        self.waiting > 0
    }

    pub(crate) fn run(&mut self, port: &mut dyn PacketPort, stop: &StopFlag) -> Result<(), QueueError> {
        // Fails when another look was enough already.
        let _ = self.active.kick.read();
        self.active.queue.ignore_kicks()?;
        let mut left = BUDGET;
        while self.send(port) && !stop.is_set() {
            if left == 0 {
                // Comes back through the loop: level-triggered, so nothing is lost.
                let _ = self.active.kick.write(1);
                break;
            }
            left -= 1;
            if !self.take()? && !self.active.queue.want_kicks()? {
                break;
            }
        }
        self.active.queue.notify()
    }

    /// Copies the next packet out and hands its buffers back. False: there is none.
    fn take(&mut self) -> Result<bool, QueueError> {
        let Some(chain) = self.active.queue.pop()? else { return Ok(false) };
        let memory = self.active.queue.memory();
        let buffers = Buffers::new(&memory, &chain.readable, Permissions::Read)?;
        let fits = buffers.len() > HEADER as u64 && buffers.len() <= MAX_PACKET as u64;
        self.waiting = if fits { buffers.read_into(&mut self.packet) } else { 0 };
        if !fits {
            self.metrics.transmit.dropped();
        }
        self.active.queue.push(chain.head(), 0)?;
        Ok(true)
    }

    /// Sends what waits. False: it waits still.
    fn send(&mut self, port: &mut dyn PacketPort) -> bool {
        let Some(packet) = self.packet.get(..self.waiting).filter(|packet| !packet.is_empty()) else {
            return true;
        };
        match port.send(packet) {
            Ok(()) => self.metrics.transmit.moved((self.waiting - HEADER) as u64),
            Err(error) if error.kind() == io::ErrorKind::WouldBlock => return false,
            Err(_) => self.metrics.transmit.failed(),
        }
        self.waiting = 0;
        true
    }
}
