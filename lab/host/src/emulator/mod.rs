//! The QEMU that lab hosts run in: Debian's sources with the patches of this folder, else Debian's own program.
//!
//! Called by labs, which take the best that is there, and by `cargo xtask test`, which has it built. In the cache.

use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::sync::OnceLock;

use crate::cache::key;
use crate::debian::output;
use crate::{Cache, LabError};

const PROGRAM: &str = "qemu-system-x86_64";
const BUILD: &str = include_str!("build.sh");
/// In the order they are applied.
const PATCHES: [(&str, &str); 6] = [
    ("0001-interrupts-under-the-lock.patch", include_str!("0001-interrupts-under-the-lock.patch")),
    ("0002-jump-caches.patch", include_str!("0002-jump-caches.patch")),
    ("0003-pages-filled-anew.patch", include_str!("0003-pages-filled-anew.patch")),
    ("0004-injected-once.patch", include_str!("0004-injected-once.patch")),
    ("0005-translations-of-nested-guests.patch", include_str!("0005-translations-of-nested-guests.patch")),
    ("0006-memory-maps.patch", include_str!("0006-memory-maps.patch")),
];
/// What the patches are for.
const VERSION: &str = "1:7.2+";
/// Where Debian keeps firmware: its own program looks there unasked.
const DATA: [&str; 3] = ["/usr/share/qemu", "/usr/share/seabios", "/usr/lib/ipxe/qemu"];

/// A QEMU for lab hosts.
#[derive(Clone, Debug)]
pub struct Emulator {
    program: PathBuf,
}

impl Emulator {
    /// Debian packages that building it needs, each with the file that shows that it is there.
    pub const PACKAGES: [(&str, &str); 8] = [
        ("dpkg-dev", "/usr/bin/dpkg-source"),
        ("libglib2.0-dev", "/usr/include/glib-2.0/glib.h"),
        ("libpixman-1-dev", "/usr/include/pixman-1/pixman.h"),
        ("libfdt-dev", "/usr/include/libfdt.h"),
        ("libslirp-dev", "/usr/include/slirp/libslirp.h"),
        ("meson", "/usr/bin/meson"),
        ("ninja-build", "/usr/bin/ninja"),
        ("patch", "/usr/bin/patch"),
    ];

    /// From the cache, else built: three to seven minutes of two CPUs, and the network.
    ///
    /// # Errors
    /// When it is not in the cache and cannot be built here, or this machine's QEMU is of another version.
    pub fn patched(cache: &Cache) -> Result<Self, LabError> {
        let version = version()?;
        if !version.starts_with(VERSION) {
            let reason = format!("it is {version}, and the patches are for 7.2");
            return Err(LabError::Tool { command: PROGRAM.to_owned(), reason });
        }
        let folder = cache.entry("emulator", &name(&version), |folder| build(folder, &version))?;
        Ok(Self { program: folder.join(PROGRAM) })
    }

    /// Whether the cache has it.
    #[must_use]
    pub fn is_cached(cache: &Cache) -> bool {
        version().is_ok_and(|version| cache.has("emulator", &name(&version)))
    }

    /// The patched one if the cache has it, else this machine's.
    pub(crate) fn best(cache: &Cache) -> Self {
        static NAME: OnceLock<Option<String>> = OnceLock::new();
        let name = NAME.get_or_init(|| version().ok().map(|version| name(&version)));
        let held = name.as_ref().and_then(|name| cache.held("emulator", name));
        Self { program: held.map_or_else(|| PROGRAM.into(), |folder| folder.join(PROGRAM)) }
    }

    /// The program and its first arguments.
    pub(crate) fn words(&self) -> Vec<String> {
        let mut words = vec![self.program.display().to_string()];
        if self.program.is_absolute() {
            words.extend(DATA.iter().flat_map(|folder| ["-L".to_owned(), (*folder).to_owned()]));
        }
        words
    }
}

/// The version of the sources of this machine's QEMU.
fn version() -> Result<String, LabError> {
    let mut ask = Command::new("dpkg-query");
    output(ask.args(["--show", "--showformat", "${source:Version}", "qemu-system-x86"]))
}

fn name(version: &str) -> String {
    let mut parts = vec![version, BUILD];
    parts.extend(PATCHES.iter().map(|(_, patch)| *patch));
    key(&parts)
}

fn build(folder: &Path, version: &str) -> Result<(), LabError> {
    for (name, patch) in PATCHES {
        let path = folder.join(name);
        fs::write(&path, patch).map_err(LabError::file("write", &path))?;
    }
    output(Command::new("sh").args(["-c", BUILD, "build", version]).current_dir(folder)).map(drop)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_it_is_made_from_names_it() {
        assert_eq!(name("1:7.2"), name("1:7.2"));
        assert_ne!(name("1:7.2"), name("1:7.3"));
    }

    #[test]
    fn debians_own_finds_its_firmware_itself() {
        assert_eq!(Emulator { program: PROGRAM.into() }.words(), [PROGRAM]);
        let words = Emulator { program: "/cache/qemu".into() }.words();
        assert_eq!(
            words.get(..3),
            Some(["/cache/qemu", "-L", "/usr/share/qemu"].map(str::to_owned).as_slice())
        );
    }
}
