//! `pinion import`: a VM spec for an existing domain of libvirt.
//!
//! The work is done by the program of the libvirt backend, which this one becomes: it never links libvirt itself.

use std::io;
use std::os::unix::process::CommandExt;
use std::path::PathBuf;
use std::process::Command;

use pinion_launcher::BackendKind;

use crate::arguments::{ImportOptions, SpecFormat};
use crate::backend;
use crate::failure::Failure;

/// What this program is called in messages of the one that it becomes.
const NAME: &str = "pinion";

/// Why there is nobody to import a domain.
#[derive(Debug, thiserror::Error)]
enum ImportError {
    #[error(
        "Domains of libvirt are read by a program of its own, and {0:?} is not there: install it beside pinion \
         (cargo build --release -p pinion-libvirt; docs/libvirt.md)"
    )]
    NotInstalled(PathBuf),
    #[error("Cannot start {0:?}, which reads domains of libvirt")]
    Start(PathBuf, #[source] io::Error),
}

/// Runs the command.
///
/// # Errors
/// [`Failure::Failed`] where the program is not installed; else this does not return.
pub(crate) fn run(options: &ImportOptions) -> Result<(), Failure> {
    let program = backend::program(BackendKind::Libvirt);
    let mut command = Command::new(&program);
    command.arg0(NAME).arg("import").args(["--namespace", &options.namespace]);
    command.args(["--output", format(options.output)]);
    if let Some(uri) = &options.connect {
        command.args(["--connect", uri]);
    }
    if let Some(file) = &options.file {
        command.arg("--file").arg(file);
    }
    if let Some(domain) = &options.domain {
        command.args(["--", domain]);
    }
    let error = command.exec();
    Err(Failure::failed(match error.kind() {
        io::ErrorKind::NotFound => ImportError::NotInstalled(program),
        _ => ImportError::Start(program, error),
    }))
}

fn format(format: SpecFormat) -> &'static str {
    match format {
        SpecFormat::Yaml => "yaml",
        SpecFormat::Json => "json",
    }
}
