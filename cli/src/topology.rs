//! `pinion topology`: the machine, and who holds what on it.

use pinion_machine::Machine;
use pinion_map::View;
use pinion_planner::Occupancy;
use serde::Serialize;

use crate::arguments::{PictureFormat, TopologyOptions};
use crate::failure::Failure;
use crate::{machine, output};

#[derive(Serialize)]
#[serde(rename_all = "camelCase")]
struct Topology<'a> {
    #[serde(flatten)]
    machine: &'a Machine,
    occupancy: &'a Occupancy,
}

/// Prints the machine.
///
/// # Errors
/// When the machine or the ledger cannot be read.
pub(crate) fn run(options: &TopologyOptions) -> Result<(), Failure> {
    let (machine, occupancy) = machine::read(&options.machine)?;
    let view = View::of(&machine, &occupancy);
    match options.output {
        PictureFormat::Json => {
            output::document("Machine", &Topology { machine: &machine, occupancy: &occupancy })
        }
        PictureFormat::Text => output::text(&pinion_map::text(&machine, &view, output::style())),
        PictureFormat::Svg => output::text(&pinion_map::svg(&machine, &view)),
    }
}
