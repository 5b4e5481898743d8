//! Runs inside a lab host: takes requests from the serial port named on its command line, one
//! at a time, and answers each. It ends with its host, or when it is told to power it off.

#![forbid(unsafe_code)]

mod serve;

use std::fs::OpenOptions;
use std::path::Path;
use std::process::ExitCode;

fn main() -> ExitCode {
    let Some(port) = std::env::args().nth(1) else {
        eprintln!("usage: pinion-lab-agent PORT");
        return ExitCode::from(2);
    };
    let opened = OpenOptions::new().read(true).write(true).open(Path::new(&port));
    let served = opened.and_then(|port| serve::serve(port.try_clone()?, port));
    match served {
        Ok(serve::End::PowerOff) => ExitCode::SUCCESS,
        Err(e) => {
            eprintln!("pinion-lab-agent: {port}: {e}");
            ExitCode::FAILURE
        }
    }
}
