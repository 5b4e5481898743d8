use vmm_event_loop::EventLoop;

use super::*;
use crate::driver::{Buffer, DATA, Driver};

#[test]
fn buffers_are_filled_with_different_bytes() {
    let event_loop = EventLoop::new().unwrap();
    let device = RngDevice::new(event_loop.handle());
    let metrics = device.metrics();
    let mut driver = Driver::new(Box::new(device));
    assert!(driver.negotiate(0));
    let mut queue = driver.queue(0, 16);
    assert!(driver.start());
    queue.add(&[Buffer::writable(DATA, 32), Buffer::writable(DATA + 0x1000, 32)]);
    queue.add(&[Buffer::writable(DATA + 0x2000, 64)]);
    driver.kick(0);
    event_loop.serve_ready().unwrap();
    assert_eq!(queue.take_used(), Some((0, 64)));
    assert_eq!(queue.take_used(), Some((2, 64)));
    let first = [driver.get(DATA, 32), driver.get(DATA + 0x1000, 32)].concat();
    assert_ne!(first, driver.get(DATA + 0x2000, 64));
    assert_eq!(metrics.bytes(), 128);
}

#[test]
fn a_greedy_guest_waits_for_its_allowance_and_gets_it() {
    let event_loop = EventLoop::new().unwrap();
    let device = RngDevice::new(event_loop.handle());
    let metrics = device.metrics();
    let mut driver = Driver::new(Box::new(device));
    assert!(driver.negotiate(0));
    let mut queue = driver.queue(0, 64);
    assert!(driver.start());
    for _ in 0..40 {
        queue.add(&[Buffer::writable(DATA, 4096)]);
    }
    driver.kick(0);
    event_loop.serve_ready().unwrap();
    assert_eq!(metrics.bytes(), 64 * 1024);
    assert_eq!(metrics.throttled(), 1);
    while queue.used_index() < 40 {
        event_loop.serve_ready().unwrap();
    }
    assert_eq!(metrics.bytes(), 160 * 1024);
}

#[test]
fn a_buffer_to_read_breaks_the_device() {
    let event_loop = EventLoop::new().unwrap();
    let mut driver = Driver::new(Box::new(RngDevice::new(event_loop.handle())));
    assert!(driver.negotiate(0));
    let mut queue = driver.queue(0, 16);
    assert!(driver.start());
    queue.add(&[Buffer::readable(DATA, 32)]);
    driver.kick(0);
    event_loop.serve_ready().unwrap();
    assert_eq!(driver.status() & 64, 64);
}
