//! A machine that is armed, and one that runs.

use std::fs::File;
use std::os::fd::{AsFd, BorrowedFd};
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use nix::sys::eventfd::EventFd as EndFd;
use vmm_boot::BootEntry;
use vmm_devices::Power;
use vmm_event_loop::{EventLoopHandle, SubscriberId};
use vmm_host::PinnedThread;
use vmm_kvm::{ExitCounts, KvmVm};
use vmm_memory::{GuestRam, layout};
use vmm_vfio::Domain;
use vmm_virtio::block::OperationStats;

use crate::arm;
use crate::config::MachineConfig;
use crate::console::{self, Buffer};
use crate::devices::Counters;
use crate::error::ArmError;
use crate::gate::{Gate, GuestEnd, Request};
use crate::io::Buses;
use crate::passthrough::Named;
use crate::stats::{DeviceStats, DiskStats, MachineStats, NetStats, Operations, Traffic, VcpuStats};
use crate::vcpu::FirstEntry;

/// What a thread does.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Role {
    /// Runs the vCPU of that index.
    Vcpu(u32),
    /// Serves disks: the I/O thread of that number.
    Io(u32),
    /// Everything else.
    Emulator,
}

/// A thread of the machine.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct ThreadInfo {
    /// What it does.
    pub role: Role,
    /// Its thread id.
    pub tid: i32,
}

/// Where memory of a cell lies in this process.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct MemoryInfo {
    /// The cell.
    pub cell: u32,
    /// First address.
    pub start: u64,
    /// Length, bytes.
    pub bytes: u64,
    /// Page size, bytes.
    pub page_size: u64,
    /// Host node it is bound to.
    pub host_node: Option<u32>,
}

/// The console's buffer, and the file that its last words go to.
pub(crate) type Console = (Arc<Buffer>, Option<File>);

/// Everything a machine is made of. Fields are dropped in this order: what uses memory first.
#[derive(Debug)]
pub(crate) struct Parts {
    pub(crate) gate: Arc<Gate>,
    threads: Vec<(Role, PinnedThread<()>)>,
    loops: Vec<EventLoopHandle>,
    subscribers: Vec<(EventLoopHandle, SubscriberId)>,
    exits: Vec<Arc<ExitCounts>>,
    pub(crate) buses: Buses,
    pub(crate) power: Option<Arc<Mutex<Power>>>,
    pub(crate) counters: Counters,
    pub(crate) console: Option<Console>,
    pub(crate) reboots: Arc<AtomicU64>,
    pub(crate) devices: Vec<Named>,
    /// Signalled when a device passed through has something to tell.
    pub(crate) device_news: Option<Arc<EndFd>>,
    pub(crate) domain: Option<Domain>,
    pub(crate) first: Option<Arc<FirstEntry>>,
    pub(crate) vm: KvmVm,
    pub(crate) ram: Arc<GuestRam>,
}

impl Parts {
    pub(crate) fn new(vm: KvmVm, ram: Arc<GuestRam>, gate: Arc<Gate>) -> Self {
        Self {
            gate,
            threads: Vec::new(),
            loops: Vec::new(),
            subscribers: Vec::new(),
            exits: Vec::new(),
            buses: Buses::default(),
            power: None,
            counters: Counters::default(),
            console: None,
            reboots: Arc::default(),
            devices: Vec::new(),
            device_news: None,
            domain: None,
            first: None,
            vm,
            ram,
        }
    }

    pub(crate) fn keep_loop(&mut self, role: Role, thread: PinnedThread<()>, handle: EventLoopHandle) {
        self.threads.push((role, thread));
        self.loops.push(handle);
    }

    /// A subscriber that is taken out of its loop at the end. Devices hold handles of the loops, and
    /// the supervisor holds the devices: left there, each would keep the other.
    pub(crate) fn keep_subscriber(&mut self, of: &EventLoopHandle, id: SubscriberId) {
        self.subscribers.push((of.clone(), id));
    }

    pub(crate) fn keep_vcpu(&mut self, index: u32, thread: PinnedThread<()>, exits: Arc<ExitCounts>) {
        self.threads.push((Role::Vcpu(index), thread));
        self.exits.push(exits);
    }

    fn infos(&self) -> Vec<ThreadInfo> {
        self.threads.iter().map(|(role, thread)| ThreadInfo { role: *role, tid: thread.tid() }).collect()
    }
}

impl Drop for Parts {
    /// Ends whatever still runs.
    ///
    /// The order matters: vCPU threads end first, since they use the devices; then the loops, which
    /// use memory; then the console's last words are said and it is closed; then the fields go, memory last.
    fn drop(&mut self) {
        self.gate.end(GuestEnd::Stopped);
        let (vcpus, others): (Vec<_>, Vec<_>) =
            self.threads.drain(..).partition(|(role, _)| matches!(role, Role::Vcpu(_)));
        for (_, thread) in vcpus {
            thread.join();
        }
        self.loops.iter().for_each(EventLoopHandle::stop);
        for (_, thread) in others {
            thread.join();
        }
        if let Some((buffer, file)) = &mut self.console {
            console::last_words(buffer, file.as_mut());
        }
        for (of, id) in self.subscribers.drain(..) {
            drop(of.remove(id));
        }
        // The PCI segment holds the bus that it is on.
        self.buses.mmio.unregister(layout::ECAM_START.0);
    }
}

/// A machine whose threads stand on their CPUs and whose pages lie on their nodes; no vCPU has
/// executed an instruction.
#[derive(Debug)]
pub struct ArmedMachine {
    parts: Parts,
    entry: BootEntry,
}

