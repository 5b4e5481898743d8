//! The libvirt backend: the guest is a transient domain of the host's system daemon, or in a pod of the driver in this process.
//!
//! Called by the session, on its thread. libvirt makes QEMU's threads where the document says, paused; everything is
//! then read back from the kernel, as for any other guest, and only then is it resumed. libvirt's word is never
//! taken for where something is.

use std::collections::BTreeMap;
use std::fs;
use std::os::fd::OwnedFd;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::{Duration, Instant};

use caps::Capability;
use pinion_api::{PodVolumes, VirtualMachineInstance};
use pinion_launcher::backend::{
    ArmedGuest, Backend, BackendError, OpenedGuest, RunningGuest, ThreadGroups, Wiring,
};
use pinion_launcher::certificate::{Range, Repair, Role};
use pinion_launcher::{ConsoleConfig, LaunchSpec, SetThreads, disk_file, libvirt_folder, with_console};
use pinion_machine::CpuSet;
use pinion_planner::Placement;
use roxmltree::Document;
use rustix::process::{Pid, PidfdFlags, pidfd_open};
use virt::connect::Connect;
use virt::domain::Domain;
use virt::sys;
use vmm_host::Tap;

use crate::console::{self, Wires};
use crate::domain::{Assets, domain, name};
use crate::error::LibvirtError;
use crate::hypervisor::Hypervisor;
use crate::repair::{Home, Threads};
use crate::running::{Running, Targets};
use crate::{overlay, process};

/// Folder, in a pod's, of the files of the driver and its guest.
const FOLDER: &str = "libvirt";
/// AMD's CPUID leaf of cores and threads.
const TOPOLOGY_EXTENSIONS: &str = "topoext";
/// Where the kernel's network interfaces are.
const INTERFACES: &str = "/sys/class/net";

/// QEMU, through libvirt.
#[derive(Clone, Copy, Debug, Default)]
pub struct Libvirt;

impl Backend for Libvirt {
    fn open(&self, spec: &LaunchSpec, wiring: Wiring) -> Result<Box<dyn OpenedGuest>, BackendError> {
        let Wiring { console, taps, groups } = wiring;
        let (folder, hypervisor) = match &spec.pod_volumes {
            Some(pod) => {
                let folder = Folder::make(pod.run().join(FOLDER))?;
                let hypervisor = Hypervisor::embedded(&folder.0)?;
                (folder, hypervisor)
            }
            None => {
                check_volumes(&spec.instance)?;
                (Folder::of_host()?, Hypervisor::Daemon)
            }
        };
        let connect = hypervisor.connect()?;
        let assets = Assets { taps: leave(taps)?, ..assets(spec, &folder.0)? };
        assets.disks.values().try_for_each(overlay::make)?;
        let document = domain(&spec.instance, &spec.placement, &assets);
        let (name, placement) = (name(&spec.instance), spec.placement.clone());
        Ok(Box::new(Opened { hypervisor, connect, name, document, placement, console, groups, folder }))
    }

    /// To put QEMU's threads back, and to read where its pages are: it is another user's process.
    fn privileges(&self) -> &'static [Capability] {
        &[Capability::CAP_SYS_NICE, Capability::CAP_SYS_PTRACE, Capability::CAP_DAC_READ_SEARCH]
    }
}

/// Tap devices that were made for the guest, by their interfaces: QEMU opens them by their names.
fn leave(taps: BTreeMap<String, OwnedFd>) -> Result<BTreeMap<String, String>, LibvirtError> {
    let left = |(interface, tap): (String, OwnedFd)| match Tap::leave(tap) {
        Ok(name) => Ok((interface, name)),
        Err(source) => Err(LibvirtError::Tap { interface, source }),
    };
    taps.into_iter().map(left).collect()
}

/// Whether this host's CPUs are AMD's or Hygon's, whose guests see no threads of a core without a feature that QEMU leaves
/// out.
fn is_amd() -> bool {
    let text = fs::read_to_string("/proc/cpuinfo").unwrap_or_default();
    let vendor = text.lines().find_map(|l| l.strip_prefix("vendor_id")).unwrap_or_default();
    ["AuthenticAMD", "HygonGenuine"].iter().any(|amd| vendor.contains(amd))
}

