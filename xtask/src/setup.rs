//! `cargo xtask setup`: Debian packages of what is missing, then the kernel in the cache; for the tests, what single ones need.
//!
//! Asks apt for nothing when nothing is missing, so that it needs neither network nor privileges then.

use std::path::Path;
use std::process::Command;
use std::time::{Duration, Instant};

use anyhow::{Context, bail, ensure};
use pinion_lab::{Cache, DebianDisk, Emulator, Kernel, LibvirtRoot};

use crate::workspace::show;

/// A Debian package, and the file that shows that it is there.
const PACKAGES: [(&str, &str); 25] = [
    ("gcc", "/usr/bin/cc"),
    ("g++", "/usr/bin/c++"),
    ("libc6-dev", "/usr/include/stdlib.h"),
    ("pkg-config", "/usr/bin/pkg-config"),
    ("libhwloc-dev", "/usr/include/hwloc.h"),
    ("libudev-dev", "/usr/include/libudev.h"),
    ("qemu-system-x86", "/usr/bin/qemu-system-x86_64"),
    ("e2fsprogs", "/sbin/mke2fs"),
    ("cpio", "/usr/bin/cpio"),
    ("fdisk", "/sbin/sfdisk"),
    ("dosfstools", "/sbin/mkfs.vfat"),
    ("libvirt-dev", "/usr/include/libvirt/libvirt.h"),
    ("libvirt-clients", "/usr/bin/virt-xml-validate"),
    // What virt-xml-validate calls; its package only recommends it.
    ("libxml2-utils", "/usr/bin/xmllint"),
    ("mmdebstrap", "/usr/bin/mmdebstrap"),
    ("qemu-utils", "/usr/bin/qemu-img"),
    // What the image of QEMU's launcher is made of, besides.
    (
        "libvirt-daemon-driver-qemu",
        "/usr/lib/x86_64-linux-gnu/libvirt/connection-driver/libvirt_driver_qemu.so",
    ),
    ("ovmf", "/usr/share/OVMF/OVMF_CODE_4M.fd"),
    ("ipxe-qemu", "/usr/lib/ipxe/qemu/efi-virtio.rom"),
    ("swtpm", "/usr/bin/swtpm"),
    ("swtpm-tools", "/usr/bin/swtpm_setup"),
    ("gnutls-bin", "/usr/bin/certtool"),
    ("util-linux", "/usr/bin/setpriv"),
    ("git", "/usr/bin/git"),
    ("ca-certificates", "/etc/ssl/certs/ca-certificates.crt"),
];

/// Installs what is missing.
pub(crate) fn setup() -> anyhow::Result<()> {
    let missing = missing(&PACKAGES, |file| Path::new(file).exists());
    let cache = Cache::of_user();
    let listed = || Kernel::is_cached(&cache) || has_package_lists();
    if !missing.is_empty() || !listed() {
        let began = Instant::now();
        println!(
            "installing {}",
            if missing.is_empty() { "package lists".into() } else { missing.join(" ") }
        );
        privileged(&["apt-get", "update", "-qq"])?;
        if !missing.is_empty() {
            install(&missing)?;
        }
        println!("installed in {:.1} s", began.elapsed().as_secs_f32());
    }
    let began = Instant::now();
    let kernel = Kernel::of_debian(&cache)?;
    println!("guest kernel {} ({:.1} s)", kernel.release(), began.elapsed().as_secs_f32());
    Ok(())
}

