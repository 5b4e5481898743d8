//! `cargo xtask lab`: a virtual host to try things on.
//!
//! Boots a lab host, runs one command or a dialogue in it, and takes it down again.

use std::io::{self, BufRead, IsTerminal, Write};
use std::path::{Path, PathBuf};
use std::process::ExitCode;
use std::time::Duration;

use anyhow::Context;
use clap::{Args, Subcommand};
use pinion_lab::{Files, Lab, Output, Shape, Stream};

#[derive(Debug, Args)]
pub(crate) struct Arguments {
    #[command(subcommand)]
    command: Command,
}

#[derive(Debug, Subcommand)]
enum Command {
    /// Runs a command in a lab host; its exit code is this one's
    Run {
        #[command(flatten)]
        host: Host,
        /// Seconds after which the command is killed
        #[arg(long, default_value_t = 300)]
        timeout: u64,
        /// The command
        #[arg(required = true, last = true)]
        words: Vec<String>,
    },
    /// Reads commands line by line and runs each in the shell of a lab host
    Shell {
        #[command(flatten)]
        host: Host,
    },
    /// Prints a built-in shape as JSON, to be changed and given to --shape
    Shape {
        /// two-socket or small
        #[arg(default_value = "two-socket")]
        name: String,
    },
}

#[derive(Debug, Args)]
struct Host {
    /// two-socket, small, devices, or a JSON or TOML file
    #[arg(long, default_value = "two-socket")]
    shape: String,
    /// A file to have in the lab host, as PLACE=FILE; may be given several times
    #[arg(long = "file", value_name = "PLACE=FILE", value_parser = pair)]
    files: Vec<(PathBuf, PathBuf)>,
    /// A program to have in the lab host with its libraries, as PLACE=FILE; may be given several times
    #[arg(long = "program", value_name = "PLACE=FILE", value_parser = pair)]
    programs: Vec<(PathBuf, PathBuf)>,
}

fn pair(text: &str) -> Result<(PathBuf, PathBuf), String> {
    let (place, file) = text.split_once('=').ok_or("give PLACE=FILE")?;
    if !place.starts_with('/') {
        return Err(format!("{place:?} is no place: it must start with /"));
    }
    Ok((place.into(), file.into()))
}

/// Carries out `cargo xtask lab`.
pub(crate) fn lab(arguments: &Arguments) -> anyhow::Result<ExitCode> {
    match &arguments.command {
        Command::Run { host, timeout, words } => {
            let lab = boot(host)?;
            let words: Vec<&str> = words.iter().map(String::as_str).collect();
            let output = stream(&lab, &words, Duration::from_secs(*timeout))?;
            Ok(code(&output))
        }
        Command::Shell { host } => shell(&boot(host)?),
        Command::Shape { name } => {
            println!("{}", Shape::named(name)?.to_json());
            Ok(ExitCode::SUCCESS)
        }
    }
}

/// Runs a command and shows what it prints while it prints it.
pub(crate) fn stream(lab: &Lab, words: &[&str], limit: Duration) -> anyhow::Result<Output> {
    let mut show = |stream: Stream, bytes: &[u8]| {
        // A reader that went away is no reason to stop the command.
        let _ = match stream {
            Stream::Output => io::stdout().write_all(bytes).and_then(|()| io::stdout().flush()),
            Stream::Errors => io::stderr().write_all(bytes),
        };
    };
    Ok(lab.run_streaming(words, limit, &mut show)?)
}

fn boot(host: &Host) -> anyhow::Result<Lab> {
    let mut files = Files::new();
    for (place, file) in &host.files {
        files = files.with(place, file);
    }
    for (place, program) in &host.programs {
        files = files.with_program(place, program)?;
    }
    let shape = if Path::new(&host.shape).is_file() {
        Shape::from_file(Path::new(&host.shape))?
    } else {
        Shape::named(&host.shape)?
    };
    let lab = Lab::boot("xtask", &shape, &files).context("the lab host did not boot")?;
    eprintln!("lab host with {} CPUs up in {:.1} s", shape.cpus(), lab.boot_time().as_secs_f32());
    Ok(lab)
}

fn shell(lab: &Lab) -> anyhow::Result<ExitCode> {
    let terminal = io::stdin().is_terminal();
    let prompt = || {
        if terminal {
            eprint!("lab# ");
        }
    };
    prompt();
    let mut last = ExitCode::SUCCESS;
    for line in io::stdin().lock().lines() {
        let line = line?;
        if line.trim() == "exit" {
            break;
        }
        last = code(&stream(lab, &["sh", "-c", &line], Duration::from_secs(24 * 3600))?);
        prompt();
    }
    Ok(last)
}

/// As a shell gives it: 128 and the signal, 124 for one that ran past its limit.
fn code(output: &Output) -> ExitCode {
    if output.timed_out {
        eprintln!("killed: it ran past its limit");
        return ExitCode::from(124);
    }
    let code = output.code.or(output.signal.map(|s| 128 + s)).unwrap_or(1);
    ExitCode::from(u8::try_from(code).unwrap_or(1))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn files_are_given_with_their_place() {
        assert_eq!(pair("/a/b=c").unwrap(), ("/a/b".into(), "c".into()));
        assert!(pair("a=b").unwrap_err().contains("must start with /"));
        assert!(pair("/a").is_err());
    }
}
