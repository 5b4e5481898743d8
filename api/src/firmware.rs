//! `domain.firmware`: how the guest boots.

use std::path::{Component, Path, PathBuf};

use crate::schema::Status::{Cluster, Libvirt, Part, Planned, Works};

/// No firmware.
const FIRMWARE: &str = "the kernel of the boot disk, or of firmware.kernelBoot, is booted directly";
/// No registry.
const REGISTRY: &str = "on one host images are not pulled from a registry; remove it";
/// No tables.
const SMBIOS: &str = "the guest has no SMBIOS tables";

object! {
    "How the guest boots."
    Firmware {
        uuid "uuid": Option<String>, Libvirt(SMBIOS), "UUID in the SMBIOS tables.";
        serial "serial": Option<String>, Libvirt(SMBIOS), "Serial number in the SMBIOS tables.";
        kernel_boot "kernelBoot": Option<KernelBoot>, Works("Where absent, the kernel of the boot disk is booted, as its boot loader is configured."), "Kernel to boot.";
        bootloader "bootloader": Option<Bootloader>, Libvirt(FIRMWARE), "Firmware that finds the kernel.";
        acpi "acpi": Option<FirmwareAcpi>, Planned("Windows licence tables are not passed on; remove it"), "ACPI tables to add.";
    }

    "Kernel to boot."
    KernelBoot {
        kernel_args "kernelArgs": Option<String>, Works("At most 2047 bytes."), "Kernel command line.";
        container "container": Option<KernelBootContainer>, Works(""), "Where kernel and initrd are.";
    }

    "Where kernel and initrd are."
    KernelBootContainer {
        image "image": String, Works("On one host `file:///DIR`, a directory of it; in a cluster an image that its nodes pull."), "Image that holds them.";
        kernel_path "kernelPath": Option<String>, Works("Required. Never leaves the image's directory."), "Kernel inside the image: bzImage, or vmlinux with a PVH note.";
        initrd_path "initrdPath": Option<String>, Works("Never leaves the image's directory."), "Initrd inside the image.";
        image_pull_policy "imagePullPolicy": Option<String>, Cluster(REGISTRY), "When the image is pulled.";
        image_pull_secret "imagePullSecret": Option<String>, Cluster(REGISTRY), "Credentials of the registry.";
    }

    "Firmware that finds the kernel."
    Bootloader {
        bios "bios": Option<Bios>, Part, "BIOS.";
        efi "efi": Option<Efi>, Part, "UEFI.";
    }

    "BIOS."
    Bios {
        use_serial "useSerial": Option<bool>, Part, "Whether it writes to the serial console.";
    }

    "UEFI."
    Efi {
        secure_boot "secureBoot": Option<bool>, Part, "Whether it boots signed kernels only; yes where absent.";
        persistent "persistent": Option<bool>, Planned("the guest's EFI variables go with it; remove it"), "Whether its variables outlive the guest.";
    }

    "ACPI tables to add."
    FirmwareAcpi {
        slic_name_ref "slicNameRef": Option<String>, Part, "Secret with the SLIC table.";
        msdm_name_ref "msdmNameRef": Option<String>, Part, "Secret with the MSDM table.";
    }
}

/// A file inside a directory of this host, that must not lead out of it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct HostFile {
    /// The directory: absolute.
    pub root: PathBuf,
    /// The file, relative to it, without `..`. Symbolic links are the opener's to hold inside.
    pub inside: PathBuf,
}

impl KernelBootContainer {
    /// The directory of this host that the image names: of `file:///dir` or `file:/dir`, `/dir`.
    #[must_use]
    pub fn directory(&self) -> Option<PathBuf> {
        let path = self.image.strip_prefix("file:")?;
        let path = Path::new(path.strip_prefix("//").unwrap_or(path));
        (path.is_absolute() && is_straight(path)).then(|| path.to_owned())
    }

    /// The kernel.
    #[must_use]
    pub fn kernel(&self) -> Option<HostFile> {
        self.kernel_in(&self.directory()?)
    }

    /// The initrd, if there is one.
    #[must_use]
    pub fn initrd(&self) -> Option<HostFile> {
        self.initrd_in(&self.directory()?)
    }

    /// The kernel, where the image is in that directory.
    #[must_use]
    pub fn kernel_in(&self, root: &Path) -> Option<HostFile> {
        Some(HostFile { root: root.to_owned(), inside: inside(self.kernel_path.as_deref()?)? })
    }

    /// The initrd, if there is one, where the image is in that directory.
    #[must_use]
    pub fn initrd_in(&self, root: &Path) -> Option<HostFile> {
        Some(HostFile { root: root.to_owned(), inside: inside(self.initrd_path.as_deref()?)? })
    }
}

/// A path inside an image, as a relative one; `None` if it is empty or climbs with `..`.
pub(crate) fn inside(path: &str) -> Option<PathBuf> {
    let mut relative = PathBuf::new();
    for component in Path::new(path).components() {
        match component {
            Component::Normal(name) => relative.push(name),
            Component::RootDir | Component::CurDir => {}
            Component::ParentDir | Component::Prefix(_) => return None,
        }
    }
    (!relative.as_os_str().is_empty() && !path.contains('\0')).then_some(relative)
}

/// Whether a path never climbs with `..` and holds no NUL.
pub(crate) fn is_straight(path: &Path) -> bool {
    !path.components().any(|component| component == Component::ParentDir)
        && !path.as_os_str().as_encoded_bytes().contains(&0)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn container(image: &str, kernel: &str) -> KernelBootContainer {
        KernelBootContainer {
            image: image.into(),
            kernel_path: Some(kernel.into()),
            ..KernelBootContainer::default()
        }
    }

    #[test]
    fn a_kernel_is_looked_up_inside_its_directory() {
        let expected = HostFile { root: "/srv/boot".into(), inside: "boot/vmlinuz".into() };
        for image in ["file:///srv/boot", "file:/srv/boot"] {
            assert_eq!(container(image, "/boot/vmlinuz").kernel().as_ref(), Some(&expected));
            assert_eq!(container(image, "boot/./vmlinuz").kernel().as_ref(), Some(&expected));
        }
    }

    #[test]
    fn a_kernel_never_leaves_its_directory() {
        for (image, kernel) in [
            ("file:///srv/boot", "../etc/shadow"),
            ("file:///srv/boot", "/a/../../etc/shadow"),
            ("file:///srv/boot", "/"),
            ("file:///srv/boot", ""),
            ("file:///srv/../etc", "shadow"),
            ("file://host/dir", "vmlinuz"),
            ("file:dir", "vmlinuz"),
            ("quay.io/some/image", "vmlinuz"),
        ] {
            assert_eq!(container(image, kernel).kernel(), None, "{image} {kernel}");
        }
    }
}