/// What the tests need besides, and say so where it cannot be had: a faster QEMU for the lab, Prometheus, unpacked into the
/// cache, a browser, and two images that a lab host makes.
pub(crate) fn for_single_tests() {
    let cache = Cache::of_user();
    let cached = !cache.entries("programs").is_empty();
    let browser = || BROWSERS.iter().any(|b| Path::new(b).exists());
    if !(has_package_lists() || cached && browser() && Emulator::is_cached(&cache)) {
        // Without a network, what is made of packages says itself what is missing.
        let _ = privileged(&["apt-get", "update", "-qq"]);
    }
    optional("QEMU for the lab", "the lab runs in Debian's own, which is slower", || {
        if !Emulator::is_cached(&cache) {
            let missing = missing(&Emulator::PACKAGES, |file| Path::new(file).exists());
            if !missing.is_empty() {
                install(&missing)?;
            }
        }
        Ok(Emulator::patched(&cache).map(drop)?)
    });
    optional("Prometheus", "dashboards are not tested", || {
        Ok(pinion_lab::debian_program(&cache, "prometheus", "usr/bin/prometheus").map(drop)?)
    });
    optional("headless Chromium", "the agent's page is not looked at", || {
        if browser() {
            return Ok(());
        }
        install(&["chromium-headless-shell"])
    });
    optional("Debian disk image", "booting from one is not tested", || {
        Ok(DebianDisk::of_debian(&cache).map(drop)?)
    });
    optional("Debian with libvirt", "its backend is not tested", || {
        Ok(LibvirtRoot::of_debian(&cache).map(drop)?)
    });
}

/// What tests in a cluster need. It takes a while to build: not on a machine that took `late` or longer for everything
/// else.
pub(crate) fn for_cluster_tests(late: Option<Duration>) {
    optional("Kubernetes and containerd", "the device plugin is not tested with a kubelet", || {
        if let Some(after) = late.filter(|_| !crate::cluster::is_made()) {
            bail!(
                "this machine took {} min for everything else; `cargo xtask setup --cluster` builds them",
                after.as_secs() / 60
            );
        }
        crate::cluster::made()
    });
}

/// Installs Go, where there is none: an old one, as Debian has, fetches the one it needs.
pub(crate) fn go() -> anyhow::Result<()> {
    if Command::new("go").arg("version").output().is_ok() {
        return Ok(());
    }
    install(&["golang-go"])
}

/// Gets one of them, with its time.
fn optional(what: &str, without: &str, get: impl FnOnce() -> anyhow::Result<()>) {
    println!("{what}…");
    let began = Instant::now();
    match get() {
        Ok(()) => println!("{what}: there ({:.1} s)", began.elapsed().as_secs_f32()),
        Err(e) => println!("no {what}, so that {without}: {e:#}"),
    }
}

/// Where Debian puts Chromium.
const BROWSERS: [&str; 2] = ["/usr/bin/chromium-headless-shell", "/usr/bin/chromium"];

fn missing(packages: &[(&'static str, &'static str)], exists: impl Fn(&str) -> bool) -> Vec<&'static str> {
    packages.iter().filter(|(_, file)| !exists(file)).map(|(package, _)| *package).collect()
}

fn install(packages: &[&str]) -> anyhow::Result<()> {
    let mut words = vec!["apt-get", "install", "-qq", "--yes", "--no-install-recommends"];
    words.extend(packages);
    privileged(&words)
}

/// Whether apt knows any package to download.
fn has_package_lists() -> bool {
    let folder = std::fs::read_dir("/var/lib/apt/lists");
    folder.is_ok_and(|f| f.flatten().any(|e| e.file_name().to_string_lossy().contains("_Packages")))
}

/// Runs a command as root: through sudo, unless this is root.
fn privileged(words: &[&str]) -> anyhow::Result<()> {
    let root = crate::workspace::output(Command::new("id").arg("-u"))?.trim() == "0";
    let mut command = if root { Command::new("env") } else { Command::new("sudo") };
    command.arg("DEBIAN_FRONTEND=noninteractive").args(words);
    let shown = show(&command);
    let status = command.status().with_context(|| format!("cannot run `{shown}`"))?;
    ensure!(status.success(), "`{shown}` failed ({status})");
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_what_is_missing_is_installed() {
        assert_eq!(missing(&PACKAGES, |file| file != "/usr/include/hwloc.h"), ["libhwloc-dev"]);
        assert!(missing(&PACKAGES, |_| true).is_empty());
    }
}
