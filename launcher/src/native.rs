//! The native backend: our own virtual machine monitor.

use std::os::fd::{AsFd, BorrowedFd};
use std::time::Duration;

use vmm_machine::{ArmedMachine, RunningMachine};

use crate::backend::{
    Action, ArmedGuest, Backend, BackendError, DeviceStats, DiskStats, GuestEnd, GuestStats, InterfaceStats,
    OpenedGuest, Operations, Pause, RunningGuest, Traffic, Wiring,
};
use crate::certificate::{Range, Repair, Role};
use crate::guest::Guest;
use crate::repair::SetThreads;
use crate::spec::LaunchSpec;

/// Our own virtual machine monitor.
#[derive(Clone, Copy, Debug, Default)]
pub struct Native;

impl Backend for Native {
    fn open(&self, spec: &LaunchSpec, wiring: Wiring) -> Result<Box<dyn OpenedGuest>, BackendError> {
        let pod = spec.pod_volumes.as_ref();
        Ok(Box::new(Guest::open(&spec.instance, &spec.placement, pod, wiring)?))
    }
}

impl OpenedGuest for Guest {
    fn arm(
        self: Box<Self>,
        progress: &mut dyn FnMut(&'static str, Duration),
    ) -> Result<Box<dyn ArmedGuest>, BackendError> {
        Ok(Box::new(ArmedMachine::arm(self.machine, progress)?))
    }
}

impl ArmedGuest for ArmedMachine {
    fn process(&self) -> i32 {
        i32::try_from(std::process::id()).unwrap_or(0)
    }

    fn threads(&self) -> Vec<(Role, i32)> {
        let role = |role| match role {
            vmm_machine::Role::Vcpu(index) => Some(Role::Vcpu(index)),
            vmm_machine::Role::Io(id) => Some(Role::IoThread(id)),
            vmm_machine::Role::Emulator => None,
        };
        ArmedMachine::threads(self).into_iter().filter_map(|t| Some((role(t.role)?, t.tid))).collect()
    }

    fn memory(&self) -> Vec<(u32, Vec<Range>)> {
        let mut cells: Vec<(u32, Vec<Range>)> = Vec::new();
        for info in ArmedMachine::memory(self) {
            let range = Range { start: info.start, bytes: info.bytes };
            match cells.iter_mut().find(|(cell, _)| *cell == info.cell) {
                Some((_, ranges)) => ranges.push(range),
                None => cells.push((info.cell, vec![range])),
            }
        }
        cells
    }

    fn repair(&self) -> Box<dyn Repair> {
        Box::new(SetThreads)
    }

    fn wake(&self) {
        ArmedMachine::wake(self);
    }

    fn run(self: Box<Self>) -> Result<Box<dyn RunningGuest>, BackendError> {
        Ok(Box::new(ArmedMachine::run(*self)))
    }
}

impl RunningGuest for RunningMachine {
    fn power_button(&self) {
        RunningMachine::power_button(self);
    }

    fn stop(&self) {
        RunningMachine::stop(self);
    }

    fn ended_fd(&self) -> BorrowedFd<'_> {
        RunningMachine::ended_fd(self)
    }

    fn device_news_fd(&self) -> Option<BorrowedFd<'_>> {
        self.device_news().map(AsFd::as_fd)
    }

    fn take_device_news(&self) {
        if let Some(news) = self.device_news() {
            // Nothing to take is no news.
            let _ = news.read();
        }
    }

    fn end(&self) -> Option<GuestEnd> {
        RunningMachine::end(self).map(|end| match end {
            vmm_machine::GuestEnd::PoweredOff => GuestEnd::PoweredOff,
            vmm_machine::GuestEnd::Stopped => GuestEnd::Stopped,
            vmm_machine::GuestEnd::Crashed(why) => GuestEnd::Crashed(why),
            vmm_machine::GuestEnd::Failed(why) => GuestEnd::Failed(why),
        })
    }

    fn stats(&self) -> GuestStats {
        let stats = RunningMachine::stats(self);
        let exits = (0u32..).zip(&stats.vcpus).flat_map(|(index, v)| {
            let kinds =
                [("port", v.port), ("mmio", v.mmio), ("interrupted", v.interrupted), ("other", v.other)];
            kinds.into_iter().map(move |(kind, count)| (index, kind, count))
        });
        GuestStats {
            exits: exits.collect(),
            disks: stats.disks.into_iter().map(disk).collect(),
            devices: stats.devices.into_iter().map(device).collect(),
            interfaces: stats.nets.into_iter().map(interface).collect(),
            reboots: stats.reboots,
            console_dropped_bytes: stats.console_dropped_bytes,
        }
    }

    fn act(&self, action: Action) -> Result<(), BackendError> {
        let lives = match action {
            Action::Pause => RunningMachine::pause(self),
            Action::Unpause => self.resume(),
            Action::Reset => {
                self.reset();
                true
            }
            Action::SoftReboot => return Err(Box::new(ActError::NoWayToAsk)),
        };
        if lives { Ok(()) } else { Err(Box::new(ActError::Ends(action.verb()))) }
    }

    fn pause(&self) -> Option<Pause> {
        self.is_paused().then_some(Pause::Asked)
    }
}

/// Why something is not done with a guest.
#[derive(Debug, thiserror::Error)]
enum ActError {
    #[error("Cannot {0} the guest: it is about to end")]
    Ends(&'static str),
    #[error(
        "Our own virtual machine monitor has no way to ask the system inside to reboot: reset it, or reboot it from \
         its console"
    )]
    NoWayToAsk,
}

fn operations(o: vmm_machine::Operations) -> Operations {
    Operations { count: o.count, bytes: o.bytes, time: o.time }
}

fn device(stats: vmm_machine::DeviceStats) -> DeviceStats {
    let vmm_machine::HealthReport { vectors, generation, resets, faults, lost, last_fault } = stats.health;
    DeviceStats { name: stats.name, vectors, generation, resets, lost, faults, last_fault }
}

fn disk(stats: vmm_machine::DiskStats) -> DiskStats {
    DiskStats {
        name: stats.name,
        reads: operations(stats.reads),
        writes: operations(stats.writes),
        flushes: operations(stats.flushes),
        errors: stats.errors,
        last_error: stats.last_error,
    }
}

fn traffic(t: vmm_machine::Traffic) -> Traffic {
    Traffic { packets: t.packets, bytes: t.bytes, dropped: t.dropped, errors: t.errors }
}

fn interface(stats: vmm_machine::NetStats) -> InterfaceStats {
    InterfaceStats { name: stats.name, received: traffic(stats.received), sent: traffic(stats.sent) }
}
