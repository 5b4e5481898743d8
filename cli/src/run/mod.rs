//! `pinion run`: plans, reserves, and starts a launcher for each VM of a file; then waits.
//!
//! All VMs are planned and reserved before the first is started: a file runs whole or not at all.

mod child;
pub(crate) mod hosting;
mod report;

use std::cell::RefCell;
use std::panic::resume_unwind;
use std::thread;

use pinion_api::VirtualMachineInstance;
use pinion_launcher::{AuditPolicy, BackendKind, ConsoleMode, LaunchSpec};
use pinion_machine::{CpuSet, Machine};
use pinion_node_agent::{Ledger, PagesWish};
use pinion_planner::{HoldingState, Occupancy, Placement};

use crate::arguments::{PictureFormat, RunOptions};
use crate::backend::{self, Chosen};
use crate::failure::{Failure, REFUSED};
use crate::resources::{DeviceNames, Wanted};
use crate::{huge_pages, machine, output, plan, specs};
use hosting::{Claim, Hosting, Unplaced};

#[derive(Debug, thiserror::Error)]
enum RunError {
    #[error("--console is for one VM, and this file has {0}: run them one by one")]
    ConsoleOfSeveral(usize),
    #[error("The metrics ports of {0} VMs do not fit above port {1}: give a lower one with --metrics")]
    Ports(usize, u16),
    #[error(
        "--detach needs the node agent, which looks after the host when this command is gone: start it with \
         `sudo pinion agent`"
    )]
    NoAgent,
    #[error("Cannot make the folder of guests' sockets")]
    Sockets(#[source] pinion_node_agent::LedgerError),
}

/// A VM that has its place.
struct Placed {
    spec: LaunchSpec,
    claim: Claim,
    /// Huge pages that are made for it.
    pages: Vec<PagesWish>,
}

/// Runs the VMs of a file.
///
/// # Errors
/// [`Failure`]; nothing runs and nothing is held then.
pub(crate) fn run(options: &RunOptions) -> Result<(), Failure> {
    let instances = specs::read(&options.file)?;
    check(options, &instances)?;
    let names = DeviceNames::read(options.devices.as_deref())?;
    let find = || machine::discover(&pinion_discovery::From::Host);
    if options.dry_run {
        let (_, machine) = look(options, &instances, find)?;
        return dry_run(options, &machine, &instances, &names);
    }
    let mut host = Hosting::at(&options.ledger);
    if options.detach && !host.is_agent() {
        return Err(Failure::failed(RunError::NoAgent));
    }
    // Leftovers of guests that were killed are gone then, so the machine is read as it will be used.
    let (backends, machine) = look(options, &instances, || host.settle().and_then(|()| find()))?;
    let outcome = run_all(options, &instances, (&backends, &names), &machine, &mut host);
    // All reservations are gone: what nobody needs any more is put back.
    let settled = host.settle();
    outcome.and(settled)
}

/// Looks into the guests' disks and at the machine, both at once: each takes longer than everything else before a
/// launcher starts. What is wrong with a VM is told before what is wrong with the machine.
fn look(
    options: &RunOptions,
    instances: &[VirtualMachineInstance],
    find: impl FnOnce() -> Result<Machine, Failure>,
) -> Result<(Vec<Chosen>, Machine), Failure> {
    let (backends, machine) = thread::scope(|scope| {
        let choosing = scope.spawn(|| backend::choose(options.backend, instances));
        let machine = find();
        (choosing.join().unwrap_or_else(|panic| resume_unwind(panic)), machine)
    });
    Ok((backends?, machine?))
}

/// 1. CPUs, pages and devices are reserved: from here on nobody else takes them.
/// 2. Devices are bound, and the dedicated CPUs made quiet.
/// 3. The guests start.
fn run_all(
    options: &RunOptions,
    instances: &[VirtualMachineInstance],
    (backends, names): (&[Chosen], &DeviceNames),
    machine: &Machine,
    host: &mut Hosting,
) -> Result<(), Failure> {
    let mut placed = reserve_all(options, machine, instances, names, host)?;
    for (guest, chosen) in placed.iter_mut().zip(backends) {
        guest.spec.backend = chosen.backend;
        report::backend(&guest.spec.placement.name, chosen);
    }
    report::started(&placed.iter().map(|p| &p.spec.placement).collect::<Vec<_>>());
    for guest in &mut placed {
        let mut wishes = hosting::wishes(&guest.spec.placement, !options.leave_host_settings, &guest.pages);
        // QEMU's threads stay in the control groups that libvirt made for them.
        wishes.pinned_only = guest.spec.backend == BackendKind::Libvirt && wishes.quiet_cpus;
        host.prepare(machine, &guest.spec.placement, &mut guest.claim, wishes)?;
    }
    host.settle()?;
    for guest in &placed {
        if let Err(short) = huge_pages::check(&guest.spec.placement, &guest.pages) {
            report::warning(&guest.spec.placement.name, &short);
            return Err(Failure::Silent(REFUSED));
        }
    }
    let children = child::start_all(placed, options.detach)?;
    child::wait_all(children, host, options.detach)
}