/// A folder that is gone with this.
#[derive(Debug)]
pub(crate) struct Folder(PathBuf);

impl Folder {
    /// Makes this launcher's on one host, and removes those whose launchers are gone: nobody may have seen them go.
    fn of_host() -> Result<Self, LibvirtError> {
        let path = libvirt_folder(std::process::id());
        for other in path.parent().and_then(|all| fs::read_dir(all).ok()).into_iter().flatten().flatten() {
            if !Path::new("/proc").join(other.file_name()).exists() {
                let _ = fs::remove_dir_all(other.path());
            }
        }
        Self::make(path)
    }

    fn make(path: PathBuf) -> Result<Self, LibvirtError> {
        let failed = |source| LibvirtError::File { action: "make the folder", path: path.clone(), source };
        fs::create_dir_all(&path).map_err(failed)?;
        Ok(Self(path))
    }
}

impl Drop for Folder {
    fn drop(&mut self) {
        let _ = fs::remove_dir_all(&self.0);
    }
}

/// QEMU opens images by their paths, as another user: a file that goes with the guest has none.
fn check_volumes(instance: &VirtualMachineInstance) -> Result<(), LibvirtError> {
    for (index, volume) in instance.spec.volumes.iter().enumerate() {
        let instead = match (&volume.empty_disk, &volume.host_disk, volume.cloud_init()) {
            (Some(_), ..) => "use a hostDisk volume of type DiskOrCreate",
            (None, None, None) => "it is for guests in a pod; use a hostDisk volume",
            _ => continue,
        };
        let kind = if volume.empty_disk.is_some() { ".emptyDisk" } else { "" };
        return Err(LibvirtError::Volume { field: format!("spec.volumes[{index}]{kind}"), instead });
    }
    Ok(())
}

/// Makes what the document names and the spec does not have.
fn assets(launch: &LaunchSpec, folder: &Path) -> Result<Assets, LibvirtError> {
    let (instance, pod) = (&launch.instance, launch.pod_volumes.as_ref());
    let spec = &instance.spec;
    let smt = spec.topology().threads > 1 && is_amd();
    let cpu_features = if smt { vec![TOPOLOGY_EXTENSIONS] } else { Vec::new() };
    let mut assets = Assets { sockets: folder.to_owned(), cpu_features, ..Assets::default() };
    for disk in &spec.domain.devices.disks {
        let Some(volume) = spec.volume(&disk.name) else { continue };
        let failed = |source| LibvirtError::Disk { volume: volume.name.clone(), source };
        let file = disk_file(instance, pod, (disk, volume), folder).map_err(failed)?;
        assets.disks.insert(disk.name.clone(), file);
    }
    if let Some(boot) = spec.domain.firmware.as_ref().and_then(|f| f.kernel_boot.as_ref()) {
        let missing = LibvirtError::Missing("spec.domain.firmware.kernelBoot.container");
        let container = boot.container.as_ref().ok_or(missing)?;
        let missing = LibvirtError::Missing("spec.domain.firmware.kernelBoot.container.kernelPath");
        let (kernel, initrd) = match pod.map(PodVolumes::kernel) {
            Some(image) => (container.kernel_in(&image), container.initrd_in(&image)),
            None => (container.kernel(), container.initrd()),
        };
        let kernel = kernel.ok_or(missing)?;
        let inside = |file: pinion_api::HostFile| -> Result<PathBuf, LibvirtError> {
            resolve(&file.root, &file.inside)
        };
        let initrd = initrd.map(inside).transpose()?;
        let arguments = with_console(boot.kernel_args.as_deref().unwrap_or_default());
        assets.kernel = Some((inside(kernel)?, initrd, arguments));
    }
    let networks = spec.domain.devices.interfaces.iter().filter_map(|i| spec.host_network(&i.name));
    let is_bridge = |name: &&str| Path::new(INTERFACES).join(name).join("bridge").is_dir();
    assets.bridges = networks.filter(is_bridge).map(str::to_owned).collect();
    Ok(assets)
}

