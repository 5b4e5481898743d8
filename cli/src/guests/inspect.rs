//! `pinion inspect`: everything that is known of a guest, as one document.

use pinion_endpoint::guest::GuestRequest;
use pinion_node_agent::{Keeper, Ledger};
use serde_json::{Value, json};

use super::Guest;
use crate::arguments::NameOptions;
use crate::failure::Failure;
use crate::output;

/// Prints it.
///
/// # Errors
/// Where there is no such guest, or it cannot be asked.
pub(crate) fn run(options: &NameOptions) -> Result<(), Failure> {
    let guest = Guest::named(options)?;
    let mut body: Value = guest.ask(&GuestRequest::Inspect)?;
    let isolation = Keeper::new(&Ledger::at(&options.guests.ledger)).isolation(guest.pid());
    if let Some(map) = body.as_object_mut() {
        map.insert("isolation".into(), json!(isolation));
        map.insert("ledger".into(), serde_json::to_value(&guest.entry).map_err(Failure::failed)?);
    }
    output::document("Guest", &body)
}
