//! `pinion devices`: the PCI functions that can be given to a guest, and what stands in the
//! way of the others.
//!
//! Called by `main`. Listing reads the host and changes nothing; whether a function may be
//! passed through is decided in `pinion-machine`, never here.

pub(crate) mod bind;
mod document;
mod picture;
mod pods;
mod resources;
mod words;

use crate::arguments::{DeviceFormat, DeviceListOptions, DevicesCommand, DevicesOptions};
use crate::failure::Failure;
use crate::{machine, output};
use document::DeviceList;

/// Runs the command below `devices`, else shows the list.
///
/// # Errors
/// When the machine cannot be read.
pub(crate) fn run(options: &DevicesOptions) -> Result<(), Failure> {
    match &options.command {
        None if options.list.pods => pods::show(&options.list),
        None => list(&options.list),
        Some(DevicesCommand::Bind(these)) => bind::bind(&these.addresses),
        Some(DevicesCommand::Unbind(these)) => bind::unbind(&these.addresses),
        Some(DevicesCommand::Resources(options)) => resources::show(options),
    }
}

fn list(options: &DeviceListOptions) -> Result<(), Failure> {
    let machine = machine::discover(&options.from)?;
    let list = DeviceList::of(&machine);
    match options.output {
        DeviceFormat::Json => output::document("DeviceList", &list),
        DeviceFormat::Text => output::text(&picture::text(&list, output::width())),
        DeviceFormat::Wide => output::text(&picture::wide(&list, output::width())),
    }
}
