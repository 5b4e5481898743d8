//! Arming: the whole machine, short of its first instruction.
//!
//! The steps are in [`arm`]; each is a function of its own, told to `progress` with its time.

use std::collections::BTreeMap;
use std::fs::File;
use std::sync::atomic::AtomicU64;
use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};

use nix::sys::eventfd::{EfdFlags, EventFd as EndFd};
use vmm_acpi::{AcpiConfig, Cell, Cpu, platform};
use vmm_bus::{Bus, BusDevice, BusRange, MsiRouter};
use vmm_devices::{InterruptPin, Ioapic, Keyboard, Power, PowerSignals, Serial, SystemControl};
use vmm_event_loop::{EventLoopHandle, Interest, Watch};
use vmm_host::lock_memory;
use vmm_kvm::{ApicId, CpuidProfile, KvmRouter, KvmVm, Topology};
use vmm_memory::layout::{self, Stretch};
use vmm_memory::{CellRam, GuestRam, RamConfig};
use vmm_pci::{CONFIG_PORTS, ECAM_BYTES_PER_BUS, PciSegment};
use vmm_sys_util::eventfd::{EFD_CLOEXEC, EFD_NONBLOCK, EventFd};

use crate::config::{ConsoleConfig, Hints, MachineConfig, Rng};
use crate::console::{self, Buffer};
use crate::devices::{Counters, Slots};
use crate::error::ArmError;
use crate::gate::Gate;
use crate::io::Buses;
use crate::loader::Loader;
use crate::machine::{ArmedMachine, Console, MemoryInfo, Parts};
use crate::passthrough::{self, Bridge, Passthrough};
use crate::sandbox::{Devices, Sandbox};
use crate::supervisor::{Platform, Supervisor};
use crate::threads;
use crate::vcpu::{self, FirstEntry};

/// Called with each phase of arming and how long it took.
pub(crate) type Progress<'a> = &'a mut dyn FnMut(&'static str, Duration);

/// Builds the machine.
///
/// The order matters:
/// 1. KVM comes first: without it nothing else is worth the time.
/// 2. Memory is bound and populated before anybody can touch it: devices of the host, which are opened
///    next, pin its pages where they are.
/// 3. Emulator and I/O threads exist before the devices that they serve.
/// 4. The kernel is loaded last but one: only now is memory where it will stay.
/// 5. vCPU threads come last; they wait at a gate that only [`ArmedMachine::run`] opens.
pub(crate) fn arm(mut config: MachineConfig, progress: Progress<'_>) -> Result<ArmedMachine, ArmError> {
    let began = Instant::now();
    let mut timed = Timed { last: began, progress };
    check(&config)?;
    let topology = Topology { sockets: config.sockets, cores: config.cores, threads: config.threads };
    let ids: Vec<ApicId> =
        config.vcpus.iter().map(|v| topology.apic_id(v.socket, v.core, v.thread)).collect();
    let highest = ids.iter().max().copied().unwrap_or(ApicId(0));
    let mut vm = KvmVm::new(ids.len(), highest, hints(config.hints))?;
    timed.done("kvm");

    let ram = Arc::new(GuestRam::build(&ram_config(&config))?);
    vm.set_memory(Arc::clone(&ram))?;
    timed.done("memory");

    let attention = event()?;
    let gate = Arc::new(Gate::new(ids.len(), twin(&attention)?, end_event()?));
    let mut parts = Parts::new(vm, Arc::clone(&ram), Arc::clone(&gate));
    let passthrough = open_devices(&mut config, &mut parts)?;
    if let Some(passthrough) = &passthrough {
        timed.part("dma mapping", passthrough.domain.mapping_took());
        timed.done("host devices");
    }
    let sandbox = Sandbox::new(if passthrough.is_some() { Devices::OfTheHost } else { Devices::Emulated })?;
    let (emulator, io) = threads::start_loops(&config, &sandbox, &mut parts)?;
    timed.done("threads");

    let window64 = layout::pci64(ram.end(), parts.vm.physical_bits());
    let router = parts.vm.router();
    let line = Line::new(&config.console)?;
    let buses = parts.buses.clone();
    let window32 = Stretch { start: layout::PCI32_START, len: layout::PCI32_LEN };
    let needs = passthrough.as_ref().map(Passthrough::needs).unwrap_or_default();
    let bridges = passthrough::bridges(&needs, config.cells.len(), window32, window64)?;
    let platform = board(&buses, &gate, &router, &line, &bridges)?;
    let console = console(std::mem::take(&mut config.console), line, &platform, (&emulator, &mut parts))?;
    parts.console = Some(console);
    parts.power = Some(Arc::clone(&platform.power));
    let slots = Slots {
        pci: Arc::clone(&platform.pci),
        ram: Arc::clone(&ram),
        router: Arc::<KvmRouter>::clone(&router),
        doorbells: router,
    };
    parts.counters = devices(&mut config, &slots, &emulator, &io)?;
    if let Some(passthrough) = passthrough {
        let (domain, named, subscribers) = passthrough.plug(&platform.pci, &bridges, &emulator)?;
        (parts.domain, parts.devices) = (Some(domain), named);
        subscribers.into_iter().for_each(|id| parts.keep_subscriber(&emulator, id));
    }
    timed.done("devices");

    let acpi = acpi(&config, &ids, &ram, &bridges);
    let mut loader = Loader { ram, kernel: config.kernel, acpi };
    let entry = loader.load()?;
    let interest = Interest::new(&attention, 0, Watch::Readable);
    let reboots = Arc::clone(&parts.reboots);
    let supervisor =
        Supervisor { attention, gate: Arc::clone(&gate), platform, loader, reboots, quick_resets: 0 };
    let id = emulator.add(Box::new(supervisor), &[interest])?;
    parts.keep_subscriber(&emulator, id);
    timed.done("kernel");

    let cells: Vec<_> = ids.iter().copied().zip(config.vcpus.iter().map(|v| v.cell)).collect();
    let profile = profile(topology, &cells, config.hints);
    let first = Arc::new(FirstEntry { began, after_ns: AtomicU64::new(0) });
    parts.first = Some(Arc::clone(&first));
    for (index, (vcpu, id)) in (0u32..).zip(config.vcpus.iter().zip(&ids)) {
        let kvm = parts.vm.create_vcpu(index, *id, &profile)?;
        let body = vcpu::Body {
            vcpu: kvm,
            gate: Arc::clone(&gate),
            buses: buses.clone(),
            first: Arc::clone(&first),
        };
        threads::start_vcpu(body, vcpu, &sandbox, &mut parts)?;
    }
    if config.vcpus.iter().any(|v| v.fifo.is_some()) {
        lock_memory()?;
    }
    timed.done("vcpus");
    Ok(ArmedMachine::new(parts, entry))
}

struct Timed<'a> {
    last: Instant,
    progress: Progress<'a>,
}

