//! Writes the certificate's file: whoever reads it sees one certificate, whole.

use std::ffi::OsString;
use std::fs::{self, OpenOptions};
use std::io::{self, Write};
use std::os::unix::fs::OpenOptionsExt;
use std::path::{Path, PathBuf};

use nix::fcntl::OFlag;
use serde::Serialize;

use super::document::Certificate;

/// Why a certificate could not be written.
#[derive(Debug, thiserror::Error)]
#[error("Cannot write the certificate {path:?}: free space there, or name another file with --certificate")]
pub struct StoreError {
    /// The file.
    pub path: PathBuf,
    /// From the operating system.
    pub source: io::Error,
}

/// Replaces the file. It is not flushed to disk: it says what was true of a running
/// guest, and there is none after a power cut.
///
/// # Errors
/// [`StoreError`]; the earlier certificate is then still there.
pub fn write(path: &Path, certificate: &Certificate) -> Result<(), StoreError> {
    replace(path, certificate).map_err(|source| StoreError { path: path.to_owned(), source })
}

/// Replaces a document: whoever reads it sees the one before or this one.
///
/// # Errors
/// As the operating system says.
pub(crate) fn replace<T: Serialize>(path: &Path, document: &T) -> io::Result<()> {
    let mut text = serde_json::to_vec_pretty(document).map_err(io::Error::other)?;
    text.push(b'\n');
    let draft = draft_of(path);
    let written = write_draft(&draft, &text).and_then(|()| fs::rename(&draft, path));
    if written.is_err() {
        let _ = fs::remove_file(&draft);
    }
    written
}

fn write_draft(draft: &Path, text: &[u8]) -> io::Result<()> {
    let mut options = OpenOptions::new();
    options.write(true).create(true).truncate(true).mode(0o644);
    options.custom_flags((OFlag::O_NOFOLLOW | OFlag::O_NONBLOCK).bits());
    options.open(draft)?.write_all(text)
}

fn draft_of(path: &Path) -> PathBuf {
    let mut name = OsString::from(".");
    name.push(path.file_name().unwrap_or_default());
    name.push(".tmp");
    path.with_file_name(name)
}
