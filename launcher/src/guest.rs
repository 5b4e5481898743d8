//! From a VM spec and a placement to exact files, descriptors and CPUs.
//!
//! Opens everything a guest needs, before anything is started: what is missing, locked or of the
//! wrong kind is told here, by the field that names it.

use std::fs::{File, OpenOptions};
use std::io;
use std::os::fd::OwnedFd;
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex};

use nix::fcntl::{OFlag, OpenHow, ResolveFlag, open, openat2};
use nix::sys::stat::Mode;
use pinion_api::{
    CloudInit, Disk, HostDisk, HostDiskType, HostFile, ImageFormat, Interface, MacAddress,
    VirtualMachineInstance,
};
use pinion_machine::CpuSet;
use pinion_planner::Placement;
use vmm_block::{Access, DiskOptions};
use vmm_host::Tap;
use vmm_machine::{
    CellConfig, ConsoleConfig, DeviceConfig, DiskConfig, Hints, IoThreadConfig, Kernel, KernelFiles,
    MachineConfig, NetConfig, Rng, Source, VcpuConfig,
};

use crate::image::DiskKernel;
use crate::nocloud::cloud_init_image;

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
    /// An image cannot be made.
    #[error("volume {volume:?}: Cannot make the image {path:?}")]
    Create {
        /// The volume.
        volume: String,
        /// The image.
        path: PathBuf,
        /// From the operating system.
        source: io::Error,
    },
    /// An image cannot be opened.
    #[error("volume {volume:?}")]
    Image {
        /// The volume.
        volume: String,
        /// Why.
        source: vmm_block::OpenError,
    },
    /// The cloud-init image cannot be made.
    #[error("volume {volume:?}: Cannot make the cloud-init image")]
    Seed {
        /// The volume.
        volume: String,
        /// From the operating system.
        source: io::Error,
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
    /// Opens everything.
    ///
    /// # Errors
    /// [`GuestError`]; nothing is left open then.
    pub fn open(
        instance: &VirtualMachineInstance,
        placement: &Placement,
        console: ConsoleConfig,
    ) -> Result<Self, GuestError> {
        if let Some(need) = instance.needs_libvirt().first() {
            return Err(GuestError::NotNative { field: need.path.to_string(), natively: need.natively });
        }
        let domain = &instance.spec.domain;
        let shape = instance.spec.topology();
        let disks = domain.devices.disks.iter().map(|disk| open_disk(instance, placement, disk));
        let disks: Vec<DiskConfig> = disks.collect::<Result<_, _>>()?;
        let on_taps = domain.devices.interfaces.iter().filter(|interface| interface.sriov.is_none());
        let nets = on_taps.map(|interface| open_net(instance, interface));
        let machine = MachineConfig {
            sockets: shape.sockets,
            cores: shape.cores,
            threads: shape.threads,
            vcpus: vcpus(placement),
            cells: cells(placement),
            kernel: kernel(instance, &disks)?,
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
fn kernel(instance: &VirtualMachineInstance, disks: &[DiskConfig]) -> Result<Kernel, GuestError> {
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
    let path =
        container.kernel().ok_or_else(|| missing("spec.domain.firmware.kernelBoot.container.kernelPath"))?;
    let initrd = container.initrd();
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
    let failed = |e: nix::errno::Errno| GuestError::Boot {
        field,
        path: file.root.join(&file.inside),
        source: e.into(),
    };
    let folder = OFlag::O_PATH | OFlag::O_DIRECTORY | OFlag::O_CLOEXEC;
    let root: OwnedFd = open(&file.root, folder, Mode::empty()).map_err(failed)?;
    let how = OpenHow::new()
        .flags(OFlag::O_RDONLY | OFlag::O_CLOEXEC | OFlag::O_NONBLOCK)
        .resolve(ResolveFlag::RESOLVE_IN_ROOT | ResolveFlag::RESOLVE_NO_MAGICLINKS);
    let opened = openat2(&root, &file.inside, how).map_err(failed)?;
    Ok(File::from(opened))
}

fn open_disk(
    instance: &VirtualMachineInstance,
    placement: &Placement,
    disk: &Disk,
) -> Result<DiskConfig, GuestError> {
    let volume =
        instance.spec.volume(&disk.name).ok_or_else(|| missing(&format!("spec.volumes[{}]", disk.name)))?;
    let image = match (&volume.host_disk, &volume.cloud_init_no_cloud) {
        (Some(host), _) => open_host_disk(&disk.name, host, disk.is_read_only())?,
        (_, Some(data)) => open_seed(instance, &disk.name, data)?,
        _ => return Err(missing(&format!("spec.volumes[{}].hostDisk", disk.name))),
    };
    let io_thread = placement.io_threads.iter().position(|t| t.disks.contains(&disk.name));
    let serial = disk.serial.clone().unwrap_or_default();
    Ok(DiskConfig { name: disk.name.clone(), image: Arc::new(Mutex::new(image)), serial, io_thread })
}

fn open_host_disk(
    volume: &str,
    host: &HostDisk,
    read_only: bool,
) -> Result<Box<dyn vmm_block::Disk>, GuestError> {
    let path = Path::new(&host.path);
    if host.kind == HostDiskType::DiskOrCreate {
        create(volume, host, path)?;
    }
    let format = match host.format() {
        ImageFormat::Raw => vmm_block::ImageFormat::Raw,
        ImageFormat::Qcow2 => vmm_block::ImageFormat::Qcow2,
    };
    let access = if read_only { Access::ReadOnly } else { Access::ReadWrite };
    vmm_block::open(path, DiskOptions { access, format: Some(format) })
        .map_err(|source| GuestError::Image { volume: volume.to_owned(), source })
}

/// Makes a sparse image, unless there is one.
fn create(volume: &str, host: &HostDisk, path: &Path) -> Result<(), GuestError> {
    let failed = |source| GuestError::Create { volume: volume.to_owned(), path: path.to_owned(), source };
    let bytes = host.capacity.as_ref().map_or(0, pinion_api::Quantity::rounded_up);
    match OpenOptions::new().write(true).create_new(true).open(path) {
        Ok(file) => file.set_len(bytes).map_err(|e| {
            let _ = std::fs::remove_file(path);
            failed(e)
        }),
        Err(e) if e.kind() == io::ErrorKind::AlreadyExists => Ok(()),
        Err(e) => Err(failed(e)),
    }
}

fn open_seed(
    instance: &VirtualMachineInstance,
    volume: &str,
    data: &CloudInit,
) -> Result<Box<dyn vmm_block::Disk>, GuestError> {
    let file = cloud_init_image(instance, data)
        .map_err(|source| GuestError::Seed { volume: volume.to_owned(), source })?;
    let options = DiskOptions { access: Access::ReadOnly, format: Some(vmm_block::ImageFormat::Raw) };
    vmm_block::open_file(file, volume, options)
        .map_err(|source| GuestError::Image { volume: volume.to_owned(), source })
}

fn open_net(instance: &VirtualMachineInstance, interface: &Interface) -> Result<NetConfig, GuestError> {
    let name = &interface.name;
    let host =
        instance.spec.host_network(name).ok_or_else(|| missing(&format!("spec.networks[{name}].multus")))?;
    let tap = Tap::open(host).map_err(|source| GuestError::Tap { interface: name.clone(), source })?;
    let given = interface.mac_address.as_deref().and_then(|text| text.parse::<MacAddress>().ok());
    let mac = given.unwrap_or_else(|| MacAddress::for_interface(&instance.full_name(), name));
    Ok(NetConfig { name: name.clone(), tap: tap.into_fd(), mac: mac.0 })
}

#[cfg(test)]
mod tests;