impl Timed<'_> {
    fn done(&mut self, phase: &'static str) {
        let now = Instant::now();
        (self.progress)(phase, now - self.last);
        self.last = now;
    }

    /// Part of a phase that is told on its own, and not counted again.
    fn part(&mut self, phase: &'static str, took: Duration) {
        (self.progress)(phase, took);
        self.last += took;
    }
}

fn check(config: &MachineConfig) -> Result<(), ArmError> {
    let product = u64::from(config.sockets) * u64::from(config.cores) * u64::from(config.threads);
    let cells = config.cells.len();
    let in_range = |v: &crate::VcpuConfig| {
        v.socket < config.sockets
            && v.core < config.cores
            && v.thread < config.threads
            && usize::try_from(v.cell).is_ok_and(|c| c < cells)
    };
    if product != config.vcpus.len() as u64 || product == 0 {
        return Err(ArmError::Config("sockets × cores × threads is not the number of vCPUs"));
    }
    if !config.vcpus.iter().all(in_range) {
        return Err(ArmError::Config("a vCPU lies outside the topology or the cells"));
    }
    if config.disks.iter().any(|d| d.io_thread.is_some_and(|t| t >= config.io_threads.len())) {
        return Err(ArmError::Config("a disk names an I/O thread that does not exist"));
    }
    Ok(())
}

fn event() -> Result<EventFd, ArmError> {
    EventFd::new(EFD_NONBLOCK | EFD_CLOEXEC).map_err(ArmError::Event)
}

fn end_event() -> Result<EndFd, ArmError> {
    EndFd::from_flags(EfdFlags::EFD_CLOEXEC | EfdFlags::EFD_NONBLOCK).map_err(|e| ArmError::Event(e.into()))
}

fn twin(event: &EventFd) -> Result<EventFd, ArmError> {
    event.try_clone().map_err(ArmError::Event)
}