/// A file below a folder, which no link may lead out of: QEMU opens it by its path.
fn resolve(root: &Path, inside: &Path) -> Result<PathBuf, LibvirtError> {
    let path = root.join(inside);
    let failed = |source| LibvirtError::File { action: "find", path: path.clone(), source };
    let (real, folder) = (path.canonicalize().map_err(failed)?, root.canonicalize().map_err(failed)?);
    if real.starts_with(&folder) {
        return Ok(real);
    }
    Err(failed(std::io::Error::other("a link leads out of the folder that the spec names")))
}

/// A guest with its files made.
struct Opened {
    hypervisor: Hypervisor,
    connect: Connect,
    name: String,
    document: String,
    placement: Placement,
    console: ConsoleConfig,
    groups: Option<Arc<dyn ThreadGroups>>,
    folder: Folder,
}

impl std::fmt::Debug for Opened {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Opened")
            .field("name", &self.name)
            .field("document", &self.document)
            .finish_non_exhaustive()
    }
}

impl OpenedGuest for Opened {
    fn arm(
        self: Box<Self>,
        progress: &mut dyn FnMut(&'static str, Duration),
    ) -> Result<Box<dyn ArmedGuest>, BackendError> {
        let Self { hypervisor, connect, name, document, placement, console, groups, folder } = *self;
        let began = Instant::now();
        // It goes with this connection: nobody is left with a guest whose launcher is gone.
        let goes = if hypervisor.ends_guests() { sys::VIR_DOMAIN_START_AUTODESTROY } else { 0 };
        let flags = sys::VIR_DOMAIN_START_PAUSED | goes;
        let started = Domain::create_xml(&connect, &document, flags);
        let domain = started.map_err(|source| LibvirtError::Start { name: name.clone(), source })?;
        let guest = Guest { hypervisor, domain, connect, name, folder };
        progress("libvirt", began.elapsed());
        let began = Instant::now();
        let file = guest.hypervisor.id_file(&guest.name);
        let unreadable = |source| LibvirtError::File { action: "read", path: file.clone(), source };
        let pid = process::id(&file).map_err(unreadable)?;
        let ended = Pid::from_raw(pid).and_then(|pid| pidfd_open(pid, PidfdFlags::empty()).ok());
        let ended: OwnedFd = ended.ok_or_else(|| LibvirtError::Gone(guest.log()))?;
        let unreadable =
            |source| LibvirtError::File { action: "read", path: format!("/proc/{pid}").into(), source };
        let threads = process::threads(pid).map_err(unreadable)?;
        guest.pin_emulator(pid, &threads, &placement.emulator.cpus)?;
        let memory = process::memory(pid, &placement.cells).map_err(unreadable)?;
        let description = guest.description()?;
        let description = Document::parse(&description)
            .map_err(|source| LibvirtError::Description { name: guest.name.clone(), source })?;
        let wires = console::connect(&description, console)?;
        let targets = Targets::of(&description, &placement.devices);
        progress("threads and memory", began.elapsed());
        let emulator = placement.emulator.cpus;
        Ok(Box::new(Armed { guest, pid, ended, threads, memory, wires, targets, groups, emulator }))
    }
}

/// CPUs as libvirt takes them: a bit for each, the lowest first.
fn bitmap(cpus: &CpuSet) -> Vec<u8> {
    let mut bytes = Vec::new();
    for cpu in cpus.iter().filter_map(|c| usize::try_from(c.0).ok()) {
        bytes.resize(bytes.len().max(cpu / 8 + 1), 0);
        if let Some(byte) = bytes.get_mut(cpu / 8) {
            *byte |= 1 << (cpu % 8);
        }
    }
    bytes
}

/// A domain that is there. Ended when this goes.
pub(crate) struct Guest {
    pub(crate) hypervisor: Hypervisor,
    pub(crate) domain: Domain,
    connect: Connect,
    pub(crate) name: String,
    /// Its sockets and images.
    folder: Folder,
}

impl Guest {
    /// Puts every thread that is neither a vCPU nor an I/O thread where it belongs: libvirt's control group first, which
    /// those to come are born in, then each that is there.
    fn pin_emulator(&self, pid: i32, known: &[(Role, i32)], cpus: &CpuSet) -> Result<(), LibvirtError> {
        let act =
            |source| LibvirtError::Act { action: "pin the emulator of", name: self.name.clone(), source };
        self.domain.pin_emulator(&bitmap(cpus), sys::VIR_DOMAIN_AFFECT_LIVE).map_err(act)?;
        for tid in process::all_threads(pid).into_iter().filter(|tid| known.iter().all(|(_, k)| k != tid)) {
            // One that has ended needs no place; one that cannot be moved is in the certificate.
            let _ = SetThreads.set_cpus(tid, cpus);
        }
        Ok(())
    }

