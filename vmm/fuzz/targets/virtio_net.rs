//! Queue contents of a network device over a fake port.
#![no_main]

use std::collections::VecDeque;
use std::io;
use std::os::fd::{AsRawFd, RawFd};
use std::sync::{Arc, Mutex};

use arbitrary::Arbitrary;
use libfuzzer_sys::fuzz_target;
use vmm_event_loop::EventLoop;
use vmm_fuzz::queue::{Rig, Step};
use vmm_sys_util::eventfd::{EFD_NONBLOCK, EventFd};
use vmm_virtio::net::{MacAddress, NetDevice, NetOptions, Offloads, PacketPort};

#[derive(Arbitrary, Debug)]
enum Move {
    Driver(Step),
    Arrive { length: u16 },
    Full(bool),
}

#[derive(Debug, Default)]
struct Wire {
    incoming: VecDeque<usize>,
    full: bool,
}

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
        let Some(len) = self.wire.lock().expect("one thread").incoming.pop_front() else {
            let _ = self.event.read();
            return Err(io::ErrorKind::WouldBlock.into());
        };
        Ok(len.min(packet.len()))
    }
    fn send(&mut self, packet: &[u8]) -> io::Result<()> {
        assert!(packet.len() > 12);
        let full = self.wire.lock().expect("one thread").full;
        if full { Err(io::ErrorKind::WouldBlock.into()) } else { Ok(()) }
    }
    fn set_offloads(&mut self, _: Offloads) -> io::Result<()> {
        Ok(())
    }
}

fuzz_target!(|input: (u64, Vec<Move>)| {
    let (features, moves) = input;
    let event = EventFd::new(EFD_NONBLOCK).expect("an event");
    let wire = Arc::new(Mutex::new(Wire::default()));
    let port = FakePort { event: event.try_clone().expect("an event"), wire: Arc::clone(&wire) };
    let event_loop = EventLoop::new().expect("an event loop");
    let options = NetOptions { mac: MacAddress([2, 0, 0, 0, 0, 1]), mtu: None };
    let device = NetDevice::new(Box::new(port), options, event_loop.handle());
    let mut rig = Rig::new(Box::new(device), features);
    for next in moves.into_iter().take(64) {
        match next {
            Move::Driver(step) => rig.step(step, &event_loop),
            Move::Arrive { length } => {
                wire.lock().expect("one thread").incoming.push_back(length.into());
                event.write(1).expect("room in the event");
                vmm_fuzz::serve(&event_loop);
            }
            Move::Full(full) => wire.lock().expect("one thread").full = full,
        }
    }
    rig.finish();
});
