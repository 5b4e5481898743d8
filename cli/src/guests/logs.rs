//! `pinion logs`: what a guest's serial console printed.

use std::io::{self, Read, Write};

use pinion_endpoint::guest::GuestRequest;
use pinion_endpoint::open;
use serde_json::Value;

use super::{ANSWER_WITHIN, Guest};
use crate::arguments::LogsOptions;
use crate::failure::Failure;

/// Prints it.
///
/// # Errors
/// Where there is no such guest, or it cannot be asked.
pub(crate) fn run(options: &LogsOptions) -> Result<(), Failure> {
    let guest = Guest::named(&options.of)?;
    let request = GuestRequest::Logs { follow: options.follow };
    let (_, mut stream, first): (Value, _, _) =
        open(&guest.socket(), &request, ANSWER_WITHIN).map_err(|e| guest.silent(e))?;
    print(&first)?;
    let mut bytes = [0; 4096];
    loop {
        match stream.read(&mut bytes) {
            // The guest's end breaks the connection in one way or another.
            Ok(0) | Err(_) => return Ok(()),
            Ok(read) => print(bytes.get(..read).unwrap_or_default())?,
        }
    }
}

fn print(bytes: &[u8]) -> Result<(), Failure> {
    let mut out = io::stdout().lock();
    match out.write_all(bytes).and_then(|()| out.flush()) {
        Err(e) if e.kind() == io::ErrorKind::BrokenPipe => Err(Failure::Silent(0)),
        done => done.map_err(Failure::failed),
    }
}
