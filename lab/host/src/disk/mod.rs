//! Disk images, made with Debian's own tools: one of a whole guest (GPT, EFI system partition, ext4, GRUB for BIOS and
//! for EFI, systemd, cloud-init, QEMU's guest agent); in `libvirt`, the root of a host with libvirt.
//!
//! Called by tests and benchmarks, and by `cargo xtask setup` so that they need no network. In the cache.

mod libvirt;

use std::fs::{self, File};
use std::io::Write;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::time::Duration;

use crate::cache::key;
use crate::debian::output;
use crate::{Attach, Cache, Files, Lab, LabError, Shape};

pub use libvirt::LibvirtRoot;

/// Packages of the image besides the smallest Debian.
const PACKAGES: &str = "systemd-sysv,udev,dbus,initramfs-tools,zstd,grub2-common,grub-pc-bin,grub-efi-amd64-bin,\
    cloud-init,qemu-guest-agent,iproute2,netbase,ifupdown";
/// Two kernels of different versions: the second is there for whoever upgrades.
const KERNELS: &str = "apt-cache search --names-only '^linux-image-6[.]1[.]0-[0-9]+-cloud-amd64$'";
/// Sectors, of 512 bytes, and bytes.
const ESP_START: u64 = 4096;
const ESP_BYTES: u64 = 32 << 20;
const ROOT_START: u64 = ESP_START + ESP_BYTES / 512;
const DISK_BYTES: u64 = 1536 << 20;
/// Left behind the root file system for the second table.
const TAIL: u64 = 1 << 20;

const TABLE: &str = "label: gpt\n\
    start=2048, size=2048, type=21686148-6449-6E6F-744E-656564454649, name=bios\n\
    start=4096, size=65536, type=C12A7328-F81F-11D2-BA4B-00A0C93EC93B, name=esp\n\
    start=69632, type=4F68BCE3-E8CD-4DB1-96E7-FBCAF984B709, name=root\n";

/// Sets up the system while it is a folder; its argument is that folder.
const CONFIGURE: &str = include_str!("configure.sh");
/// Installs GRUB, in a lab host that has the disk.
const INSTALL: &str = include_str!("install.sh");

/// A Debian disk image.
#[derive(Clone, Debug)]
pub struct DebianDisk {
    folder: PathBuf,
}

impl DebianDisk {
    /// From the cache, else made: about two minutes, and the network.
    ///
    /// # Errors
    /// When it is not in the cache and cannot be made here.
    pub fn of_debian(cache: &Cache) -> Result<Self, LabError> {
        let key = key(&[CONFIGURE, INSTALL, TABLE, PACKAGES]);
        let folder = cache.entry("disk", &key, make)?;
        Ok(Self { folder })
    }

    /// The raw image; it must not be written to.
    #[must_use]
    pub fn image(&self) -> PathBuf {
        self.folder.join("disk.img")
    }

    /// `uname -r` of the kernel that it boots, and of the one that is in `/var/lib/upgrade`.
    ///
    /// # Errors
    /// When the cache is damaged.
    pub fn releases(&self) -> Result<[String; 2], LabError> {
        let path = self.folder.join("releases");
        let text = fs::read_to_string(&path).map_err(LabError::file("read", &path))?;
        let mut words = text.split_whitespace().map(str::to_owned);
        match (words.next(), words.next()) {
            (Some(old), Some(new)) => Ok([old, new]),
            _ => Err(LabError::Package("two kernels".to_owned())),
        }
    }
}

fn make(folder: &Path) -> Result<(), LabError> {
    let image = folder.join("disk.img");
    blank_disk(&image, DISK_BYTES)?;
    let [old, new] = kernels()?;
    piped(Command::new("/sbin/sfdisk").arg("-q").arg(&image), TABLE)?;
    let mut fat = Command::new("/sbin/mkfs.vfat");
    fat.args(["-F", "16", "-n", "ESP", "--offset", &ESP_START.to_string()]).arg(&image);
    output(fat.arg((ESP_BYTES / 1024).to_string()))?;
    let script = folder.join("configure.sh");
    fs::write(&script, CONFIGURE).map_err(LabError::file("write", &script))?;
    let packages = format!("{PACKAGES},linux-image-{old},linux-image-{new}");
    let (offset, blocks) = (ROOT_START * 512, (DISK_BYTES - ROOT_START * 512 - TAIL) / 4096);
    debian_system(&packages, &format!("sh '{}' \"$1\" {new}", script.display()), &image, offset, blocks)?;
    within(&image, "disk", &[INSTALL])?;
    let releases = folder.join("releases");
    fs::write(&releases, format!("{old} {new}\n")).map_err(LabError::file("write", &releases))?;
    fs::remove_file(&script).map_err(LabError::file("remove", &script))
}

