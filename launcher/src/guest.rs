//! From a VM spec and a placement to exact files, descriptors and CPUs.
//!
//! Opens everything a guest needs, before anything is started: what is missing, locked or of the
//! wrong kind is told here, by the field that names it.

use std::fs::File;
use std::io;
use std::os::fd::OwnedFd;
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex};

use nix::fcntl::OFlag;
use pinion_api::{Disk, HostFile, Interface, MacAddress, PodVolumes, VirtualMachineInstance};
use pinion_machine::CpuSet;
use pinion_planner::Placement;
use vmm_host::Tap;
use vmm_machine::{
    CellConfig, DeviceConfig, DiskConfig, Hints, IoThreadConfig, Kernel, KernelFiles, MachineConfig,
    NetConfig, Rng, Source, VcpuConfig,
};

use crate::backend::Wiring;
use crate::image::DiskKernel;
use crate::rooted;
use crate::volume::{VolumeError, Volumes};

/// Priority of real-time vCPUs, as KubeVirt has it.
const REALTIME_PRIORITY: i32 = 1;
/// Where the kernel has the host's PCI functions.
const PCI_DEVICES: &str = "/sys/bus/pci/devices";

/// A guest: everything open, nothing started.
#[derive(Debug)]
pub struct Guest {
    pub(crate) machine: MachineConfig,
}

