//! Reading VM specs: from a file or standard input, to instances that passed every check.
//!
//! Changes nothing. What is wrong with a file is reported whole.

use std::fs::File;
use std::io::{self, Read};
use std::path::{Path, PathBuf};

use pinion_api::{Document, VirtualMachineInstance};

use crate::failure::Failure;

/// One byte more than the largest spec that is read: what is longer is refused by the
/// parser, without having been read whole.
const LONGEST: u64 = pinion_api::MAX_BYTES as u64 + 1;

#[derive(Debug, thiserror::Error)]
enum ReadError {
    #[error("Cannot read {0:?}: give a VM spec in YAML or JSON, or - for standard input")]
    File(PathBuf, #[source] io::Error),
    #[error("{file:?} has two VMs named {name}: give each its own name")]
    SameName { file: PathBuf, name: String },
}

/// The instances of a file, in its order; a `VirtualMachine` gives that of its template.
///
/// # Errors
/// [`Failure::Invalid`] or [`Failure::Problems`].
pub(crate) fn read(file: &Path) -> Result<Vec<VirtualMachineInstance>, Failure> {
    let bytes = bytes(file).map_err(|e| Failure::invalid(ReadError::File(file.to_owned(), e)))?;
    let named = |problems| Failure::Problems { file: display_name(file), problems };
    let documents = pinion_api::parse(&bytes).map_err(named)?;
    let instances: Vec<_> = documents.into_iter().map(Document::into_instance).collect();
    let mut names: Vec<_> = instances.iter().map(VirtualMachineInstance::full_name).collect();
    names.sort();
    let twice = names.windows(2).find(|w| w.first() == w.last()).and_then(|w| w.first());
    if let Some(name) = twice {
        return Err(Failure::invalid(ReadError::SameName { file: file.to_owned(), name: name.clone() }));
    }
    Ok(instances)
}

fn display_name(file: &Path) -> String {
    if file == Path::new("-") { "standard input".to_owned() } else { file.display().to_string() }
}

fn bytes(file: &Path) -> io::Result<Vec<u8>> {
    let mut bytes = Vec::new();
    if file == Path::new("-") {
        io::stdin().lock().take(LONGEST).read_to_end(&mut bytes)?;
    } else {
        File::open(file)?.take(LONGEST).read_to_end(&mut bytes)?;
    }
    Ok(bytes)
}
