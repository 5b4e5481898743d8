//! A tree of sysfs and procfs files under some root, read with bounds.
//!
//! The host's own root and a gathered copy are read by the same code. What is not
//! there, cannot be opened for lack of permission, or vanishes meanwhile is `None`.

use std::collections::BTreeSet;
use std::fs::{self, File};
use std::io::{self, ErrorKind, Read};
use std::path::{Path, PathBuf};
use std::str::FromStr;

/// No file that discovery reads is longer: `/proc/cpuinfo` of 8192 CPUs is 12 MiB.
const MAX_FILE: u64 = 32 << 20;
/// No folder that discovery lists has more entries.
const MAX_ENTRIES: usize = 262_144;

/// Why a tree could not be read.
#[derive(Debug, thiserror::Error)]
pub enum TreeError {
    /// There is no such tree.
    #[error("{} has no sys/devices/system/cpu: give the folder that contains sys and proc", .0.display())]
    NotATree(PathBuf),
    /// A file that is there could not be read.
    #[error("Could not read {}", path.display())]
    Read {
        /// The file.
        path: PathBuf,
        /// The cause.
        source: io::Error,
    },
    /// A file is longer, or a folder has more entries, than any kernel writes.
    #[error("{} is larger than any kernel writes it", .0.display())]
    TooLarge(PathBuf),
    /// A file says something that it cannot.
    #[error("{} says {text:?}, which is not {expected}", path.display())]
    Malformed {
        /// The file.
        path: PathBuf,
        /// What it says, shortened.
        text: String,
        /// What it should be.
        expected: &'static str,
    },
    /// No CPU is online.
    #[error("{} names no online CPU", .0.display())]
    NoCpus(PathBuf),
}

/// A root folder that contains `sys` and `proc`.
#[derive(Clone, Debug)]
pub(crate) struct Tree {
    root: PathBuf,
}

impl Tree {
    /// This host's.
    pub(crate) fn host() -> Self {
        Self { root: "/".into() }
    }

    /// A gathered one.
    ///
    /// # Errors
    /// [`TreeError::NotATree`].
    pub(crate) fn gathered(root: &Path) -> Result<Self, TreeError> {
        let tree = Self { root: root.to_owned() };
        if tree.is_dir("sys/devices/system/cpu") {
            Ok(tree)
        } else {
            Err(TreeError::NotATree(root.to_owned()))
        }
    }

    /// The full path of a file of the tree.
    pub(crate) fn path(&self, path: &str) -> PathBuf {
        self.root.join(path)
    }

    /// Whether there is such a folder.
    pub(crate) fn is_dir(&self, path: &str) -> bool {
        self.path(path).is_dir()
    }

    /// The text of a file, without surrounding white space. What is no UTF-8 is replaced.
    ///
    /// # Errors
    /// When the file is there, may be opened, and yet cannot be read, or is too long.
    pub(crate) fn text(&self, path: &str) -> Result<Option<String>, TreeError> {
        let full = self.path(path);
        // Only plain files: opening a pipe of a hostile tree would wait for ever.
        if !fs::metadata(&full).is_ok_and(|m| m.is_file()) {
            return Ok(None);
        }
        let mut bytes = Vec::new();
        let read = File::open(&full).and_then(|f| f.take(MAX_FILE + 1).read_to_end(&mut bytes));
        match read {
            Ok(length) if length as u64 > MAX_FILE => Err(TreeError::TooLarge(full)),
            Ok(_) => Ok(Some(String::from_utf8_lossy(&bytes).trim().to_owned())),
            Err(error) if absent(&error) => Ok(None),
            Err(source) => Err(TreeError::Read { path: full, source }),
        }
    }

    /// As [`Tree::text`], for facts that are only told to people: `None` on any problem.
    pub(crate) fn label(&self, path: &str) -> Option<String> {
        let text = self.text(path).ok()??;
        let label: String = text.chars().filter(|c| !c.is_control()).take(128).collect();
        (!label.is_empty()).then_some(label)
    }

    /// A file parsed; an empty one is `None`.
    ///
    /// # Errors
    /// As [`Tree::text`], and when it is not what is `expected`.
    pub(crate) fn parse<T: FromStr>(
        &self,
        path: &str,
        expected: &'static str,
    ) -> Result<Option<T>, TreeError> {
        match self.text(path)? {
            Some(text) if !text.is_empty() => {
                text.parse().map(Some).map_err(|_| self.malformed(path, &text, expected))
            }
            _ => Ok(None),
        }
    }

    /// A hexadecimal file with `0x` before it.
    ///
    /// # Errors
    /// As [`Tree::parse`].
    pub(crate) fn hex(&self, path: &str) -> Result<Option<u32>, TreeError> {
        let Some(text) = self.text(path)? else { return Ok(None) };
        u32::from_str_radix(text.trim_start_matches("0x"), 16)
            .map(Some)
            .map_err(|_| self.malformed(path, &text, "a hexadecimal number"))
    }

    /// The last part of what a link points to.
    pub(crate) fn link_name(&self, path: &str) -> Option<String> {
        let target = fs::read_link(self.path(path)).ok()?;
        Some(target.file_name()?.to_string_lossy().into_owned())
    }

