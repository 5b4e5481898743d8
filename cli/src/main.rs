//! The `pinion` command: what people type.
//!
//! Each command is a module; this file only chooses one, and prints why it failed, once.

#![forbid(unsafe_code)]

mod agent;
mod arguments;
mod backend;
mod completion;
mod device_plugin;
mod devices;
mod doctor;
mod failure;
mod guests;
mod huge_pages;
mod image;
mod import;
mod machine;
mod output;
mod plan;
mod qualify;
mod resources;
mod restore;
mod run;
mod specs;
mod table;
mod topology;
mod wrap;

use std::process::ExitCode;

use clap::Parser;

use arguments::{Arguments, Command};
use pinion_endpoint::guest::GuestRequest;

fn main() -> ExitCode {
    let done = match Arguments::parse().command {
        Command::Topology(options) => topology::run(&options),
        Command::Plan(options) => plan::run(&options),
        Command::Run(options) => run::run(&options),
        Command::Ps(options) => guests::ps(&options),
        Command::Stop(options) => guests::stop(&options),
        Command::Console(options) => guests::console(&options),
        Command::Logs(options) => guests::logs(&options),
        Command::Pause(options) => guests::act(&options, &GuestRequest::Pause, "paused"),
        Command::Unpause(options) => guests::act(&options, &GuestRequest::Unpause, "unpaused"),
        Command::Reset(options) => guests::act(&options, &GuestRequest::Reset, "reset"),
        Command::SoftReboot(options) => guests::act(&options, &GuestRequest::SoftReboot, "asked to reboot"),
        Command::Guest(options) => guests::system(&options),
        Command::Inspect(options) => guests::inspect(&options),
        Command::Audit(options) => guests::audit(&options),
        Command::Qualify(options) => qualify::run(&options),
        Command::Agent(options) => agent::run(&options),
        Command::DevicePlugin(options) => device_plugin::run(options),
        Command::Doctor(options) => doctor::run(&options),
        Command::Devices(options) => devices::run(&options),
        Command::Image(options) => image::run(&options),
        Command::Import(options) => import::run(&options),
        Command::Restore(options) => restore::run(&options),
        Command::Completion(options) => completion::run(&options),
    };
    match done {
        Ok(()) => ExitCode::SUCCESS,
        Err(failure) => failure.report(),
    }
}
