//! The machine a command is about, and what is taken on it.

use std::path::Path;

use pinion_discovery::From as MachineSource;
use pinion_machine::{CpuSet, Machine};
use pinion_node_agent::{DEFAULT_LEDGER_PATH, Ledger};
use pinion_planner::Occupancy;

use crate::arguments::MachineOptions;
use crate::failure::Failure;

#[derive(Debug, thiserror::Error)]
enum HousekeepingError {
    #[error("--housekeeping {given}: CPUs {absent} are not online on this machine, which has {online}")]
    Absent { given: CpuSet, absent: CpuSet, online: CpuSet },
    #[error("--housekeeping {given}: CPUs {taken} are dedicated to {owner}")]
    Taken { given: CpuSet, taken: CpuSet, owner: String },
}

/// The machine and what is taken on it.
///
/// # Errors
/// When the machine or the ledger cannot be read, or `--housekeeping` does not fit them.
pub(crate) fn read(options: &MachineOptions) -> Result<(Machine, Occupancy), Failure> {
    let machine = discover(&options.from)?;
    let on_host = matches!(options.from, MachineSource::Host);
    let default = on_host.then(|| Path::new(DEFAULT_LEDGER_PATH));
    let mut occupancy = match options.ledger.as_deref().or(default) {
        Some(path) => Ledger::at(path).read().map_err(Failure::failed)?.occupancy(),
        None => Occupancy::default(),
    };
    set_housekeeping(&mut occupancy, &machine, options.housekeeping.as_ref())?;
    Ok((machine, occupancy))
}

/// The machine.
///
/// # Errors
/// [`Failure::Failed`] for the host, [`Failure::Invalid`] for what the user named.
pub(crate) fn discover(from: &MachineSource) -> Result<Machine, Failure> {
    let fail = if matches!(from, MachineSource::Host) { Failure::failed } else { Failure::invalid };
    pinion_discovery::discover(from).map_err(fail)
}

/// Fills in which CPUs are never dedicated: those given, else the ledger's, else the default.
///
/// # Errors
/// [`Failure::Invalid`] when those given are offline or dedicated already.
pub(crate) fn set_housekeeping(
    occupancy: &mut Occupancy,
    machine: &Machine,
    given: Option<&CpuSet>,
) -> Result<(), Failure> {
    if let Some(given) = given {
        check(given, occupancy, machine).map_err(Failure::invalid)?;
        occupancy.housekeeping.clone_from(given);
    } else if occupancy.housekeeping.is_empty() {
        occupancy.housekeeping = Occupancy::default_housekeeping(machine);
    }
    Ok(())
}

fn check(given: &CpuSet, occupancy: &Occupancy, machine: &Machine) -> Result<(), HousekeepingError> {
    let online = machine.online();
    let absent = given.difference(&online);
    if !absent.is_empty() {
        return Err(HousekeepingError::Absent { given: given.clone(), absent, online });
    }
    match occupancy.holdings.iter().find(|h| !h.cpus.is_disjoint(given)) {
        Some(holding) => Err(HousekeepingError::Taken {
            given: given.clone(),
            taken: holding.cpus.intersection(given),
            owner: holding.owner.clone(),
        }),
        None => Ok(()),
    }
}

#[cfg(test)]
mod tests {
    use pinion_planner::{Holding, HoldingState};

    use super::*;

    fn machine() -> Machine {
        pinion_planner::Shape::new(2, 2).build()
    }

    fn cpus(list: &str) -> CpuSet {
        list.parse().unwrap()
    }

    #[test]
    fn housekeeping_that_is_given_wins_over_the_ledger() {
        let mut occupancy = Occupancy { housekeeping: cpus("0"), ..Occupancy::default() };
        set_housekeeping(&mut occupancy, &machine(), Some(&cpus("1"))).unwrap();
        assert_eq!(occupancy.housekeeping, cpus("1"));
    }

    #[test]
    fn housekeeping_defaults_to_some_cpu() {
        let mut occupancy = Occupancy::default();
        set_housekeeping(&mut occupancy, &machine(), None).unwrap();
        assert!(!occupancy.housekeeping.is_empty());
    }

    #[test]
    fn housekeeping_on_absent_or_taken_cpus_is_refused() {
        let holding = Holding {
            owner: "default/a".into(),
            state: HoldingState::Committed,
            cpus: cpus("2-3"),
            floating: vec![],
            memory: vec![],
            devices: vec![],
        };
        let occupancy = Occupancy { holdings: vec![holding], ..Occupancy::default() };
        let refusal = |list| check(&cpus(list), &occupancy, &machine()).unwrap_err().to_string();
        assert!(refusal("0,9").contains("CPUs 9 are not online"));
        assert!(refusal("1-2").contains("CPUs 2 are dedicated to default/a"));
    }
}
