//! What a measurement holds for: it says nothing of another kernel, command line, microcode or profile.

use std::fs;
use std::path::Path;

use serde::{Deserialize, Serialize};

use crate::cpuinfo::CpuInfo;

/// What a measurement holds for.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Fingerprint {
    /// `uname -r`.
    pub kernel: String,
    /// `uname -v`: two builds of a release differ.
    pub build: String,
    /// What the kernel was booted with, but for what names this boot alone.
    pub command_line: String,
    /// The processor.
    pub model: String,
    /// Its microcode.
    pub microcode: String,
    /// Firmware of the board.
    pub firmware: String,
    /// What of the host is dedicated, and which switches may be changed.
    pub profile: String,
}

impl Fingerprint {
    /// Of the host whose files are below a folder.
    #[must_use]
    pub fn of(root: &Path, profile: &str) -> Self {
        let text = |path: &str| fs::read_to_string(root.join(path)).unwrap_or_default().trim().to_owned();
        let cpu = CpuInfo::below(root);
        let words = text("proc/cmdline");
        let lasting = words.split_whitespace().filter(|w| !w.starts_with("BOOT_IMAGE="));
        Self {
            kernel: text("proc/sys/kernel/osrelease"),
            build: text("proc/sys/kernel/version"),
            command_line: lasting.collect::<Vec<_>>().join(" "),
            model: cpu.field("model name").to_owned(),
            microcode: cpu.field("microcode").to_owned(),
            firmware: text("sys/class/dmi/id/bios_version"),
            profile: profile.to_owned(),
        }
    }

    /// What differs, by name.
    #[must_use]
    pub fn differences(&self, other: &Self) -> Vec<&'static str> {
        let pairs = [
            ("kernel", &self.kernel, &other.kernel),
            ("kernel build", &self.build, &other.build),
            ("kernel command line", &self.command_line, &other.command_line),
            ("processor", &self.model, &other.model),
            ("microcode", &self.microcode, &other.microcode),
            ("firmware", &self.firmware, &other.firmware),
            ("profile", &self.profile, &other.profile),
        ];
        pairs.into_iter().filter(|(_, a, b)| a != b).map(|(name, _, _)| name).collect()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn another_microcode_or_command_line_is_another_host() {
        let root = tempfile::tempdir().unwrap();
        let put = |path: &str, text: &str| {
            let path = root.path().join(path);
            fs::create_dir_all(path.parent().unwrap()).unwrap();
            fs::write(path, text).unwrap();
        };
        put("proc/cpuinfo", "processor\t: 0\nmodel name\t: X\nmicrocode\t: 0x1\n");
        put("proc/cmdline", "BOOT_IMAGE=/vmlinuz-1 quiet\n");
        let first = Fingerprint::of(root.path(), "p");
        assert_eq!((first.model.as_str(), first.command_line.as_str()), ("X", "quiet"));
        put("proc/cmdline", "BOOT_IMAGE=/vmlinuz-2 quiet\n");
        assert!(first.differences(&Fingerprint::of(root.path(), "p")).is_empty());
        put("proc/cpuinfo", "model name\t: X\nmicrocode\t: 0x2\n");
        assert_eq!(first.differences(&Fingerprint::of(root.path(), "q")), ["microcode", "profile"]);
    }
}
