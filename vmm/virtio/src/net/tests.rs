use std::collections::VecDeque;
use std::io;
use std::os::fd::{AsRawFd, RawFd};
use std::sync::{Arc, Mutex};

use vmm_event_loop::EventLoop;
use vmm_sys_util::eventfd::{EFD_NONBLOCK, EventFd};

use super::config::{F_CSUM, F_GUEST_CSUM, F_GUEST_TSO4, F_MRG_RXBUF};
use super::*;
use crate::driver::{Buffer, DATA, Driver, DriverQueue};
use crate::features::EVENT_IDX;

/// What the fake port holds, shared with the test.
#[derive(Debug, Default)]
struct Wire {
    incoming: VecDeque<Vec<u8>>,
    sent: Vec<Vec<u8>>,
    full: bool,
    offloads: Offloads,
}

/// Readable while packets wait, as the event's counter; writable always.
#[derive(Debug)]
struct FakePort {
    event: EventFd,
    wire: Arc<Mutex<Wire>>,
}

impl AsRawFd for FakePort {
    fn as_raw_fd(&self) -> RawFd {
        self.event.as_raw_fd()
    }
}

impl PacketPort for FakePort {
    fn receive(&mut self, packet: &mut [u8]) -> io::Result<usize> {
        let Some(next) = self.wire.lock().unwrap().incoming.pop_front() else {
            drop(self.event.read());
            return Err(io::ErrorKind::WouldBlock.into());
        };
        packet[..next.len()].copy_from_slice(&next);
        Ok(next.len())
    }
    fn send(&mut self, packet: &[u8]) -> io::Result<()> {
        let mut wire = self.wire.lock().unwrap();
        if wire.full {
            return Err(io::ErrorKind::WouldBlock.into());
        }
        wire.sent.push(packet.to_vec());
        Ok(())
    }
    fn set_offloads(&mut self, offloads: Offloads) -> io::Result<()> {
        self.wire.lock().unwrap().offloads = offloads;
        Ok(())
    }
}

struct Rig {
    driver: Driver,
    rx: DriverQueue,
    tx: DriverQueue,
    event_loop: EventLoop,
    wire: Arc<Mutex<Wire>>,
    event: EventFd,
    metrics: Arc<NetMetrics>,
}

impl Rig {
    fn new(features: u64) -> Self {
        let event = EventFd::new(EFD_NONBLOCK).unwrap();
        let wire = Arc::new(Mutex::new(Wire::default()));
        let port = FakePort { event: event.try_clone().unwrap(), wire: Arc::clone(&wire) };
        let event_loop = EventLoop::new().unwrap();
        let options = NetOptions { mac: MacAddress([2, 0, 0, 0, 0, 1]), mtu: Some(9000) };
        let device = NetDevice::new(Box::new(port), options, event_loop.handle());
        let metrics = device.metrics();
        let mut driver = Driver::new(Box::new(device));
        assert!(driver.negotiate(features));
        driver.enable_interrupts(2);
        let (rx, tx) = (driver.queue(0, 16), driver.queue(1, 16));
        assert!(driver.start());
        Self { driver, rx, tx, event_loop, wire, event, metrics }
    }

    fn arrive(&mut self, bytes: &[u8]) {
        let packet = [&[0; 12][..], bytes].concat();
        self.wire.lock().unwrap().incoming.push_back(packet);
        self.event.write(1).unwrap();
    }

    /// Serves a bounded number of rounds: a fake port that is always writable never rests.
    fn serve(&mut self) {
        for _ in 0..20 {
            self.event_loop.serve_ready().unwrap();
        }
    }
}

#[test]
fn the_driver_learns_address_and_mtu() {
    let mut rig = Rig::new(F_CSUM);
    let address: Vec<u64> = (0..6).map(|at| rig.driver.read(0x2000 + at, 1)).collect();
    assert_eq!(address, [2, 0, 0, 0, 0, 1]);
    assert_eq!(rig.driver.read(0x200a, 2), 9000);
    assert_eq!(MacAddress([2, 0, 0, 0, 0, 0xab]).to_string(), "02:00:00:00:00:ab");
}

#[test]
fn offloads_are_what_was_negotiated() {
    let rig = Rig::new(F_GUEST_CSUM | F_GUEST_TSO4);
    let expected = Offloads { checksum: true, tso4: true, ..Offloads::default() };
    assert_eq!(rig.wire.lock().unwrap().offloads, expected);
    let rig = Rig::new(F_GUEST_TSO4);
    assert_eq!(rig.wire.lock().unwrap().offloads, Offloads::default(), "segments need checksums");
}

#[test]
fn a_packet_is_sent_with_its_header() {
    let mut rig = Rig::new(0);
    rig.driver.put(DATA, &[1; 12]);
    rig.driver.put(DATA + 0x1000, b"a packet");
    rig.tx.add(&[Buffer::readable(DATA, 12), Buffer::readable(DATA + 0x1000, 8)]);
    rig.driver.kick(1);
    rig.serve();
    assert_eq!(rig.wire.lock().unwrap().sent, [[&[1; 12][..], b"a packet"].concat()]);
    assert_eq!(rig.tx.take_used(), Some((0, 0)));
    assert!(rig.driver.router.take(1) > 0);
    let stats = rig.metrics.snapshot().transmit;
    assert_eq!((stats.packets, stats.bytes), (1, 8));
}

