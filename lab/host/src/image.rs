//! The initramfs that a lab host boots from: busybox, modules, the agent and the files asked for.
//!
//! Called while a lab boots. The agent is built here if need be.

use std::path::{Path, PathBuf};
use std::process::Command;

use crate::debian::{busybox, output};
use crate::initramfs::Tree;
use crate::{Cache, Files, Kernel, LabError, Shape};

/// Modules of the lab host; init loads most of them.
const MODULES: [&str; 20] = [
    "virtio_pci",
    "virtio_console",
    "kvm-amd",
    "tun",
    "bridge",
    "vfio-pci",
    "vfio_iommu_type1",
    "nvme",
    "vhost_net",
    "overlay",
    "veth",
    "ext4",
    "loop",
    "virtio_blk",
    "virtio_net",
    "9p",
    "vfat",
    "nls_cp437",
    "nls_ascii",
    "nls_iso8859-1",
];

/// Where the files are that come into a root on a disk.
const ROOT_FILES: &str = "/root-files";

/// Cargo's build folder.
pub(crate) fn target() -> PathBuf {
    let workspace = Path::new(env!("CARGO_MANIFEST_DIR")).join("../..");
    workspace.join(std::env::var_os("CARGO_TARGET_DIR").unwrap_or_else(|| "target".into()))
}

/// Writes the initramfs of a lab host; `folder` is for drafts.
pub(crate) fn pack(
    shape: &Shape,
    files: &Files,
    kernel: &Kernel,
    cache: &Cache,
    folder: &Path,
    to: &Path,
) -> Result<(), LabError> {
    let tree = Tree::new(folder.join("root"))?;
    let busybox = busybox(cache)?;
    tree.busybox(&busybox)?;
    tree.file(Path::new("/bin/pinion-lab-agent"), &agent()?)?;
    kernel.install(&MODULES, tree.root(), &busybox)?;
    let pages: String = (0..)
        .zip(&shape.nodes)
        .flat_map(|(id, node)| {
            node.huge_pages.iter().map(move |p| format!("{id} {} {}\n", p.size_kib, p.count))
        })
        .collect();
    tree.script("/etc/huge-pages", &pages)?;
    let below = Path::new(if files.is_on_disk() { ROOT_FILES } else { "/" });
    for (place, file) in files.iter() {
        tree.file(&below.join(place.strip_prefix("/").unwrap_or(place)), file)?;
    }
    tree.script("/init", include_str!("init.sh"))?;
    tree.pack(to)
}

/// The agent's program, linked statically, built if need be.
fn agent() -> Result<PathBuf, LabError> {
    const TRIPLE: &str = "x86_64-unknown-linux-gnu";
    let folder = target().join("lab-agent");
    let cargo = std::env::var_os("CARGO").unwrap_or_else(|| "cargo".into());
    let manifest = Path::new(env!("CARGO_MANIFEST_DIR")).join("../agent/Cargo.toml");
    output(
        Command::new(cargo)
            .args(["build", "--quiet", "--release", "--target", TRIPLE, "--manifest-path"])
            .arg(manifest)
            .env("CARGO_TARGET_DIR", &folder)
            .env("RUSTFLAGS", "-C target-feature=+crt-static")
            .env_remove("CARGO_ENCODED_RUSTFLAGS"),
    )?;
    Ok(folder.join(TRIPLE).join("release/pinion-lab-agent"))
}
