//! Serves both queues and the port of an interface, on the emulator thread.

use std::sync::{Arc, Mutex, PoisonError};

use vmm_event_loop::{Control, Event, Interest, Subscriber, Watch};

use super::port::PacketPort;
use super::receive::Receiver;
use super::transmit::Transmitter;
use crate::service::StopFlag;
use crate::{QueueError, VirtioInterrupt};

pub(crate) const TOKEN_RECEIVE: u32 = 0;
pub(crate) const TOKEN_TRANSMIT: u32 = 1;
pub(crate) const TOKEN_PORT: u32 = 2;

/// The port, as activations share it.
pub(crate) type SharedPort = Arc<Mutex<Box<dyn PacketPort>>>;

#[derive(Debug)]
pub(crate) struct NetWorker {
    port: SharedPort,
    receiver: Receiver,
    transmitter: Transmitter,
    interrupt: Arc<VirtioInterrupt>,
    stop: StopFlag,
    /// What is watched on the port; none once the host took it away.
    watched: Option<Watch>,
}

impl NetWorker {
    pub(crate) fn new(
        port: SharedPort,
        receiver: Receiver,
        transmitter: Transmitter,
        interrupt: Arc<VirtioInterrupt>,
        stop: StopFlag,
    ) -> Self {
        Self { port, receiver, transmitter, interrupt, stop, watched: Some(Watch::Readable) }
    }

    fn serve(&mut self, event: Event, control: &mut Control<'_>) -> Result<(), QueueError> {
        let port = Arc::clone(&self.port);
        let mut port = port.lock().unwrap_or_else(PoisonError::into_inner);
        match event.token {
            TOKEN_RECEIVE => {
                self.receiver.kicked();
                self.receiver.run(&mut **port, &self.stop)?;
            }
            TOKEN_TRANSMIT => self.transmitter.run(&mut **port, &self.stop)?,
            _ => {
                if event.readable {
                    self.receiver.run(&mut **port, &self.stop)?;
                }
                if event.writable {
                    self.transmitter.run(&mut **port, &self.stop)?;
                }
                if event.hung_up && !event.readable {
                    // The host took the interface away: sending fails and is counted.
                    let _ = control.forget(Interest::new(&**port, TOKEN_PORT, Watch::Nothing));
                    self.watched = None;
                }
            }
        }
        self.watch(&**port, control);
        Ok(())
    }

    /// Watches the port for just what can be served.
    fn watch(&mut self, port: &dyn PacketPort, control: &mut Control<'_>) {
        let wanted = match (self.receiver.wants_packets(), self.transmitter.wants_room()) {
            (true, true) => Watch::Both,
            (true, false) => Watch::Readable,
            (false, true) => Watch::Writable,
            (false, false) => Watch::Nothing,
        };
        if self.watched.is_some_and(|watched| watched != wanted)
            && control.change(Interest::new(port, TOKEN_PORT, wanted)).is_ok()
        {
            self.watched = Some(wanted);
        }
    }
}

impl Subscriber for NetWorker {
    fn ready(&mut self, event: Event, control: &mut Control<'_>) {
        if self.serve(event, control).is_err() {
            self.interrupt.needs_reset();
            control.remove_me();
        }
    }
}
