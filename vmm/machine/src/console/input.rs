//! Console input: what is typed goes to the port as it has room.
//!
//! Runs on the emulator's thread. A guest that does not read must cost nothing.

use std::collections::VecDeque;
use std::fs::File;
use std::io::{ErrorKind, Read};
use std::sync::Arc;

use vmm_event_loop::{
    Control, Event, EventLoopError, EventLoopHandle, Interest, Subscriber, SubscriberId, Watch,
};
use vmm_sys_util::eventfd::EventFd;

use super::{Port, lock};

const ROOM: u32 = 0;
const TYPED: u32 = 1;

/// Gives the port what is typed, on the emulator's thread.
#[derive(Debug)]
pub(crate) struct Input {
    file: File,
    /// Whether the file tells when it is readable; regular files do not, and never block.
    polled: bool,
    ended: bool,
    port: Port,
    /// Signalled when the port has room again.
    drained: EventFd,
    /// Read, but not taken by the port yet. The file is not watched meanwhile.
    held: VecDeque<u8>,
}

impl Input {
    /// Starts reading `file`.
    pub(crate) fn start(
        file: File,
        port: Port,
        drained: EventFd,
        on: &EventLoopHandle,
    ) -> Result<SubscriberId, EventLoopError> {
        let twin = |e: &EventFd| e.try_clone().map_err(EventLoopError::Create);
        let (second, second_drained) = (file.try_clone().map_err(EventLoopError::Create)?, twin(&drained)?);
        let input = |file, polled, drained| {
            let port = Arc::clone(&port);
            Box::new(Self { file, polled, ended: false, port, drained, held: VecDeque::new() })
        };
        let typed = Interest::new(&file, TYPED, Watch::Readable);
        let room = Interest::new(&drained, ROOM, Watch::Readable);
        if let Ok(id) = on.add(input(file, true, drained), &[room, typed]) {
            return Ok(id);
        }
        let room = Interest::new(&second_drained, ROOM, Watch::Readable);
        // There is room at first, and something to read.
        let _ = second_drained.write(1);
        on.add(input(second, false, second_drained), &[room])
    }

    /// Reads as much as the port takes.
    fn read(&mut self) {
        let room = lock(&self.port).room();
        let mut bytes = vec![0; room.max(1)];
        match self.file.read(&mut bytes) {
            Ok(0) => self.ended = true,
            Ok(n) => self.held.extend(bytes.iter().take(n)),
            Err(e) if matches!(e.kind(), ErrorKind::Interrupted | ErrorKind::WouldBlock) => {}
            Err(_) => self.ended = true,
        }
    }

    fn offer(&mut self) {
        let offered = self.held.make_contiguous();
        if !offered.is_empty() {
            let taken = lock(&self.port).input(offered);
            self.held.drain(..taken.min(self.held.len()));
        }
    }
}

impl Subscriber for Input {
    fn ready(&mut self, event: Event, control: &mut Control<'_>) {
        let was_held = !self.held.is_empty();
        if event.token == ROOM {
            let _ = self.drained.read();
        }
        self.offer();
        if self.held.is_empty() && (event.token == TYPED || !self.polled) {
            self.read();
            self.offer();
        }
        if self.held.is_empty() && self.ended {
            control.remove_me();
        } else if self.polled && was_held == self.held.is_empty() {
            let typed = Interest::new(&self.file, TYPED, Watch::Readable);
            let _ = if was_held { control.add(typed) } else { control.forget(typed) };
        }
    }
}

#[cfg(test)]
mod tests {
    use std::io::{Seek, Write};
    use std::sync::Mutex;

    use vmm_bus::{AttachError, BusDevice, Gsi, MsiMessage, MsiRouter};
    use vmm_devices::{InterruptPin, Ioapic, Serial};
    use vmm_event_loop::EventLoop;
    use vmm_sys_util::eventfd::EFD_NONBLOCK;

    use super::super::Buffer;
    use super::*;

    #[derive(Debug)]
    struct NoInterrupts;

    impl MsiRouter for NoInterrupts {
        fn allocate(&self) -> Result<Gsi, AttachError> {
            Ok(Gsi(24))
        }
        fn release(&self, _: Gsi) {}
        fn unmask(&self, _: Gsi, _: MsiMessage, _: &EventFd) -> Result<(), AttachError> {
            Ok(())
        }
        fn mask(&self, _: Gsi, _: &EventFd) -> Result<(), AttachError> {
            Ok(())
        }
        fn send(&self, _: MsiMessage) -> Result<(), AttachError> {
            Ok(())
        }
    }

    fn pipe() -> (File, File) {
        let (reader, writer) = nix::unistd::pipe().unwrap();
        (reader.into(), writer.into())
    }

    fn port() -> (Port, EventFd) {
        let drained = EventFd::new(EFD_NONBLOCK).unwrap();
        let ioapic = Arc::new(Mutex::new(Ioapic::new(Arc::new(NoInterrupts))));
        let pin = InterruptPin::new(&ioapic, 4);
        let sink = Buffer::new(EventFd::new(0).unwrap(), true).sink();
        (Arc::new(Mutex::new(Serial::with_drained(pin, drained.try_clone().unwrap(), sink))), drained)
    }

    /// What the guest finds in the port now.
    fn guest_reads(port: &Port) -> Vec<u8> {
        let register = |number| {
            let mut byte = [0];
            lock(port).read(number, &mut byte);
            byte[0]
        };
        std::iter::from_fn(|| (register(5) & 1 != 0).then(|| register(0))).collect()
    }

    fn all_that_arrives(file: File, len: usize) -> Vec<u8> {
        let (events, (port, drained)) = (EventLoop::new().unwrap(), port());
        Input::start(file, Arc::clone(&port), drained, &events.handle()).unwrap();
        let mut read = Vec::new();
        for _ in 0..10_000 {
            events.serve_ready().unwrap();
            read.extend(guest_reads(&port));
        }
        assert_eq!(read.len(), len);
        assert_eq!(events.serve_ready().unwrap(), 0, "nothing is left to do");
        read
    }

    #[test]
    fn all_that_is_typed_arrives_as_the_guest_reads_it() {
        let (reader, mut writer) = pipe();
        let typed: Vec<u8> = (0..=255).cycle().take(5000).collect();
        writer.write_all(&typed).unwrap();
        drop(writer);
        assert_eq!(all_that_arrives(reader, typed.len()), typed);
    }

    #[test]
    fn files_that_cannot_be_watched_can_be_input() {
        let mut file = tempfile::tempfile().unwrap();
        file.write_all(&[b'y'; 1000]).unwrap();
        file.rewind().unwrap();
        assert_eq!(all_that_arrives(file, 1000), [b'y'; 1000]);
        assert!(all_that_arrives(File::open("/dev/null").unwrap(), 0).is_empty());
    }

    #[test]
    fn a_guest_that_does_not_read_costs_nothing() {
        let (events, (port, drained)) = (EventLoop::new().unwrap(), port());
        let (reader, mut writer) = pipe();
        Input::start(reader, Arc::clone(&port), drained, &events.handle()).unwrap();
        let room = lock(&port).room();
        writer.write_all(&vec![b'x'; 3 * room]).unwrap();
        for _ in 0..10 {
            events.serve_ready().unwrap();
        }
        assert_eq!(events.serve_ready().unwrap(), 0, "it waits for the guest");
        assert_eq!(guest_reads(&port).len(), room);
    }
}