fn check(options: &RunOptions, instances: &[VirtualMachineInstance]) -> Result<(), Failure> {
    let count = instances.len();
    if options.console && count > 1 {
        return Err(Failure::invalid(RunError::ConsoleOfSeveral(count)));
    }
    let first = options.metrics.map_or(0, |address| address.port());
    let last = u16::try_from(count).ok().and_then(|n| first.checked_add(n));
    if options.metrics.is_some() && last.is_none() {
        return Err(Failure::invalid(RunError::Ports(count, first)));
    }
    Ok(())
}

fn dry_run(
    options: &RunOptions,
    machine: &Machine,
    instances: &[VirtualMachineInstance],
    names: &DeviceNames,
) -> Result<(), Failure> {
    let mut occupancy = Ledger::at(&options.ledger).read().map_err(Failure::failed)?.occupancy();
    machine::set_housekeeping(&mut occupancy, machine, options.housekeeping.as_ref())?;
    let plans = plan::plan_all(machine, occupancy, instances, names)?;
    plan::show(machine, &plans, PictureFormat::Text)?;
    if plans.answers.iter().all(Result::is_ok) { Ok(()) } else { Err(Failure::Silent(REFUSED)) }
}

/// Reserves one VM after the other. Where one is refused, dropping the others gives them back.
fn reserve_all(
    options: &RunOptions,
    machine: &Machine,
    instances: &[VirtualMachineInstance],
    names: &DeviceNames,
    host: &Hosting,
) -> Result<Vec<Placed>, Failure> {
    Ledger::at(&options.ledger)
        .tidy_sockets()
        .or_else(|e| if host.is_agent() { Ok(()) } else { Err(Failure::failed(RunError::Sockets(e))) })?;
    // Who may not write the kernel's files is told what is short instead.
    let may_make = !options.leave_host_settings && (host.is_agent() || nix::unistd::geteuid().is_root());
    let mut placed = Vec::with_capacity(instances.len());
    for (number, instance) in (0u16..).zip(instances) {
        let pages = RefCell::new(Vec::new());
        let reserved = host.reserve(|taken| {
            let (holding, placement, made) = plan_one(options, machine, (instance, names), taken, may_make)?;
            pages.replace(made);
            Ok((holding, placement))
        });
        let (claim, placement) = match reserved {
            Ok(done) => done,
            Err(Unplaced::Failed(failure)) => return Err(failure),
            Err(Unplaced::Refused(refusal)) => {
                output::text(&plan::explain(&refusal))?;
                return Err(Failure::Silent(REFUSED));
            }
        };
        let spec = launch_spec(options, instance, placement, number, instances.len());
        placed.push(Placed { spec, claim, pages: pages.into_inner() });
    }
    Ok(placed)
}

fn plan_one(
    options: &RunOptions,
    machine: &Machine,
    (instance, names): (&VirtualMachineInstance, &DeviceNames),
    taken: &Occupancy,
    may_make: bool,
) -> Result<(pinion_planner::Holding, Placement, Vec<PagesWish>), Unplaced> {
    let mut occupancy = taken.clone();
    machine::set_housekeeping(&mut occupancy, machine, options.housekeeping.as_ref())
        .map_err(Unplaced::Failed)?;
    let wanted = if options.bind { Wanted::Assignable } else { Wanted::Bound };
    let request = names.request(machine, instance, wanted).map_err(Unplaced::Failed)?;
    let (placement, made) = huge_pages::place(machine, &occupancy, &request, may_make)
        .map_err(|refusal| Unplaced::Refused(Box::new(refusal)))?;
    Ok((placement.holding(HoldingState::Reserved), placement, made))
}

fn launch_spec(
    options: &RunOptions,
    instance: &VirtualMachineInstance,
    placement: Placement,
    number: u16,
    count: usize,
) -> LaunchSpec {
    let mut metrics = options.metrics;
    if let Some(address) = &mut metrics {
        address.set_port(address.port().saturating_add(if address.port() == 0 { 0 } else { number }));
    }
    let mut placement = placement;
    if options.leave_host_settings {
        // Nobody brings them anywhere: nothing is promised.
        placement.devices.iter_mut().for_each(|d| d.interrupt_cpus = CpuSet::new());
    }
    let certificate = options.certificate.as_ref().map(|path| {
        if count == 1 {
            return path.clone();
        }
        let mut name = path.clone().into_os_string();
        name.push(format!(".{}", instance.name()));
        name.into()
    });
    LaunchSpec {
        api_version: LaunchSpec::API_VERSION.to_owned(),
        kind: LaunchSpec::KIND.to_owned(),
        backend: BackendKind::Native,
        instance: instance.clone(),
        placement,
        pod_volumes: None,
        cluster: None,
        metrics,
        certificate,
        sockets: Some(Ledger::at(&options.ledger).sockets()),
        shared_pool: false,
        wait_fd: None,
        console: if options.console { ConsoleMode::Attached } else { ConsoleMode::Log },
        audit: AuditPolicy { interval_seconds: options.audit_interval, repair: !options.no_repair },
    }
}
