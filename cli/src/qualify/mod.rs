//! `pinion qualify`: measures what dedicated CPUs really give.
//!
//! The CPUs are taken from the ledger and isolated exactly as a guest's are, so that what is measured is what a guest
//! gets. Measured twice, idle and under load, by a guest without an operating system and by a thread of the host.

mod counters;
mod load;
mod measure;
mod report;

use std::cell::Cell;
use std::io::IsTerminal;
use std::path::Path;

use nix::sys::signal::{SigSet, Signal};
use nix::sys::signalfd::{SfdFlags, SignalFd};
use pinion_machine::{CpuId, CpuSet, Machine};
use pinion_node_agent::{Fingerprint, Isolation, Qualification};
use pinion_planner::{Emulator, Holding, HoldingState, Occupancy, Placement, Vcpu};

use crate::arguments::{QualifyOptions, ReportFormat};
use crate::failure::Failure;
use crate::run::hosting::{self, Claim, Hosting, Unplaced};
use crate::{machine, output};
pub(crate) use load::Load;
use measure::Measurement;
pub(crate) use measure::Subject;

/// What holds the CPUs meanwhile.
const OWNER: &str = "pinion/qualify";

#[derive(Debug, thiserror::Error)]
enum QualifyError {
    #[error("--cpus {given}: CPUs {wrong} are not online, are housekeeping or are held: free are {free}")]
    Taken { given: CpuSet, wrong: CpuSet, free: CpuSet },
    #[error("No CPU is free to be dedicated: stop guests, or give fewer CPUs to --housekeeping")]
    NoneFree,
}

/// Measures, prints the result and keeps it.
///
/// # Errors
/// [`Failure`]; nothing is held and nothing changed then.
pub(crate) fn run(options: &QualifyOptions) -> Result<(), Failure> {
    let machine = machine::discover(&pinion_discovery::From::Host)?;
    let mut host = Hosting::at(&options.ledger);
    host.settle()?;
    let outcome = run_on(options, &machine, &mut host);
    let settled = host.settle();
    outcome.and(settled)
}

fn run_on(options: &QualifyOptions, machine: &Machine, host: &mut Hosting) -> Result<(), Failure> {
    let (mut claim, placement) =
        host.reserve(|taken| plan(options, machine, taken)).map_err(|e| match e {
            Unplaced::Failed(failure) => failure,
            Unplaced::Refused(refusal) => Failure::failed(refusal.to_string()),
        })?;
    let cpus = placement.dedicated_cpus();
    host.prepare(machine, &placement, &mut claim, hosting::wishes(&placement, true, &[]))?;
    host.settle()?;
    let pid = i32::try_from(std::process::id()).unwrap_or(0);
    // Before any thread is made, so that none of them takes a signal.
    let signals = signals().map_err(|e| Failure::failed(std::io::Error::from(e)))?;
    let measurement = Measurement {
        options,
        cpus: &cpus,
        others: machine.online().difference(&cpus),
        told: Cell::new(false),
        signals,
        ended: Cell::new(false),
    };
    let arm = |subject: &Subject| Ok((*subject, measurement.arm(*subject)?));
    let gauges: Vec<_> = options.subjects.iter().map(arm).collect::<Result<_, Failure>>()?;
    // Their threads are on their CPUs now, as a guest's are when it is armed. No thread could get there later.
    let isolation = host.isolate(OWNER, pid, &mut claim).unwrap_or(Isolation::Pinned);
    let mut phases = Vec::new();
    for (subject, gauge) in &gauges {
        for load in &options.loads {
            phases.push(measurement.phase(gauge, *subject, *load)?);
        }
    }
    drop(gauges);
    release(claim)?;
    let profile = format!("cpus {cpus}");
    let fingerprint = Fingerprint::of(Path::new("/"), &profile);
    let result = Qualification::new(fingerprint, cpus, isolation, phases);
    keep(options, &result)?;
    match options.output {
        ReportFormat::Json => output::document(Qualification::KIND, &result),
        ReportFormat::Text => output::text(&report::text(&result)),
    }
}

fn signals() -> nix::Result<SignalFd> {
    let mut set = SigSet::empty();
    for signal in [Signal::SIGTERM, Signal::SIGINT, Signal::SIGHUP] {
        set.add(signal);
    }
    set.thread_block()?;
    SignalFd::with_flags(&set, SfdFlags::SFD_NONBLOCK | SfdFlags::SFD_CLOEXEC)
}

fn release(claim: Claim) -> Result<(), Failure> {
    claim.release().map_err(Failure::failed)
}

fn keep(options: &QualifyOptions, result: &Qualification) -> Result<(), Failure> {
    if let Some(plot) = &options.plot {
        std::fs::write(plot, pinion_node_agent::qualification_svg(result)).map_err(Failure::failed)?;
    }
    if options.no_save {
        return Ok(());
    }
    result.write(&options.save).map_err(Failure::failed)
}

/// CPUs as a guest would hold them, without memory or devices.
fn plan(
    options: &QualifyOptions,
    machine: &Machine,
    taken: &Occupancy,
) -> Result<(Holding, Placement), Unplaced> {
    let mut occupancy = taken.clone();
    machine::set_housekeeping(&mut occupancy, machine, options.housekeeping.as_ref())
        .map_err(Unplaced::Failed)?;
    let free = occupancy.free(machine);
    let cpus = match &options.cpus {
        Some(given) => {
            let wrong = given.difference(&free);
            if !wrong.is_empty() {
                let taken = QualifyError::Taken { given: given.clone(), wrong, free };
                return Err(Unplaced::Failed(Failure::invalid(taken)));
            }
            given.clone()
        }
        None => free,
    };
    if cpus.is_empty() {
        return Err(Unplaced::Failed(Failure::failed(QualifyError::NoneFree)));
    }
    let placement = placement(&cpus, &occupancy);
    Ok((placement.holding(HoldingState::Reserved), placement))
}

fn placement(cpus: &CpuSet, occupancy: &Occupancy) -> Placement {
    let vcpu = |(id, cpu): (u32, CpuId)| Vcpu {
        id,
        socket: 0,
        core: id,
        thread: 0,
        cell: 0,
        cpu: Some(cpu),
        cpus: CpuSet::new(),
        realtime: false,
    };
    Placement {
        name: OWNER.to_owned(),
        generation: occupancy.generation,
        vcpus: (0..).zip(cpus.iter()).map(vcpu).collect(),
        emulator: Emulator { cpus: occupancy.housekeeping.clone() },
        io_threads: Vec::new(),
        cells: Vec::new(),
        devices: Vec::new(),
    }
}

/// Whether somebody watches.
fn is_watched() -> bool {
    std::io::stderr().is_terminal()
}

impl Load {
    /// As the command line and the result name it.
    pub(crate) const fn as_str(self) -> &'static str {
        match self {
            Self::None => "none",
            Self::Cpu => "cpu",
            Self::Memory => "memory",
        }
    }
}
