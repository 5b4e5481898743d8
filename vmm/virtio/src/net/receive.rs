//! From the host to the guest: packets into the driver's buffers.

use std::io;
use std::sync::Arc;

use vm_memory::Permissions;

use super::metrics::NetMetrics;
use super::port::PacketPort;
use super::transmit::{HEADER, MAX_PACKET};
use crate::buffers::Buffers;
use crate::service::StopFlag;
use crate::{ActiveQueue, QueueError};

/// Packets in one go; then other devices of the loop have their turn.
const BUDGET: usize = 64;
/// Buffers that one packet may take: a 64 KiB packet in buffers of 512 bytes.
const MAX_MERGED: u16 = 128;
/// Where the header says how many buffers a packet took.
const NUM_BUFFERS: usize = 10;

/// Whether a packet may take several buffers.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Merging {
    On,
    Off,
}

#[derive(Debug)]
pub(crate) struct Receiver {
    pub(crate) active: ActiveQueue,
    merging: Merging,
    metrics: Arc<NetMetrics>,
    packet: Vec<u8>,
    /// Bytes of a packet that waits for buffers.
    waiting: usize,
    /// The driver has given no buffers; it kicks when it does.
    starved: bool,
}

/// What became of a packet.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Delivery {
    Done,
    /// Not enough buffers yet.
    Short,
    /// Will never fit.
    Unfit,
}

impl Receiver {
    pub(crate) fn new(active: ActiveQueue, merging: Merging, metrics: Arc<NetMetrics>) -> Self {
        Self { active, merging, metrics, packet: vec![0; MAX_PACKET], waiting: 0, starved: false }
    }

    /// While starved the port's packets stay where they are.
    pub(crate) fn wants_packets(&self) -> bool {
        !self.starved
    }

    /// The driver says that there are buffers.
    pub(crate) fn kicked(&mut self) {
        // Fails when another look was enough already.
        let _ = self.active.kick.read();
        self.starved = false;
    }

    pub(crate) fn run(&mut self, port: &mut dyn PacketPort, stop: &StopFlag) -> Result<(), QueueError> {
        if self.starved {
            return Ok(());
        }
        self.active.queue.ignore_kicks()?;
        for _ in 0..BUDGET {
            if stop.is_set() || !self.fetch(port) {
                break;
            }
            match self.deliver()? {
                Delivery::Done => self.metrics.receive.moved((self.waiting - HEADER) as u64),
                Delivery::Unfit => self.metrics.receive.dropped(),
                Delivery::Short => {
                    self.starved = true;
                    break;
                }
            }
            self.waiting = 0;
        }
        self.active.queue.notify()
    }

    /// Makes sure that a packet is at hand.
    fn fetch(&mut self, port: &mut dyn PacketPort) -> bool {
        if self.waiting > 0 {
            return true;
        }
        match port.receive(&mut self.packet) {
            Ok(len) if len > HEADER && len <= self.packet.len() => {
                self.waiting = len;
                true
            }
            Ok(0) => false,
            Ok(_) => {
                self.metrics.receive.dropped();
                false
            }
            Err(error) if error.kind() == io::ErrorKind::WouldBlock => false,
            Err(_) => {
                self.metrics.receive.failed();
                false
            }
        }
    }

    /// Counts chains until the packet fits, and leaves them to be taken again. When there are
    /// too few, the driver has been asked for a kick behind the last of them: asked before it,
    /// it would stay silent.
    fn gather(&mut self) -> Result<(u16, u64), QueueError> {
        let (mut chains, mut room) = (0, 0_u64);
        let most = if self.merging == Merging::On { MAX_MERGED } else { 1 };
        // Twice as many looks as buffers: a driver that plays with its index does not hold us.
        for _ in 0..2 * MAX_MERGED {
            if room >= self.waiting as u64 || chains >= most {
                break;
            }
            match self.active.queue.pop()? {
                Some(chain) => {
                    chains += 1;
                    let bytes = chain.writable.iter().map(|span| u64::from(span.len)).sum::<u64>();
                    room = room.saturating_add(bytes);
                }
                None if self.active.queue.want_kicks()? => self.active.queue.ignore_kicks()?,
                None => break,
            }
        }
        self.active.queue.put_back(chains);
        Ok((chains, room))
    }

    fn deliver(&mut self) -> Result<Delivery, QueueError> {
        let (chains, room) = self.gather()?;
        if room < self.waiting as u64 {
            let hopeless = chains >= MAX_MERGED || (self.merging == Merging::Off && chains > 0);
            return Ok(if hopeless { Delivery::Unfit } else { Delivery::Short });
        }
        let memory = self.active.queue.memory();
        if let Some(count) = self.packet.get_mut(NUM_BUFFERS..HEADER) {
            count.copy_from_slice(&chains.to_le_bytes());
        }
        let mut rest = self.packet.get(..self.waiting).unwrap_or_default();
        let mut used = Vec::with_capacity(usize::from(chains));
        for _ in 0..chains {
            // The driver may have changed the ring since it was looked at.
            let chain = self.active.queue.pop()?.ok_or(QueueError::Chain)?;
            let written = Buffers::new(&memory, &chain.writable, Permissions::Write)?.write_from(rest);
            rest = rest.get(written..).unwrap_or_default();
            used.push((chain.head(), u32::try_from(written).map_err(|_| QueueError::Buffer)?));
        }
        self.active.queue.push_all(&used)?;
        if rest.is_empty() { Ok(Delivery::Done) } else { Err(QueueError::Chain) }
    }
}