/// Why a guest cannot be set up: names the field of the spec.
#[derive(Debug, thiserror::Error)]
pub enum GuestError {
    /// The spec lacks what its own rules promise.
    #[error("{field}: missing")]
    Missing {
        /// The field.
        field: String,
    },
    /// Only another backend has it.
    #[error("{field}: this backend cannot do it: {natively}")]
    NotNative {
        /// The field.
        field: String,
        /// What there is instead.
        natively: &'static str,
    },
    /// A kernel or initrd cannot be opened.
    #[error("{field}: Cannot open {path:?}")]
    Boot {
        /// The field.
        field: &'static str,
        /// The file.
        path: PathBuf,
        /// From the operating system.
        source: io::Error,
    },
    /// No more threads.
    #[error("Cannot start the thread that reads the guest's boot files")]
    Thread(#[source] io::Error),
    /// What a disk holds cannot be opened.
    #[error("volume {volume:?}")]
    Volume {
        /// The volume.
        volume: String,
        /// Why.
        source: VolumeError,
    },
    /// The tap device cannot be had.
    #[error("interface {interface:?}")]
    Tap {
        /// The interface.
        interface: String,
        /// Why.
        source: vmm_host::TapError,
    },
}

impl Guest {
    /// Opens everything; in a pod, `pod` says where volumes are.
    ///
    /// # Errors
    /// [`GuestError`]; nothing is left open then.
    pub fn open(
        instance: &VirtualMachineInstance,
        placement: &Placement,
        pod: Option<&PodVolumes>,
        wiring: Wiring,
    ) -> Result<Self, GuestError> {
        let Wiring { console, mut taps, .. } = wiring;
        if let Some(need) = instance.needs_libvirt().first() {
            return Err(GuestError::NotNative { field: need.path.to_string(), natively: need.natively });
        }
        let domain = &instance.spec.domain;
        let shape = instance.spec.topology();
        let volumes = Volumes { instance, pod };
        let disks = domain.devices.disks.iter().map(|disk| open_disk(volumes, placement, disk));
        let disks: Vec<DiskConfig> = disks.collect::<Result<_, _>>()?;
        let on_taps = domain.devices.interfaces.iter().filter(|interface| interface.sriov.is_none());
        let nets = on_taps.map(|interface| open_net(instance, interface, taps.remove(&interface.name)));
        let machine = MachineConfig {
            sockets: shape.sockets,
            cores: shape.cores,
            threads: shape.threads,
            vcpus: vcpus(placement),
            cells: cells(placement),
            kernel: kernel(instance, pod, &disks)?,
            disks,
            nets: nets.collect::<Result<_, _>>()?,
            devices: placement.devices.iter().map(device).collect(),
            iommu: None,
            rng: if domain.devices.rng.is_some() { Rng::Present } else { Rng::Absent },
            console,
            io_threads: placement
                .io_threads
                .iter()
                .map(|t| IoThreadConfig { id: t.id, cpus: numbers(&t.cpus) })
                .collect(),
            emulator_cpus: numbers(&placement.emulator.cpus),
            hints: if instance.spec.dedicated_cpus() { Hints::Dedicated } else { Hints::None },
        };
        Ok(Self { machine })
    }
}

/// What boots: the files that the spec names, else what the boot disk says, at each boot.
fn kernel(
    instance: &VirtualMachineInstance,
    pod: Option<&PodVolumes>,
    disks: &[DiskConfig],
) -> Result<Kernel, GuestError> {
    let firmware = instance.spec.domain.firmware.as_ref();
    let Some(boot) = firmware.and_then(|f| f.kernel_boot.as_ref()) else {
        let disk = instance.spec.boot_disk().ok_or_else(|| missing("spec.domain.devices.disks"))?;
        let image = disks.iter().find(|d| d.name == disk.name).map(|d| Arc::clone(&d.image));
        let image = image.ok_or_else(|| missing(&format!("spec.volumes[{}]", disk.name)))?;
        let kernel = DiskKernel::new(&disk.name, image).map_err(GuestError::Thread)?;
        return Ok(Kernel::Read(Box::new(kernel)));
    };
    let container =
        boot.container.as_ref().ok_or_else(|| missing("spec.domain.firmware.kernelBoot.container"))?;
    let (kernel, initrd) = match pod.map(PodVolumes::kernel) {
        Some(folder) => (container.kernel_in(&folder), container.initrd_in(&folder)),
        None => (container.kernel(), container.initrd()),
    };
    let path = kernel.ok_or_else(|| missing("spec.domain.firmware.kernelBoot.container.kernelPath"))?;
    let arguments = boot.kernel_args.as_deref().unwrap_or_default();
    Ok(Kernel::Files(KernelFiles {
        kernel: open_inside("spec.domain.firmware.kernelBoot.container.kernelPath", &path)?,
        initrd: initrd
            .map(|f| open_inside("spec.domain.firmware.kernelBoot.container.initrdPath", &f))
            .transpose()?,
        command_line: with_console(arguments),
    }))
}

/// The kernel argument that makes the serial port its console.
pub const CONSOLE_ARGUMENT: &str = "console=ttyS0";

/// A kernel's arguments with the serial console in front, since they may name more.
#[must_use]
pub fn with_console(arguments: &str) -> String {
    format!("{CONSOLE_ARGUMENT} {arguments}").trim_end().to_owned()
}

fn missing(field: &str) -> GuestError {
    GuestError::Missing { field: field.to_owned() }
}

/// CPUs as the virtual machine monitor takes them.
pub(crate) fn numbers(cpus: &CpuSet) -> Vec<u32> {
    cpus.iter().map(|c| c.0).collect()
}

fn vcpus(placement: &Placement) -> Vec<VcpuConfig> {
    let vcpu = |v: &pinion_planner::Vcpu| VcpuConfig {
        socket: v.socket,
        core: v.core,
        thread: v.thread,
        cell: v.cell,
        cpus: numbers(&v.allowed()),
        fifo: v.realtime.then_some(REALTIME_PRIORITY),
    };
    placement.vcpus.iter().map(vcpu).collect()
}

fn cells(placement: &Placement) -> Vec<CellConfig> {
    let cell = |c: &pinion_planner::Cell| CellConfig {
        memory_bytes: c.memory_bytes,
        page_size: c.page_size_bytes.bytes(),
        host_node: Some(c.host_node.0),
        distances: c.distances.clone(),
    };
    placement.cells.iter().map(cell).collect()
}

/// A device is opened while arming, in the guest's own IOMMU domain.
fn device(device: &pinion_planner::Device) -> DeviceConfig {
    let folder = Path::new(PCI_DEVICES).join(device.address.to_string());
    DeviceConfig { name: device.address.to_string(), source: Source::Folder(folder), cell: device.cell }
}

/// Opens a file below a directory, which no link may lead out of.
fn open_inside(field: &'static str, file: &HostFile) -> Result<File, GuestError> {
    rooted::open_inside(&file.root, &file.inside, OFlag::O_RDONLY).map_err(|source| GuestError::Boot {
        field,
        path: file.root.join(&file.inside),
        source,
    })
}

fn open_disk(volumes: Volumes<'_>, placement: &Placement, disk: &Disk) -> Result<DiskConfig, GuestError> {
    let volume = volumes.instance.spec.volume(&disk.name);
    let volume = volume.ok_or_else(|| missing(&format!("spec.volumes[{}]", disk.name)))?;
    let image = volumes
        .open(disk, volume)
        .map_err(|source| GuestError::Volume { volume: volume.name.clone(), source })?;
    let io_thread = placement.io_threads.iter().position(|t| t.disks.contains(&disk.name));
    let serial = disk.serial.clone().unwrap_or_default();
    Ok(DiskConfig { name: disk.name.clone(), image: Arc::new(Mutex::new(image)), serial, io_thread })
}

fn open_net(
    instance: &VirtualMachineInstance,
    interface: &Interface,
    tap: Option<OwnedFd>,
) -> Result<NetConfig, GuestError> {
    let name = &interface.name;
    let tap = match tap {
        Some(tap) => tap,
        None => {
            let host = instance.spec.host_network(name);
            let host = host.ok_or_else(|| missing(&format!("spec.networks[{name}].multus")))?;
            let failed = |source| GuestError::Tap { interface: name.clone(), source };
            Tap::open(host).map_err(failed)?.into_fd()
        }
    };
    let given = interface.mac_address.as_deref().and_then(|text| text.parse::<MacAddress>().ok());
    let mac = given.unwrap_or_else(|| MacAddress::for_interface(&instance.full_name(), name));
    Ok(NetConfig { name: name.clone(), tap, mac: mac.0 })
}

#[cfg(test)]
mod tests;