impl ArmedMachine {
    /// Builds a machine. `progress` is called with each phase and how long it took.
    ///
    /// # Errors
    /// [`ArmError`]; nothing is left then.
    pub fn arm(
        config: MachineConfig,
        progress: &mut dyn FnMut(&'static str, Duration),
    ) -> Result<Self, ArmError> {
        arm::arm(config, progress)
    }

    pub(crate) fn new(parts: Parts, entry: BootEntry) -> Self {
        Self { parts, entry }
    }

    /// Its threads.
    #[must_use]
    pub fn threads(&self) -> Vec<ThreadInfo> {
        self.parts.infos()
    }

    /// Its memory.
    #[must_use]
    pub fn memory(&self) -> Vec<MemoryInfo> {
        arm::memory(&self.parts.ram)
    }

    /// Wakes its threads, which find nothing to do and wait on. By the kernel's record a thread that sleeps is on the CPU
    /// where it fell asleep, even one that it may not use any more.
    pub fn wake(&self) {
        self.parts.gate.wake();
        self.parts.loops.iter().for_each(EventLoopHandle::wake);
    }

    /// Lets the vCPUs go.
    #[must_use]
    pub fn run(self) -> RunningMachine {
        self.parts.gate.open(self.entry);
        RunningMachine { parts: self.parts }
    }
}

/// A machine that runs, or has ended. Dropping it stops it by force.
#[derive(Debug)]
pub struct RunningMachine {
    parts: Parts,
}

impl RunningMachine {
    /// Presses the power button; the guest may ignore it.
    pub fn power_button(&self) {
        if let Some(power) = &self.parts.power {
            let pressed = power.lock().unwrap_or_else(PoisonError::into_inner).press_button();
            if let Err(e) = pressed {
                self.parts.gate.request(Request::End(GuestEnd::Failed(format!("{e}"))));
            }
        }
    }

    /// Stops it by force.
    pub fn stop(&self) {
        self.parts.gate.request(Request::End(GuestEnd::Stopped));
    }

    /// Resets it at once, as its reset button would.
    pub fn reset(&self) {
        self.parts.gate.request(Request::Reset);
    }

    /// Stops its vCPUs where they are, and returns once they are out of the guest. Devices end what they have begun.
    /// `false` where the guest has ended or is about to.
    pub fn pause(&self) -> bool {
        self.parts.gate.pause()
    }

    /// Lets its vCPUs go on. `false` as for [`RunningMachine::pause`].
    pub fn resume(&self) -> bool {
        self.parts.gate.resume()
    }

    /// Whether it is paused.
    #[must_use]
    pub fn is_paused(&self) -> bool {
        self.parts.gate.is_paused()
    }

    /// Readable once the guest has ended, from then on.
    #[must_use]
    pub fn ended_fd(&self) -> BorrowedFd<'_> {
        self.parts.gate.ended().as_fd()
    }

    /// Readable when a device passed through has something new to tell in [`RunningMachine::stats`]; whoever
    /// reads the eventfd takes the news. `None` without such devices.
    #[must_use]
    pub fn device_news(&self) -> Option<&EndFd> {
        self.parts.device_news.as_deref()
    }

    /// How the guest ended; `None` while it runs.
    #[must_use]
    pub fn end(&self) -> Option<GuestEnd> {
        self.parts.gate.how_ended()
    }

    /// What it did so far.
    #[must_use]
    pub fn stats(&self) -> MachineStats {
        let parts = &self.parts;
        let count = |c: &AtomicU64| c.load(Ordering::Relaxed);
        MachineStats {
            disks: parts
                .counters
                .disks
                .iter()
                .map(|(name, metrics)| disk(name, &metrics.snapshot()))
                .collect(),
            nets: parts.counters.nets.iter().map(|(name, metrics)| net(name, &metrics.snapshot())).collect(),
            devices: parts
                .devices
                .iter()
                .map(|(name, health)| DeviceStats { name: name.clone(), health: health.report() })
                .collect(),
            vcpus: parts
                .exits
                .iter()
                .map(|e| VcpuStats {
                    port: count(&e.port),
                    mmio: count(&e.mmio),
                    interrupted: count(&e.interrupted),
                    other: count(&e.other),
                })
                .collect(),
            reboots: count(&parts.reboots),
            console_dropped_bytes: parts.console.as_ref().map_or(0, |(buffer, _)| buffer.dropped()),
            first_entry: parts
                .first
                .as_ref()
                .map_or(Duration::ZERO, |f| Duration::from_nanos(count(&f.after_ns))),
        }
    }
}

fn operations(stats: OperationStats) -> Operations {
    Operations { count: stats.operations, bytes: stats.bytes, time: stats.time }
}

fn disk(name: &str, stats: &vmm_virtio::block::BlockStats) -> DiskStats {
    DiskStats {
        name: name.to_owned(),
        reads: operations(stats.reads),
        writes: operations(stats.writes),
        flushes: operations(stats.flushes),
        errors: stats.errors.values().sum(),
        last_error: stats.last_error.clone(),
    }
}

fn traffic(stats: vmm_virtio::net::DirectionStats) -> Traffic {
    Traffic { packets: stats.packets, bytes: stats.bytes, dropped: stats.dropped, errors: stats.errors }
}

fn net(name: &str, stats: &vmm_virtio::net::NetStats) -> NetStats {
    NetStats { name: name.to_owned(), received: traffic(stats.receive), sent: traffic(stats.transmit) }
}