fn ram_config(config: &MachineConfig) -> RamConfig {
    let cells = (0u32..).zip(&config.cells).map(|(cell, c)| CellRam {
        cell,
        bytes: c.memory_bytes,
        page_size: c.page_size,
        host_node: c.host_node,
    });
    RamConfig { cells: cells.collect() }
}

/// What the serial port is wired to.
struct Line {
    buffer: Arc<Buffer>,
    /// Signalled when the buffer has something.
    news: EventFd,
    /// Signalled when the port has room for input.
    drained: EventFd,
}

impl Line {
    fn new(config: &ConsoleConfig) -> Result<Self, ArmError> {
        let (news, drained) = (event()?, event()?);
        Ok(Self { buffer: Buffer::new(twin(&news)?, config.output.is_none()), news, drained })
    }
}

/// The buses with all that is on every board: IOAPIC, power, reset, PCI.
fn board(
    buses: &Buses,
    gate: &Arc<Gate>,
    router: &Arc<KvmRouter>,
    line: &Line,
    bridges: &[Bridge],
) -> Result<Platform, ArmError> {
    let msi: Arc<dyn MsiRouter> = Arc::<KvmRouter>::clone(router);
    let ioapic = Arc::new(Mutex::new(Ioapic::new(msi)));
    buses.mmio.register(BusRange { base: layout::IOAPIC.0, len: layout::IOAPIC_LEN }, ioapic.clone())?;
    let signals: Arc<dyn PowerSignals> = Arc::<Gate>::clone(gate);
    let power = Arc::new(Mutex::new(Power::new(
        Arc::clone(&signals),
        InterruptPin::new(&ioapic, platform::EVENT_GSI),
    )));
    let port = |base: u16, len: u16, device: Arc<Mutex<dyn BusDevice>>| {
        buses.ports.register(BusRange { base: base.into(), len: len.into() }, device)
    };
    port(platform::POWER_PORT, platform::POWER_PORTS, power.clone())?;
    port(Keyboard::PORT, 1, Arc::new(Mutex::new(Keyboard::new(signals))))?;
    port(SystemControl::PORT, 1, Arc::new(Mutex::new(SystemControl)))?;
    let pci = pci(&buses.mmio, bridges)?;
    buses.ports.register_shared(CONFIG_PORTS, pci.config_ports())?;
    let last = bridges.iter().map(|b| u64::from(b.bus)).max().unwrap_or(0);
    let ecam = BusRange { base: layout::ECAM_START.0, len: (last + 1) * ECAM_BYTES_PER_BUS };
    buses.mmio.register_shared(ecam, pci.ecam())?;
    let pin = InterruptPin::new(&ioapic, platform::SERIAL_GSI);
    let serial = Serial::with_drained(pin, twin(&line.drained)?, line.buffer.sink());
    let serial: console::Port = Arc::new(Mutex::new(serial));
    port(platform::SERIAL_PORT, platform::SERIAL_PORTS, serial.clone())?;
    Ok(Platform { pci, ioapic, power, serial })
}

fn pci(mmio: &Arc<Bus>, bridges: &[Bridge]) -> Result<Arc<PciSegment>, ArmError> {
    let wrong = |source| ArmError::Pci { device: "the host bridge".to_owned(), source };
    let roots = bridges.iter().map(Bridge::root_bus).collect();
    let pci = PciSegment::new(Arc::clone(mmio), roots).map_err(wrong)?;
    pci.add(0, Arc::new(Mutex::new(vmm_pci::HostBridge::new()))).map_err(wrong)?;
    Ok(pci)
}

/// Opens the devices of the host that the guest gets, where it gets any.
fn open_devices(config: &mut MachineConfig, parts: &mut Parts) -> Result<Option<Passthrough>, ArmError> {
    if config.devices.is_empty() {
        return Ok(None);
    }
    let (devices, iommu) = (std::mem::take(&mut config.devices), config.iommu.take());
    let news = Arc::new(end_event()?);
    let opened = Passthrough::open(devices, iommu, &parts.vm, &parts.ram, &news)?;
    parts.device_news = Some(news);
    Ok(Some(opened))
}

