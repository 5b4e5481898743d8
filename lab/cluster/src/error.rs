//! Why there is no cluster.

use std::io;
use std::path::PathBuf;

use pinion_lab::LabError;

/// Why there is no cluster.
#[derive(Debug, thiserror::Error)]
pub enum ClusterError {
    /// A node, or what it is made of; a file.
    #[error(transparent)]
    Lab(#[from] LabError),
    /// A program cannot be started.
    #[error("Cannot run {program:?}")]
    Program {
        /// The program.
        program: PathBuf,
        /// From the operating system.
        source: io::Error,
    },
    /// A folder of ready programs that lacks one.
    #[error("{folder:?} has no program `{name}`; it needs all of {all}")]
    Missing {
        /// The folder, as the user gave it.
        folder: PathBuf,
        /// What is missing.
        name: &'static str,
        /// All names.
        all: String,
    },
    /// Certificates.
    #[error("Cannot make a certificate for {subject}")]
    Certificate {
        /// For whom.
        subject: String,
        /// From the library.
        source: rcgen::Error,
    },
    /// A part did not come up.
    #[error("{what} is not ready after {seconds} s; {hint}")]
    NotReady {
        /// The part.
        what: String,
        /// Seconds waited.
        seconds: u64,
        /// What it said last, or where it wrote.
        hint: String,
    },
    /// A script on a node failed.
    #[error("{node} cannot {action}: {said}")]
    Node {
        /// The node.
        node: String,
        /// What was attempted.
        action: &'static str,
        /// What it printed.
        said: String,
    },
    /// `kubectl` failed.
    #[error("`kubectl {words}` failed: {said}")]
    Kubectl {
        /// Its arguments.
        words: String,
        /// What it printed.
        said: String,
    },
}
