//! How a command fails: its exit code, and its message printed once with the whole chain.
//!
//! Every command returns [`Failure`]; only `main` prints it.

use std::error::Error;
use std::fmt::Write as _;
use std::process::ExitCode;

use pinion_api::Problems;
use pinion_launcher::chain;

/// Why a command did not do what was asked.
#[derive(Debug)]
pub(crate) enum Failure {
    /// Something went wrong: exit code 1.
    Failed(Box<dyn Error + Send + Sync>),
    /// The input is wrong: exit code 2, nothing was changed.
    Invalid(Box<dyn Error + Send + Sync>),
    /// The spec is wrong in one or more places: exit code 2, nothing was changed.
    Problems {
        /// The file, as it was named.
        file: String,
        /// What is wrong with it.
        problems: Problems,
    },
    /// Said already, on standard output or by the guest: only the exit code is left.
    Silent(u8),
}

/// The machine has no room.
pub(crate) const REFUSED: u8 = 3;

impl Failure {
    /// Something went wrong.
    pub(crate) fn failed(error: impl Into<Box<dyn Error + Send + Sync>>) -> Self {
        Self::Failed(error.into())
    }

    /// The input is wrong.
    pub(crate) fn invalid(error: impl Into<Box<dyn Error + Send + Sync>>) -> Self {
        Self::Invalid(error.into())
    }

    /// Prints the message, if any, to standard error and gives the exit code.
    pub(crate) fn report(&self) -> ExitCode {
        match self {
            Self::Failed(error) => {
                eprintln!("pinion: {}", chain(error.as_ref()));
                ExitCode::from(1)
            }
            Self::Invalid(error) => {
                eprintln!("pinion: {}", chain(error.as_ref()));
                ExitCode::from(2)
            }
            Self::Problems { file, problems } => {
                eprintln!("{}", describe(file, problems));
                ExitCode::from(2)
            }
            Self::Silent(code) => ExitCode::from(*code),
        }
    }
}

fn describe(file: &str, problems: &Problems) -> String {
    let count = problems.iter().count();
    let mut text = format!("pinion: {file}: {count} problem{}", if count == 1 { "" } else { "s" });
    for problem in problems.iter() {
        let _ = write!(text, "\n  {problem}");
    }
    text
}
