//! `pinion completion`: the completion script of a shell.

use clap::CommandFactory;

use crate::arguments::{Arguments, CompletionOptions};
use crate::failure::Failure;
use crate::output;

/// Prints the script.
///
/// # Errors
/// When standard output cannot be written.
pub(crate) fn run(options: &CompletionOptions) -> Result<(), Failure> {
    let mut script = Vec::new();
    clap_complete::generate(options.shell, &mut Arguments::command(), "pinion", &mut script);
    output::text(&String::from_utf8_lossy(&script))
}
