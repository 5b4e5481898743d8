//! The ledger's file: its lock, a bounded read, and a write that is whole or absent.
//!
//! Called by [`super::Ledger`] on the caller's thread. It must never leave a
//! half-written ledger, nor empty one that it cannot read.

use std::fs::{self, File, OpenOptions};
use std::io::{self, Read, Write};
use std::os::unix::fs::{DirBuilderExt, OpenOptionsExt};
use std::path::{Path, PathBuf};
use std::thread;
use std::time::{Duration, Instant};

use nix::errno::Errno;
use nix::fcntl::{Flock, FlockArg, OFlag};

use super::LedgerError;
use super::document::LedgerDocument;

/// A ledger is a few hundred bytes a guest; anything larger is not one.
const MAX_BYTES: u64 = 16 << 20;
/// How long to wait for another process to finish its change.
const LOCK_WAIT: Duration = Duration::from_secs(30);
const LOCK_PAUSE: Duration = Duration::from_millis(5);

/// The exclusive right to change the ledger; given back when dropped, or by the
/// kernel when the process dies.
pub(super) struct Lock(#[expect(dead_code, reason = "held for its Drop")] Flock<File>);

/// Takes the lock file beside the ledger, creating the folder where needed.
pub(super) fn lock(ledger: &Path) -> Result<Lock, LedgerError> {
    let refused = |source| LedgerError::Unwritable { path: ledger.to_owned(), source };
    let folder = folder(ledger);
    if !folder.is_dir() {
        fs::DirBuilder::new().recursive(true).mode(0o755).create(folder).map_err(refused)?;
    }
    let mut file = OpenOptions::new()
        .read(true)
        .write(true)
        .create(true)
        .truncate(false)
        .mode(0o600)
        .custom_flags((OFlag::O_NOFOLLOW | OFlag::O_NONBLOCK).bits())
        .open(beside(ledger, "lock"))
        .map_err(refused)?;
    let started = Instant::now();
    loop {
        match Flock::lock(file, FlockArg::LockExclusiveNonblock) {
            Ok(held) => return Ok(Lock(held)),
            Err((back, Errno::EWOULDBLOCK | Errno::EINTR)) if started.elapsed() < LOCK_WAIT => file = back,
            Err((_, Errno::EWOULDBLOCK | Errno::EINTR)) => {
                return Err(LedgerError::Busy { path: beside(ledger, "lock"), waited: LOCK_WAIT });
            }
            Err((_, errno)) => return Err(refused(errno.into())),
        }
        thread::sleep(LOCK_PAUSE);
    }
}

/// Reads and checks the ledger. A missing file is an empty ledger.
pub(super) fn read(path: &Path) -> Result<LedgerDocument, LedgerError> {
    let unreadable = |source| LedgerError::Unreadable { path: path.to_owned(), source };
    let damaged = |source: Box<dyn std::error::Error + Send + Sync>| LedgerError::Damaged {
        path: path.to_owned(),
        source,
    };
    let file = match OpenOptions::new().read(true).custom_flags(OFlag::O_NONBLOCK.bits()).open(path) {
        Ok(file) => file,
        Err(e) if e.kind() == io::ErrorKind::NotFound => return Ok(LedgerDocument::default()),
        Err(e) => return Err(unreadable(e)),
    };
    let metadata = file.metadata().map_err(unreadable)?;
    if !metadata.is_file() {
        return Err(damaged("It is not a regular file".into()));
    }
    let mut text = Vec::new();
    file.take(MAX_BYTES + 1).read_to_end(&mut text).map_err(unreadable)?;
    if text.len() as u64 > MAX_BYTES {
        return Err(damaged(format!("It is larger than {} MiB", MAX_BYTES >> 20).into()));
    }
    let document: LedgerDocument = serde_json::from_slice(&text).map_err(|e| damaged(e.into()))?;
    document.check().map_err(|e| damaged(e.into()))?;
    Ok(document)
}

/// Replaces the ledger: after this returns it is on disk, and whoever reads meanwhile
/// sees the old one or the new one. The caller holds the [`Lock`].
///
/// 1. The new text goes to a second file and is flushed: a full disk stops here.
/// 2. It is renamed over the ledger.
/// 3. The folder is flushed, so that the rename survives a power cut.
pub(super) fn write(path: &Path, document: &LedgerDocument, _lock: &Lock) -> Result<(), LedgerError> {
    let refused = |source| LedgerError::Unwritable { path: path.to_owned(), source };
    let text = serde_json::to_vec_pretty(document).map_err(|e| refused(io::Error::other(e)))?;
    let draft = beside(path, "tmp");
    let written = write_draft(&draft, &text).and_then(|()| fs::rename(&draft, path));
    if let Err(source) = written {
        // Best effort: the next change truncates it anyway.
        let _ = fs::remove_file(&draft);
        return Err(refused(source));
    }
    File::open(folder(path)).and_then(|f| f.sync_all()).map_err(refused)
}

fn write_draft(draft: &Path, text: &[u8]) -> io::Result<()> {
    let mut file = OpenOptions::new()
        .write(true)
        .create(true)
        .truncate(true)
        .mode(0o644)
        .custom_flags((OFlag::O_NOFOLLOW | OFlag::O_NONBLOCK).bits())
        .open(draft)?;
    file.write_all(text)?;
    file.write_all(b"\n")?;
    file.sync_all()
}

fn folder(path: &Path) -> &Path {
    match path.parent() {
        Some(folder) if !folder.as_os_str().is_empty() => folder,
        _ => Path::new("."),
    }
}

/// `FOLDER/.NAME.suffix`, for the ledger `FOLDER/NAME`.
pub(super) fn beside(path: &Path, suffix: &str) -> PathBuf {
    let name = path.file_name().unwrap_or_default().to_string_lossy();
    folder(path).join(format!(".{name}.{suffix}"))
}
