//! The root of a node: Debian with a container runtime, and Kubernetes' own programs. In the cache.

use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;

use pinion_lab::{Cache, Kernel, LabError, blank_disk, busybox, debian_system, key};
use pinion_oci::Image;

use crate::{ClusterError, ClusterPrograms};

const KIND: &str = "cluster-node";
const PACKAGES: &str =
    "runc,containernetworking-plugins,iproute2,iptables,nftables,kmod,mount,util-linux,procps,tinyproxy-bin";
/// The image of sandboxes and of test pods, which every node has.
const SHELL: &str = "pinion.dev/lab/busybox:1";
const BYTES: u64 = 3 << 30;
/// Sets it up while it is a folder: that folder, the programs, the kernel's modules.
const CONFIGURE: &str = include_str!("configure.sh");
/// Starts everything on a node that runs.
const START: &str = include_str!("start.sh");
const KUBELET: &str = include_str!("kubelet.sh");
const CONTAINERD: &str = include_str!("containerd.toml");

/// A root file system for nodes, on a disk of its own.
#[derive(Clone, Debug)]
pub struct NodeImage {
    folder: PathBuf,
}

impl NodeImage {
    /// From the cache, else made: about a minute, and the network.
    ///
    /// # Errors
    /// When it is not in the cache and cannot be made here.
    pub fn of_user(cache: &Cache, programs: &ClusterPrograms) -> Result<Self, ClusterError> {
        let kernel = Kernel::of_debian(cache)?;
        let source = programs.folder().display().to_string();
        let key = key(&[
            PACKAGES,
            CONFIGURE,
            START,
            KUBELET,
            CONTAINERD,
            kernel.release(),
            &ClusterPrograms::key(),
            &source,
        ]);
        let folder = cache.entry(KIND, &key, |folder| make(folder, programs, &kernel, cache))?;
        Ok(Self { folder })
    }

    /// The raw image; it must not be written to.
    #[must_use]
    pub fn path(&self) -> PathBuf {
        self.folder.join("node.img")
    }
}

fn make(folder: &Path, programs: &ClusterPrograms, kernel: &Kernel, cache: &Cache) -> Result<(), LabError> {
    let image = folder.join("node.img");
    blank_disk(&image, BYTES)?;
    let scripts = [
        ("configure.sh", CONFIGURE),
        ("start-node", START),
        ("start-kubelet", KUBELET),
        ("config.toml", CONTAINERD),
    ];
    for (name, text) in scripts {
        let path = folder.join(name);
        fs::write(&path, text).map_err(LabError::file("write", &path))?;
    }
    shell(&busybox(cache)?, &folder.join("busybox.tar"))?;
    let configure = format!(
        "sh '{0}/configure.sh' \"$1\" '{1}' '{2}' '{0}'",
        folder.display(),
        programs.folder().display(),
        kernel.modules().display(),
    );
    debian_system(PACKAGES, &configure, &image, 0, BYTES / 4096)?;
    for name in scripts.map(|(name, _)| name).into_iter().chain(["busybox.tar"]) {
        let path = folder.join(name);
        fs::remove_file(&path).map_err(LabError::file("remove", &path))?;
    }
    Ok(())
}

/// The image of sandboxes and of test pods: a shell, and nothing else.
fn shell(busybox: &Path, to: &Path) -> Result<(), LabError> {
    let failed = |reason: String| LabError::Tool { command: "busybox --list".to_owned(), reason };
    let list = Command::new(busybox).arg("--list").output().map_err(|e| failed(e.to_string()))?;
    let sleep = ["/bin/sleep", "2147483647"];
    let mut image =
        Image::new(SHELL).with_file("/bin/busybox", busybox).with_folder("/tmp").with_entrypoint(&sleep);
    for name in String::from_utf8_lossy(&list.stdout).lines().filter(|name| *name != "busybox") {
        image = image.with_link(Path::new("/bin").join(name), "busybox");
    }
    image.write(to).map_err(|e| failed(e.to_string()))
}
