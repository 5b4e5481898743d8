//! `pinion pause`, `unpause`, `reset`, `soft-reboot`: what is done with guests that run.

use pinion_endpoint::guest::GuestRequest;
use serde_json::Value;

use super::Guest;
use crate::arguments::ActOptions;
use crate::failure::Failure;

/// Asks each guest, and says what was done with it.
///
/// # Errors
/// [`Failure::Invalid`] where there is no such guest; nothing is asked of any then.
pub(crate) fn run(options: &ActOptions, request: &GuestRequest, done: &str) -> Result<(), Failure> {
    for guest in Guest::find_all(&options.guests, &options.names)? {
        guest.ask::<Value>(request)?;
        println!("{} {done}", guest.owner());
    }
    Ok(())
}
