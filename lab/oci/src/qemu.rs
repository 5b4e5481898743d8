//! What an image needs to run guests on QEMU, through libvirt's driver: Debian's programs, with their libraries, firmware and
//! data, from this machine.
//!
//! Called by whoever makes the image of that launcher. There is no daemon, no shell and no package in it.

use std::fs;
use std::path::{Path, PathBuf};

use pinion_lab::libraries;

use crate::{Image, OciError, file_error};

/// Packages of Debian that have all of it.
pub const QEMU_PACKAGES: [&str; 8] = [
    "libvirt-daemon-driver-qemu",
    "qemu-system-x86",
    "qemu-utils",
    "ovmf",
    "ipxe-qemu",
    "swtpm",
    "swtpm-tools",
    "gnutls-bin",
];

/// Programs, and what they load while they run.
const LINKED: [&str; 13] = [
    "/usr/bin/qemu-system-x86_64",
    "/usr/bin/qemu-img",
    "/usr/lib/x86_64-linux-gnu/libvirt/connection-driver/libvirt_driver_qemu.so",
    // A TPM: the emulator, and what makes one.
    "/usr/bin/swtpm",
    "/usr/bin/swtpm_cert",
    "/usr/bin/swtpm_ioctl",
    "/usr/bin/swtpm_localca",
    "/usr/bin/swtpm_setup",
    "/usr/bin/certtool",
    // Without it QEMU does not say what it can do.
    "/usr/lib/x86_64-linux-gnu/qemu/accel-tcg-x86_64.so",
    "/usr/lib/x86_64-linux-gnu/qemu/hw-display-virtio-gpu.so",
    "/usr/lib/x86_64-linux-gnu/qemu/hw-display-virtio-gpu-pci.so",
    "/usr/lib/x86_64-linux-gnu/qemu/hw-display-virtio-vga.so",
];

/// Folders of data, and how the names of what is taken from them begin.
const DATA: [(&str, &[&str]); 7] = [
    ("/usr/share/seabios", &["bios-256k.bin", "bios.bin", "vgabios"]),
    ("/usr/share/qemu", &["kvmvapic.bin", "linuxboot", "multiboot", "pvh.bin"]),
    ("/usr/share/qemu/keymaps", &[""]),
    ("/usr/share/qemu/firmware", &[""]),
    ("/usr/share/OVMF", &["OVMF_CODE_4M", "OVMF_VARS_4M"]),
    ("/usr/lib/ipxe/qemu", &["efi-"]),
    ("/usr/share/libvirt/cpu_map", &[""]),
];

/// Who the launcher is: libraries ask for the name of their user.
const USERS: &str = "root:x:0:0::/:/\nqemu:x:107:107::/run/pinion/guest:/\n";
const GROUPS: &str = "root:x:0:\nqemu:x:107:\n";
/// Where libvirt and what it starts have what they make. Source: the XDG base directory specification.
const FOLDERS: [&str; 4] = ["HOME", "XDG_RUNTIME_DIR", "XDG_CACHE_HOME", "XDG_CONFIG_HOME"];
const FOLDER: &str = "/run/pinion/guest";

impl Image {
    /// Adds all of it.
    ///
    /// # Errors
    /// [`OciError::Missing`], which says how to get it.
    pub fn with_qemu(mut self) -> Result<Self, OciError> {
        for linked in LINKED.map(Path::new) {
            if !linked.exists() {
                return Err(missing(linked));
            }
            for (place, file) in libraries(linked)? {
                self = self.with_file(place, file);
            }
            self = self.with_file(linked, linked);
        }
        for (folder, wanted) in DATA {
            let files = wanted_of(Path::new(folder), wanted)?;
            if files.is_empty() {
                return Err(missing(Path::new(folder)));
            }
            for file in files {
                self = self.with_file(&file, &file);
            }
        }
        self = self.with_text("/etc/passwd", USERS).with_text("/etc/group", GROUPS);
        // What makes a TPM writes there whatever the environment says.
        self = self.with_link("/tmp", FOLDER);
        Ok(FOLDERS.into_iter().fold(self, |image, name| image.with_variable(name, FOLDER)))
    }
}

fn missing(path: &Path) -> OciError {
    OciError::Missing { path: path.to_owned(), packages: QEMU_PACKAGES.join(" ") }
}

/// Files of a folder by how their names begin; links are followed.
fn wanted_of(folder: &Path, wanted: &[&str]) -> Result<Vec<PathBuf>, OciError> {
    let Ok(entries) = fs::read_dir(folder) else { return Err(missing(folder)) };
    let mut files = Vec::new();
    for entry in entries {
        let entry = entry.map_err(file_error("read", folder))?;
        let name = entry.file_name();
        let is_wanted = wanted.iter().any(|prefix| name.to_string_lossy().starts_with(prefix));
        if is_wanted && entry.path().is_file() {
            files.push(entry.path());
        }
    }
    files.sort();
    Ok(files)
}