    /// The first bytes of a file, at most `limit`; `None` on any problem.
    pub(crate) fn bytes(&self, path: &str, limit: u64) -> Option<Vec<u8>> {
        let full = self.path(path);
        if !fs::metadata(&full).is_ok_and(|m| m.is_file()) {
            return None;
        }
        let mut bytes = Vec::new();
        File::open(&full).ok()?.take(limit).read_to_end(&mut bytes).ok()?;
        Some(bytes)
    }

    /// The parts of what a link points to, as the link says it; none where it is no link.
    pub(crate) fn link_parts(&self, path: &str) -> Vec<String> {
        let target = fs::read_link(self.path(path)).unwrap_or_default();
        target.iter().map(|part| part.to_string_lossy().into_owned()).collect()
    }

    /// Whether there is such a plain file.
    pub(crate) fn is_file(&self, path: &str) -> bool {
        self.path(path).is_file()
    }

    /// Names in a folder, sorted; none where it is not there. Names that are no UTF-8 are left out.
    ///
    /// # Errors
    /// When the folder cannot be read or is too large.
    pub(crate) fn list(&self, path: &str) -> Result<BTreeSet<String>, TreeError> {
        let full = self.path(path);
        let entries = match fs::read_dir(&full) {
            Ok(entries) => entries,
            Err(error) if absent(&error) || error.kind() == ErrorKind::NotADirectory => {
                return Ok(BTreeSet::new());
            }
            Err(source) => return Err(TreeError::Read { path: full, source }),
        };
        let names: BTreeSet<String> = entries
            .take(MAX_ENTRIES + 1)
            .filter_map(|entry| entry.ok()?.file_name().into_string().ok())
            .collect();
        if names.len() > MAX_ENTRIES { Err(TreeError::TooLarge(full)) } else { Ok(names) }
    }

    /// Names in a folder that are `prefix` and a number, as numbers in ascending order.
    ///
    /// # Errors
    /// As [`Tree::list`].
    pub(crate) fn numbered(&self, path: &str, prefix: &str) -> Result<BTreeSet<u32>, TreeError> {
        let names = self.list(path)?;
        Ok(names.iter().filter_map(|name| name.strip_prefix(prefix)?.parse().ok()).collect())
    }

    /// The error for a file that does not say what it should.
    pub(crate) fn malformed(&self, path: &str, text: &str, expected: &'static str) -> TreeError {
        let text = text.chars().take(60).collect();
        TreeError::Malformed { path: self.path(path), text, expected }
    }
}

/// Whether the error means that the fact is not to be had: sysfs answers so for a device
/// that lacks it, has just gone, or tells it to root only.
fn absent(error: &io::Error) -> bool {
    const ENODEV: i32 = 19;
    const ENXIO: i32 = 6;
    const EIO: i32 = 5;
    const EINVAL: i32 = 22;
    const EOPNOTSUPP: i32 = 95;
    matches!(error.kind(), ErrorKind::NotFound | ErrorKind::PermissionDenied)
        || matches!(error.raw_os_error(), Some(ENODEV | ENXIO | EIO | EINVAL | EOPNOTSUPP))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn tree() -> (tempfile::TempDir, Tree) {
        let dir = tempfile::tempdir().unwrap();
        fs::create_dir_all(dir.path().join("sys/devices/system/cpu")).unwrap();
        let tree = Tree::gathered(dir.path()).unwrap();
        (dir, tree)
    }

    #[test]
    fn what_is_not_there_is_no_error() {
        let (_dir, tree) = tree();
        assert_eq!(tree.text("sys/none").unwrap(), None);
        assert_eq!(tree.text("sys/devices").unwrap(), None);
        assert_eq!(tree.list("sys/none").unwrap().len(), 0);
        assert_eq!(tree.link_name("sys/none"), None);
    }

    #[test]
    fn a_folder_without_sys_is_refused_by_name() {
        let dir = tempfile::tempdir().unwrap();
        let error = Tree::gathered(dir.path()).unwrap_err().to_string();
        assert!(error.starts_with(&dir.path().display().to_string()), "{error}");
    }

    #[test]
    fn malformed_and_huge_files_are_named() {
        let (dir, tree) = tree();
        fs::write(dir.path().join("sys/number"), "12x\n").unwrap();
        let error = tree.parse::<u32>("sys/number", "a number").unwrap_err().to_string();
        assert!(error.ends_with("sys/number says \"12x\", which is not a number"), "{error}");
        File::create(dir.path().join("sys/huge")).unwrap().set_len(MAX_FILE + 1).unwrap();
        assert!(matches!(tree.text("sys/huge"), Err(TreeError::TooLarge(_))));
    }

    #[test]
    fn labels_lose_control_characters() {
        let (dir, tree) = tree();
        fs::write(dir.path().join("sys/label"), b"perf\x1b[31m\xffx\n").unwrap();
        assert_eq!(tree.label("sys/label").as_deref(), Some("perf[31m\u{fffd}x"));
    }
}
