//! The cache of what is slow to make, in the user's cache folder.
//!
//! Each entry is a folder named by what it is made from. It is made beside its place and renamed
//! into it, so that several processes may make the same entry at once. What was not used for
//! longest goes when there are too many.

use std::fs::{self, File};
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::SystemTime;

use crate::LabError;

/// Entries kept of each kind.
const KEPT: usize = 4;

/// Numbers drafts, so that threads of one process do not share one.
static DRAFTS: AtomicU64 = AtomicU64::new(0);

/// The cache folder.
#[derive(Clone, Debug)]
pub struct Cache {
    root: PathBuf,
}

/// A name for an entry by what it is made from: FNV-1a, nothing more.
#[must_use]
pub fn key(texts: &[&str]) -> String {
    let bytes = texts.iter().flat_map(|t| t.bytes());
    let hash = bytes.fold(0x811c_9dc5, |hash: u32, byte| (hash ^ u32::from(byte)).wrapping_mul(0x0100_0193));
    format!("{hash:08x}")
}

impl Cache {
    /// `$XDG_CACHE_HOME/pinion`, or `~/.cache/pinion`.
    #[must_use]
    pub fn of_user() -> Self {
        let home = || std::env::var_os("HOME").map(|h| Path::new(&h).join(".cache"));
        let base =
            std::env::var_os("XDG_CACHE_HOME").filter(|v| !v.is_empty()).map(PathBuf::from).or_else(home);
        Self { root: base.unwrap_or_else(std::env::temp_dir).join("pinion") }
    }

    /// The folder of an entry, made by `make` if it is not there.
    ///
    /// # Errors
    /// What `make` says, or when the cache cannot be written.
    pub fn entry(
        &self,
        kind: &str,
        key: &str,
        make: impl FnOnce(&Path) -> Result<(), LabError>,
    ) -> Result<PathBuf, LabError> {
        if let Some(place) = self.held(kind, key) {
            return Ok(place);
        }
        let place = self.root.join(kind).join(key);
        let number = DRAFTS.fetch_add(1, Ordering::Relaxed);
        let draft = self.root.join(kind).join(format!(".{key}.{}.{number}", std::process::id()));
        let _ = fs::remove_dir_all(&draft);
        fs::create_dir_all(&draft).map_err(LabError::file("make the folder", &draft))?;
        let made = make(&draft);
        if let Err(e) = made {
            let _ = fs::remove_dir_all(&draft);
            return Err(e);
        }
        if let Err(e) = fs::rename(&draft, &place) {
            let _ = fs::remove_dir_all(&draft);
            if !place.is_dir() {
                return Err(LabError::file("make the folder", &place)(e));
            }
        }
        self.trim(kind);
        Ok(place)
    }

    /// The folder of an entry that is there, which counts as used now.
    pub(crate) fn held(&self, kind: &str, key: &str) -> Option<PathBuf> {
        let place = self.root.join(kind).join(key);
        if !place.is_dir() {
            return None;
        }
        let _ = File::open(&place).and_then(|f| f.set_modified(SystemTime::now()));
        Some(place)
    }

    /// Whether an entry is there.
    #[must_use]
    pub fn has(&self, kind: &str, key: &str) -> bool {
        self.root.join(kind).join(key).is_dir()
    }

    /// Names of the entries of a kind, newest first.
    #[must_use]
    pub fn entries(&self, kind: &str) -> Vec<PathBuf> {
        let mut found: Vec<_> = fs::read_dir(self.root.join(kind))
            .into_iter()
            .flatten()
            .filter_map(|e| {
                let e = e.ok()?;
                let hidden = e.file_name().to_string_lossy().starts_with('.');
                let used = e.metadata().and_then(|m| m.modified()).ok()?;
                (!hidden).then(|| (used, e.path()))
            })
            .collect();
        found.sort();
        found.into_iter().rev().map(|(_, path)| path).collect()
    }

    /// The folder itself.
    #[must_use]
    pub fn root(&self) -> &Path {
        &self.root
    }

    fn trim(&self, kind: &str) {
        for old in self.entries(kind).into_iter().skip(KEPT) {
            let _ = fs::remove_dir_all(old);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_was_not_used_for_longest_goes() {
        let folder = tempfile::tempdir().unwrap();
        let cache = Cache { root: folder.path().to_owned() };
        let make = |key: &str| {
            cache
                .entry("kind", key, |place| {
                    fs::write(place.join("file"), key).map_err(LabError::file("write", place))
                })
                .unwrap();
            std::thread::sleep(std::time::Duration::from_millis(20));
        };
        ["a", "b", "c", "d"].into_iter().for_each(make);
        assert!(cache.held("kind", "a").is_some());
        std::thread::sleep(std::time::Duration::from_millis(20));
        make("e");
        let left: Vec<bool> = ["a", "b", "c", "d", "e"].iter().map(|key| cache.has("kind", key)).collect();
        assert_eq!(left, [true, false, true, true, true]);
        assert!(cache.held("kind", "b").is_none() && cache.held("other", "a").is_none());
    }
}