/// Starts what carries the console's bytes; the buffer and its file are kept for the last words.
fn console(
    config: ConsoleConfig,
    line: Line,
    platform: &Platform,
    (on, parts): (&EventLoopHandle, &mut Parts),
) -> Result<Console, ArmError> {
    let Line { buffer, news, drained } = line;
    let output: Option<File> = config.output.map(File::from);
    let last = output.as_ref().map(File::try_clone).transpose().map_err(ArmError::Event)?;
    if let Some(file) = output {
        let id = console::Output::start(&buffer, news, file, on)?;
        parts.keep_subscriber(on, id);
    }
    if let Some(input) = config.input {
        let id = console::Input::start(input.into(), Arc::clone(&platform.serial), drained, on)?;
        parts.keep_subscriber(on, id);
    }
    Ok((buffer, last))
}

fn devices(
    config: &mut MachineConfig,
    slots: &Slots,
    emulator: &EventLoopHandle,
    io: &[EventLoopHandle],
) -> Result<Counters, ArmError> {
    let mut counters = Counters::default();
    for disk in config.disks.drain(..) {
        let on = disk.io_thread.and_then(|t| io.get(t)).unwrap_or(emulator).clone();
        let name = disk.name.clone();
        counters.disks.push((name, slots.disk(disk, on)?));
    }
    for net in config.nets.drain(..) {
        let name = net.name.clone();
        counters.nets.push((name, slots.net(net, emulator.clone())?));
    }
    if config.rng == Rng::Present {
        slots.rng(emulator.clone())?;
    }
    Ok(counters)
}

fn acpi(config: &MachineConfig, ids: &[ApicId], ram: &GuestRam, bridges: &[Bridge]) -> AcpiConfig {
    let cpus = config.vcpus.iter().zip(ids).map(|(v, id)| Cpu { apic_id: id.0, cell: v.cell }).collect();
    let memory = |cell: u32| {
        let of_cell = ram.regions().iter().filter(move |r| r.cell == cell);
        of_cell.map(|r| Stretch { start: r.gpa, len: r.bytes }).collect()
    };
    let cells = (0u32..)
        .zip(&config.cells)
        .map(|(number, c)| Cell { memory: memory(number), distances: c.distances.clone() })
        .collect();
    AcpiConfig { cpus, cells, host_bridges: bridges.iter().map(Bridge::acpi).collect() }
}

/// vCPUs share the last-level cache of their socket, or of the largest part of it that lies in one
/// cell: Linux refuses a cache that spans cells.
fn profile(topology: Topology, vcpus: &[(ApicId, u32)], hints: Hints) -> CpuidProfile {
    let in_one_cell = |shift: &u32| {
        let mut owners = BTreeMap::new();
        vcpus.iter().all(|(id, cell)| owners.insert(id.0 >> shift, cell).is_none_or(|other| other == cell))
    };
    let shifts = topology.thread_shift()..=topology.package_shift();
    let llc_shift = shifts.rev().find(in_one_cell).unwrap_or(topology.thread_shift());
    CpuidProfile { topology, llc_shift, hints: self::hints(hints) }
}

fn hints(hints: Hints) -> vmm_kvm::Hints {
    match hints {
        Hints::None => vmm_kvm::Hints::None,
        Hints::Dedicated => vmm_kvm::Hints::Dedicated,
    }
}

/// Where the cells' memory lies, for whoever looks at it.
pub(crate) fn memory(ram: &GuestRam) -> Vec<MemoryInfo> {
    ram.regions()
        .iter()
        .map(|r| MemoryInfo {
            cell: r.cell,
            start: r.hva.0,
            bytes: r.bytes,
            page_size: r.page_size,
            host_node: r.host_node,
        })
        .collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn llc_shift(topology: Topology, cell: impl Fn(u32, u32) -> u32) -> u32 {
        let Topology { sockets, cores, threads } = topology;
        let places =
            (0..sockets).flat_map(|s| (0..cores).flat_map(move |c| (0..threads).map(move |t| (s, c, t))));
        let vcpus: Vec<_> = places.map(|(s, c, t)| (topology.apic_id(s, c, t), cell(s, c))).collect();
        profile(topology, &vcpus, Hints::None).llc_shift
    }

    #[test]
    fn the_last_level_cache_is_the_largest_that_lies_in_one_cell() {
        let topology = Topology { sockets: 2, cores: 4, threads: 2 };
        assert_eq!(llc_shift(topology, |_, _| 0), 3);
        assert_eq!(llc_shift(topology, |socket, _| socket), 3);
        assert_eq!(llc_shift(topology, |socket, core| socket * 2 + core / 2), 2);
        assert_eq!(llc_shift(topology, |_, core| core % 2), 1);
    }
}