#[test]
fn unfit_packets_are_dropped_and_counted() {
    let mut rig = Rig::new(0);
    rig.tx.add(&[Buffer::readable(DATA, 12)]);
    rig.tx.add(&[Buffer::readable(DATA, 200_000)]);
    rig.driver.kick(1);
    rig.serve();
    assert_eq!(rig.tx.used_index(), 2);
    assert_eq!(rig.metrics.snapshot().transmit.dropped, 2);
    assert!(rig.wire.lock().unwrap().sent.is_empty());
}

#[test]
fn a_full_port_holds_packets_back_and_loses_none() {
    let mut rig = Rig::new(0);
    rig.wire.lock().unwrap().full = true;
    for _ in 0..3 {
        rig.tx.add(&[Buffer::readable(DATA, 100)]);
    }
    rig.driver.kick(1);
    rig.serve();
    assert_eq!(rig.tx.used_index(), 1, "one waits, the rest stay in the queue");
    rig.wire.lock().unwrap().full = false;
    rig.serve();
    assert_eq!(rig.wire.lock().unwrap().sent.len(), 3);
    assert_eq!(rig.tx.used_index(), 3);
}

#[test]
fn packets_wait_for_buffers() {
    let mut rig = Rig::new(0);
    rig.arrive(b"first");
    rig.arrive(b"second");
    rig.serve();
    assert_eq!(rig.metrics.snapshot().receive.packets, 0);
    rig.rx.add(&[Buffer::writable(DATA, 2000)]);
    rig.rx.add(&[Buffer::writable(DATA + 0x1000, 2000)]);
    rig.driver.kick(0);
    rig.serve();
    assert_eq!(rig.rx.take_used(), Some((0, 17)));
    assert_eq!(rig.rx.take_used(), Some((1, 18)));
    assert_eq!(rig.driver.get(DATA + 12, 5), b"first");
    assert_eq!(rig.driver.get(DATA + 10, 2), [1, 0], "one buffer");
    assert_eq!(rig.driver.get(DATA + 0x100c, 6), b"second");
    assert!(rig.driver.router.take(0) > 0);
}

#[test]
fn a_packet_is_spread_over_buffers_that_become_visible_together() {
    let mut rig = Rig::new(F_MRG_RXBUF | EVENT_IDX);
    for buffer in 0..2 {
        rig.rx.add(&[Buffer::writable(DATA + buffer * 0x1000, 100)]);
    }
    let bytes: Vec<u8> = (0..250).collect();
    rig.arrive(&bytes);
    rig.serve();
    assert_eq!(rig.rx.used_index(), 0, "262 bytes do not fit into 200");
    assert_eq!(rig.rx.available_event(), 2, "a kick at the next buffer, not before");
    rig.rx.add(&[Buffer::writable(DATA + 0x2000, 100)]);
    rig.driver.kick(0);
    rig.serve();
    assert_eq!(rig.rx.used_index(), 3);
    assert_eq!([(); 3].map(|()| rig.rx.take_used().unwrap()), [(0, 100), (1, 100), (2, 62)]);
    assert_eq!(rig.driver.get(DATA + 10, 2), [3, 0], "three buffers");
    let got = [
        rig.driver.get(DATA + 12, 88),
        rig.driver.get(DATA + 0x1000, 100),
        rig.driver.get(DATA + 0x2000, 62),
    ];
    assert_eq!(got.concat(), bytes);
}

#[test]
fn a_packet_that_fits_no_buffer_is_dropped() {
    let mut rig = Rig::new(0);
    rig.rx.add(&[Buffer::writable(DATA, 100)]);
    rig.arrive(&[7; 1000]);
    rig.arrive(&[8; 20]);
    rig.serve();
    assert_eq!(rig.metrics.snapshot().receive.dropped, 1);
    assert_eq!(rig.rx.take_used(), Some((0, 32)), "the next one is delivered");
}

#[test]
fn a_missing_queue_asks_for_a_reset() {
    let mut rig = Rig::new(0);
    rig.driver.write(20, 1, 0);
    assert!(rig.driver.negotiate(0));
    rig.driver.queue(1, 16);
    assert!(!rig.driver.start());
}

#[test]
fn hostile_buffers_break_the_device_until_it_is_reset() {
    let mut rig = Rig::new(0);
    rig.tx.add(&[Buffer::readable(u64::MAX - 4, 100)]);
    rig.driver.kick(1);
    rig.serve();
    assert_eq!(rig.driver.status() & 64, 64);
    rig.driver.write(20, 1, 0);
    assert!(rig.driver.negotiate(0));
    rig.rx = rig.driver.queue(0, 16);
    rig.tx = rig.driver.queue(1, 16);
    assert!(rig.driver.start());
    rig.tx.add(&[Buffer::readable(DATA, 100)]);
    rig.driver.kick(1);
    rig.serve();
    assert_eq!(rig.metrics.snapshot().transmit.packets, 1);
}