/// A disk of so many bytes, none of which takes room until it is written.
///
/// # Errors
/// When the file cannot be made.
pub fn blank_disk(image: &Path, bytes: u64) -> Result<(), LabError> {
    let file = File::create(image).map_err(LabError::file("create", image))?;
    file.set_len(bytes).map_err(LabError::file("size", image))
}

/// Makes a Debian system of packages, sets it up by a command that has its folder as `$1`, and puts it into an image
/// as an ext4 file system of so many blocks of 4 KiB, from an offset in bytes.
///
/// # Errors
/// When Debian's packages cannot be had, or the command fails.
pub fn debian_system(
    packages: &str,
    configure: &str,
    image: &Path,
    offset: u64,
    blocks: u64,
) -> Result<(), LabError> {
    // Without what is mounted there while packages are set up.
    let root = format!(
        "copy=$(mktemp -d) && tar -C \"$1\" --one-file-system --exclude='./dev/*' -cf - . | tar -C $copy -xf - && \
         /sbin/mke2fs -q -F -t ext4 -b 4096 -L root -d $copy -E offset={offset},lazy_itable_init=1 '{}' {blocks} && \
         rm -rf $copy",
        image.display(),
    );
    let mut system = as_root("mmdebstrap")?;
    system.args(["--quiet", "--variant=minbase", "--format=null"]);
    system.arg(format!("--include={packages}"));
    system.args(["--dpkgopt=path-exclude=/usr/share/doc/*", "--dpkgopt=path-exclude=/usr/share/locale/*"]);
    system.arg(format!("--customize-hook={configure}"));
    system.arg(format!("--customize-hook={root}"));
    output(system.args(["bookworm", "-"])).map(drop)
}

/// A command that is run as root, through sudo unless this is root; where neither is, as it is: it may find another way.
fn as_root(program: &str) -> Result<Command, LabError> {
    let is_root = output(Command::new("id").arg("-u"))?.trim() == "0";
    let sudo = || Command::new("sudo").args(["-n", "true"]).output().is_ok_and(|done| done.status.success());
    if is_root || !sudo() {
        return Ok(Command::new(program));
    }
    let mut command = Command::new("sudo");
    command.args(["-n", program]);
    Ok(command)
}

/// The two newest kernels: the older one first.
fn kernels() -> Result<[String; 2], LabError> {
    let listed =
        output(Command::new("sh").args(["-c", &format!("{KERNELS} | cut -d' ' -f1 | sort -V | tail -2")]))?;
    let mut releases = listed.lines().filter_map(|l| l.strip_prefix("linux-image-")).map(str::to_owned);
    match (releases.next(), releases.next()) {
        (Some(old), Some(new)) => Ok([old, new]),
        _ => Err(LabError::Package("linux-image-6.1.0-*-cloud-amd64, in two versions".to_owned())),
    }
}

/// Runs scripts in a lab host that has the image as its disk, and may write to it.
fn within(image: &Path, name: &str, scripts: &[&str]) -> Result<(), LabError> {
    let files = Files::new().with_disk(image, Attach::Writable);
    let lab = Lab::boot(name, &Shape::small(), &files)?;
    for script in scripts {
        let done = lab.sh(script, Duration::from_secs(300))?;
        if !done.success() {
            let reason = format!("{}{}", done.text(), done.error_text());
            return Err(LabError::Tool { command: format!("a script on {}", image.display()), reason });
        }
    }
    lab.power_off(Duration::from_secs(30))
}

fn piped(command: &mut Command, input: &str) -> Result<(), LabError> {
    let shown = format!("{command:?}");
    let failed = |reason: String| LabError::Tool { command: shown.clone(), reason };
    let mut child = command
        .stdin(Stdio::piped())
        .stdout(Stdio::null())
        .stderr(Stdio::piped())
        .spawn()
        .map_err(|e| failed(e.to_string()))?;
    if let Some(mut stdin) = child.stdin.take() {
        stdin.write_all(input.as_bytes()).map_err(|e| failed(e.to_string()))?;
    }
    let done = child.wait_with_output().map_err(|e| failed(e.to_string()))?;
    if done.status.success() {
        Ok(())
    } else {
        Err(failed(String::from_utf8_lossy(&done.stderr).into_owned()))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_partitions_are_where_the_table_says() {
        assert!(TABLE.contains(&format!("start={ESP_START}, size={}", ESP_BYTES / 512)));
        assert!(TABLE.contains(&format!("start={ROOT_START}, type")));
    }
}
