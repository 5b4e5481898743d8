//! Starting the machine's threads: each born on its CPUs, confined, and known to [`Parts`].

use std::sync::Arc;

use vmm_event_loop::{EventLoop, EventLoopHandle};
use vmm_host::{PinnedThread, set_fifo, spawn_on};

use crate::config::{MachineConfig, VcpuConfig};
use crate::error::ArmError;
use crate::gate::{Gate, GuestEnd};
use crate::machine::{Parts, Role};
use crate::sandbox::Sandbox;
use crate::vcpu::Body;

/// The emulator's loop and those of the I/O threads, each running on its CPUs.
pub(crate) fn start_loops(
    config: &MachineConfig,
    sandbox: &Sandbox,
    parts: &mut Parts,
) -> Result<(EventLoopHandle, Vec<EventLoopHandle>), ArmError> {
    let mut start = |name, role, cpus: &[u32]| start_loop(name, role, cpus, sandbox, parts);
    let emulator = start("emulator".to_owned(), Role::Emulator, &config.emulator_cpus)?;
    let io = config.io_threads.iter().map(|t| start(format!("io {}", t.id), Role::Io(t.id), &t.cpus));
    Ok((emulator, io.collect::<Result<_, _>>()?))
}

fn start_loop(
    name: String,
    role: Role,
    cpus: &[u32],
    sandbox: &Sandbox,
    parts: &mut Parts,
) -> Result<EventLoopHandle, ArmError> {
    let events = EventLoop::new()?;
    let handle = events.handle();
    let watched = Watched { gate: Arc::clone(&parts.gate), name: name.clone() };
    let sandbox = sandbox.clone();
    let body = move || match sandbox.enter_loop() {
        Ok(()) => {
            if let Err(e) = events.run() {
                watched.failed(&format!("cannot go on: {e}"));
            }
        }
        Err(e) => watched.failed(&e.to_string()),
    };
    let thread = spawn_on(&name, cpus, body).map_err(|source| ArmError::Thread { name, source })?;
    parts.keep_loop(role, thread, handle.clone());
    Ok(handle)
}

/// Ends the guest when the thread that holds this fails or panics: without it nobody would.
struct Watched {
    gate: Arc<Gate>,
    name: String,
}

impl Watched {
    fn failed(&self, why: &str) {
        self.gate.end(GuestEnd::Failed(format!("the thread {:?} {why}", self.name)));
    }
}

impl Drop for Watched {
    fn drop(&mut self) {
        if std::thread::panicking() {
            self.failed("panicked");
        }
    }
}

/// Starts a vCPU's thread; it waits at the gate.
pub(crate) fn start_vcpu(
    body: Body,
    config: &VcpuConfig,
    sandbox: &Sandbox,
    parts: &mut Parts,
) -> Result<(), ArmError> {
    let (index, exits) = (body.vcpu.index(), body.vcpu.exits());
    let (name, sandbox) = (format!("vcpu {index}"), sandbox.clone());
    let thread: PinnedThread<()> = spawn_on(&name, &config.cpus, move || body.run(&sandbox))
        .map_err(|source| ArmError::Thread { name, source })?;
    let tid = thread.tid();
    parts.keep_vcpu(index, thread, exits);
    if let Some(priority) = config.fifo {
        set_fifo(tid, priority)?;
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use nix::sys::eventfd::EventFd as EndFd;
    use vmm_sys_util::eventfd::EventFd;

    use super::*;

    #[test]
    fn a_loop_that_panics_ends_the_guest() {
        let gate = Arc::new(Gate::new(0, EventFd::new(0).unwrap(), EndFd::new().unwrap()));
        let watched = Watched { gate: Arc::clone(&gate), name: "io 3".to_owned() };
        let body = move || {
            let _watched = watched;
            panic!("as a test");
        };
        assert!(std::thread::spawn(body).join().is_err());
        assert_eq!(gate.how_ended(), Some(GuestEnd::Failed("the thread \"io 3\" panicked".to_owned())));
    }
}
