//! `/proc/cpuinfo`: read seldom, since the kernel may interrupt every CPU for it to tell its frequency.

use std::fs;
use std::path::Path;

/// What the kernel says of the first CPU.
#[derive(Debug)]
pub(crate) struct CpuInfo(String);

impl CpuInfo {
    /// Of the host whose files are below a folder.
    pub(crate) fn below(root: &Path) -> Self {
        Self(fs::read_to_string(root.join("proc/cpuinfo")).unwrap_or_default())
    }

    /// A field's value; empty where there is none.
    pub(crate) fn field(&self, name: &str) -> &str {
        let mut fields = self.0.lines().filter_map(|line| line.split_once(':'));
        fields.find(|(key, _)| key.trim() == name).map_or("", |(_, value)| value.trim())
    }
}
