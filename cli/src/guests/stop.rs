//! `pinion stop`: presses the power button, and waits for the end.

use std::thread;
use std::time::{Duration, Instant};

use pinion_endpoint::guest::GuestRequest;
use serde_json::Value;

use super::Guest;
use crate::arguments::StopOptions;
use crate::failure::Failure;

const LOOK_EACH: Duration = Duration::from_millis(20);

#[derive(Debug, thiserror::Error)]
#[error("{owner} still runs after {seconds} s: end it at once with --force")]
struct StillRuns {
    owner: String,
    seconds: u64,
}

/// Stops guests.
///
/// # Errors
/// [`Failure::Invalid`] where there is no such guest; nothing is stopped then.
pub(crate) fn run(options: &StopOptions) -> Result<(), Failure> {
    let guests = Guest::find_all(&options.guests, &options.names)?;
    for guest in &guests {
        guest.ask::<Value>(&GuestRequest::Stop { force: options.force })?;
    }
    let end = Instant::now() + Duration::from_secs(options.timeout);
    for guest in &guests {
        while guest.entry.process.is_alive() {
            if Instant::now() >= end {
                let owner = guest.owner().to_owned();
                return Err(Failure::failed(StillRuns { owner, seconds: options.timeout }));
            }
            thread::sleep(LOOK_EACH);
        }
        println!("{} stopped", guest.owner());
    }
    Ok(())
}
