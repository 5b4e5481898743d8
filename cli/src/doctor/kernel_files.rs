//! The kernel's files below a root: short, bounded reads of text that may be missing or odd.

use std::fs::File;
use std::io::Read;
use std::path::{Path, PathBuf};

use pinion_machine::CpuSet;

/// Nothing the checks read is longer; what is, is cut.
const LONGEST: u64 = 1 << 20;

/// The kernel's files of one host.
#[derive(Clone, Debug)]
pub(crate) struct KernelFiles {
    root: PathBuf,
}

impl KernelFiles {
    /// This host's.
    pub(crate) fn of_host() -> Self {
        Self::below(Path::new("/"))
    }

    /// Those of a tree that holds `proc`, `sys` and `dev`.
    pub(crate) fn below(root: &Path) -> Self {
        Self { root: root.to_owned() }
    }

    /// Where a file of the host is.
    pub(crate) fn path(&self, relative: &str) -> PathBuf {
        self.root.join(relative)
    }

    /// Its text without surrounding white space; `None` where it cannot be read.
    pub(crate) fn text(&self, relative: &str) -> Option<String> {
        let mut bytes = Vec::new();
        File::open(self.path(relative)).ok()?.take(LONGEST).read_to_end(&mut bytes).ok()?;
        Some(String::from_utf8_lossy(&bytes).trim().to_owned())
    }

    /// Its text as a number.
    pub(crate) fn number(&self, relative: &str) -> Option<i64> {
        self.text(relative)?.parse().ok()
    }

    /// Its text as a CPU list; empty where missing, empty or odd.
    pub(crate) fn cpus(&self, relative: &str) -> CpuSet {
        self.text(relative).and_then(|t| t.parse().ok()).unwrap_or_default()
    }

    /// Names in a folder, sorted.
    pub(crate) fn names(&self, relative: &str) -> Vec<String> {
        let mut names: Vec<_> = std::fs::read_dir(self.path(relative))
            .into_iter()
            .flatten()
            .filter_map(|entry| entry.ok()?.file_name().into_string().ok())
            .collect();
        names.sort();
        names
    }

    /// The word in brackets of a choice such as `always madvise [never]`.
    pub(crate) fn choice(&self, relative: &str) -> Option<String> {
        let text = self.text(relative)?;
        let (_, rest) = text.split_once('[')?;
        Some(rest.split_once(']')?.0.to_owned())
    }
}
