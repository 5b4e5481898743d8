//! `pinion devices bind` and `unbind`: which driver the host has for a device.

use pinion_discovery::From as MachineSource;
use pinion_launcher::chain;
use pinion_machine::Bdf;
use pinion_node_agent::{DriverError, PciBus, Rebound};

use crate::failure::Failure;
use crate::{machine, output};

/// Everything that is wrong, a line each.
#[derive(Debug, thiserror::Error)]
#[error("{}", .0.iter().map(|e| chain(e)).collect::<Vec<_>>().join("\npinion: "))]
struct Several(Vec<DriverError>);

/// Binds devices to `vfio-pci`.
///
/// # Errors
/// [`Failure::Invalid`] when one must not be passed through: nothing was touched.
pub(super) fn bind(addresses: &[Bdf]) -> Result<(), Failure> {
    let machine = machine::discover(&MachineSource::Host)?;
    done(PciBus::default().bind(&machine, addresses), "nothing to do: all are bound to vfio-pci")
}

/// Gives devices back.
///
/// # Errors
/// When one is not given back.
pub(super) fn unbind(addresses: &[Bdf]) -> Result<(), Failure> {
    let machine = machine::discover(&MachineSource::Host)?;
    done(PciBus::default().unbind(&machine, addresses), "nothing to do: none is bound to vfio-pci")
}

/// What went wrong with drivers: the input where nothing was touched for it.
pub(crate) fn failure(errors: Vec<DriverError>) -> Failure {
    if errors.iter().all(|e| matches!(e, DriverError::Obstacle { .. })) {
        return Failure::invalid(Several(errors));
    }
    Failure::failed(Several(errors))
}

fn done(outcome: Result<Vec<Rebound>, Vec<DriverError>>, nothing: &str) -> Result<(), Failure> {
    match outcome {
        Ok(rebound) if rebound.is_empty() => output::text(&format!("{nothing}\n")),
        Ok(rebound) => output::text(&rebound.iter().map(line).collect::<String>()),
        Err(errors) => Err(failure(errors)),
    }
}

fn line(rebound: &Rebound) -> String {
    format!("{}: {}\n", rebound.address, rebound.change())
}