    /// What QEMU and libvirt wrote of it.
    pub(crate) fn log(&self) -> PathBuf {
        self.hypervisor.log(&self.name)
    }

    /// Whether the daemon that started it is still there.
    pub(crate) fn is_connected(&self) -> bool {
        self.connect.is_alive().unwrap_or(false)
    }

    /// The document as it is now.
    fn description(&self) -> Result<String, LibvirtError> {
        let described = self.domain.get_xml_desc(0);
        described.map_err(|source| LibvirtError::Act { action: "describe", name: self.name.clone(), source })
    }
}

impl std::fmt::Debug for Guest {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Guest")
            .field("name", &self.name)
            .field("folder", &self.folder)
            .finish_non_exhaustive()
    }
}

impl Drop for Guest {
    fn drop(&mut self) {
        // One that has ended is gone already.
        let _ = self.domain.destroy();
        let _ = self.connect.close();
    }
}

#[derive(Debug)]
struct Armed {
    guest: Guest,
    pid: i32,
    ended: OwnedFd,
    threads: Vec<(Role, i32)>,
    memory: Vec<(u32, Vec<Range>)>,
    wires: Wires,
    targets: Targets,
    groups: Option<Arc<dyn ThreadGroups>>,
    emulator: CpuSet,
}

impl ArmedGuest for Armed {
    fn process(&self) -> i32 {
        self.pid
    }

    fn threads(&self) -> Vec<(Role, i32)> {
        self.threads.clone()
    }

    /// QEMU's thread pool, which waits for storage.
    fn helpers(&self) -> &'static [&'static str] {
        &["worker"]
    }

    fn memory(&self) -> Vec<(u32, Vec<Range>)> {
        self.memory.clone()
    }

    fn repair(&self) -> Box<dyn Repair> {
        let home = match &self.groups {
            Some(groups) => Home::Kept(Arc::clone(groups)),
            None => Home::Own(process::group(self.pid)),
        };
        Box::new(Threads { home, emulator: self.emulator.clone() })
    }

    fn run(self: Box<Self>) -> Result<Box<dyn RunningGuest>, BackendError> {
        let Self { guest, ended, wires, targets, .. } = *self;
        let resumed = guest.domain.resume();
        resumed.map_err(|source| LibvirtError::Act { action: "resume", name: guest.name.clone(), source })?;
        Ok(Box::new(Running::new(guest, ended, wires, targets)))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_volume_that_qemu_cannot_have_is_named() {
        let told = |volume: serde_json::Value| {
            let instance = serde_json::from_value(serde_json::json!({
                "apiVersion": "kubevirt.io/v1", "kind": "VirtualMachineInstance", "metadata": {"name": "a"},
                "spec": {"domain": {"devices": {}}, "volumes": [
                    {"name": "a", "hostDisk": {"path": "/a", "type": "Disk"}},
                    {"name": "b", "cloudInitConfigDrive": {"userData": "a"}},
                    volume
                ]}
            }));
            check_volumes(&instance.unwrap()).map_err(|e| e.to_string())
        };
        told(serde_json::json!({"name": "c", "hostDisk": {"path": "/c", "type": "Disk"}})).unwrap();
        let empty = told(serde_json::json!({"name": "c", "emptyDisk": {"capacity": "1Gi"}})).unwrap_err();
        assert!(empty.starts_with("spec.volumes[2].emptyDisk: not with libvirt: use a hostDisk"), "{empty}");
        let claim = serde_json::json!({"name": "c", "persistentVolumeClaim": {"claimName": "a"}});
        assert!(
            told(claim)
                .unwrap_err()
                .starts_with("spec.volumes[2]: not with libvirt: it is for guests in a pod")
        );
    }

    #[test]
    fn cpus_are_bits() {
        assert_eq!(bitmap(&"0-1,9".parse().unwrap()), [0b11, 0b10]);
        assert_eq!(bitmap(&CpuSet::new()), Vec::<u8>::new());
    }
}
