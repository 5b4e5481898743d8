//! Why a lab could not be had, or a command not be run.

use std::io;
use std::path::PathBuf;

/// Why a lab could not be had, or a command not be run.
#[derive(Debug, thiserror::Error)]
pub enum LabError {
    /// A program of the host is missing or failed.
    #[error("Cannot run `{command}`: {reason}; `cargo xtask setup` installs what the lab needs")]
    Tool {
        /// The command.
        command: String,
        /// What it said.
        reason: String,
    },
    /// A file of ours.
    #[error("Cannot {action} {path:?}")]
    File {
        /// What was attempted, as a verb phrase.
        action: &'static str,
        /// The file.
        path: PathBuf,
        /// From the operating system.
        source: io::Error,
    },
    /// No package.
    #[error(
        "Debian's package {0:?} cannot be had: `cargo xtask setup` fetches it, and needs the network once"
    )]
    Package(String),
    /// The shape makes no machine.
    #[error("The lab's shape is wrong: {0}")]
    Shape(String),
    /// The lab did not come up.
    #[error("The lab did not come up within {seconds} s; its console is {console:?}")]
    NotUp {
        /// Seconds waited.
        seconds: u64,
        /// Where its console went.
        console: PathBuf,
    },
    /// QEMU went away while the lab came up.
    #[error("QEMU ended ({status}) before the lab was up; it said {said:?}, and the console is {console:?}")]
    Ended {
        /// How it ended.
        status: std::process::ExitStatus,
        /// What it printed.
        said: String,
        /// Where the lab's console went.
        console: PathBuf,
    },
    /// The agent does not answer.
    #[error("The lab's agent does not answer; its console is {console:?}")]
    Agent {
        /// Where its console went.
        console: PathBuf,
        /// From the stream.
        source: io::Error,
    },
    /// The agent could not do it.
    #[error("The lab cannot {what}: {reason}")]
    Refused {
        /// What was asked.
        what: String,
        /// Why.
        reason: String,
    },
}

impl LabError {
    /// Of a file, for `map_err`: what was attempted with it, as a verb phrase.
    pub fn file(action: &'static str, path: impl Into<PathBuf>) -> impl FnOnce(io::Error) -> Self {
        let path = path.into();
        move |source| Self::File { action, path, source }
    }
}
