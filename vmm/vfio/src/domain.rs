//! What devices may reach: one IOMMU domain for all devices of a guest, with the guest's memory in it.
//!
//! Called while arming, on the main thread. By iommufd where this kernel has it (Linux 6.6) and every
//! device has a file of its own, else by VFIO groups.

use std::fmt;
use std::fs::File;
use std::io;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::{Duration, Instant};

use iommufd_ioctls::IommuFd;
use kvm_ioctls::DeviceFd;
use vfio_ioctls::{VfioContainer, VfioDevice, VfioDeviceFd, VfioError, VfioIommufd, VfioOps};
use vmm_memory::{GuestRam, RamRegion};

use crate::error::PassthroughError;
use crate::host::HostFunction;
use crate::kernel::KernelFunction;

const IOMMU: &str = "/dev/iommu";
const CONTAINER: &str = "/dev/vfio/vfio";

/// Where a device comes from.
#[derive(Debug)]
pub enum Source {
    /// Its folder in sysfs, such as `/sys/bus/pci/devices/0000:3b:00.0`: opened here.
    Folder(PathBuf),
    /// Its file below `/dev/vfio/devices`, open: this process needs access neither to that nor to sysfs.
    Opened(File),
}

/// The devices of a guest before they are opened.
#[derive(Debug, Default)]
pub struct Sources {
    /// Name and source of each.
    pub devices: Vec<(String, Source)>,
    /// `/dev/iommu`, open; must be there with [`Source::Opened`].
    pub iommu: Option<File>,
}

/// An IOMMU domain. Devices that were opened in it keep it alive.
pub struct Domain {
    ops: Arc<dyn VfioOps>,
    kind: DomainKind,
    /// Devices reach this memory until the domain is gone.
    ram: Arc<GuestRam>,
    mapping_took: Duration,
}

/// How a domain was made.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum DomainKind {
    /// A VFIO container with groups.
    Groups,
    /// An address space of iommufd.
    Iommufd,
}

impl fmt::Debug for Domain {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Domain").field("kind", &self.kind).field("ram", &self.ram).finish_non_exhaustive()
    }
}

/// A device that was opened and reset.
#[derive(Debug)]
pub struct Opened {
    /// Its name.
    pub name: String,
    /// The device.
    pub host: Box<dyn HostFunction>,
}

impl Domain {
    /// Opens all devices.
    ///
    /// The order matters:
    /// 1. The first device is opened before any memory is mapped: a container has no IOMMU until a
    ///    group has joined it.
    /// 2. All memory is mapped before any device may become a bus master.
    /// 3. Each device is reset before anything of it is looked at: config space as the last user left
    ///    it is not what the guest is to see.
    ///
    /// # Errors
    /// [`PassthroughError`]; everything is closed then.
    pub fn open(
        kvm: DeviceFd,
        sources: Sources,
        ram: Arc<GuestRam>,
    ) -> Result<(Self, Vec<Opened>), PassthroughError> {
        check_locked_memory(&ram)?;
        let kvm = Arc::new(VfioDeviceFd::new_from_kvm(kvm));
        let groups = sources.iommu.is_none() && !sources.devices.iter().all(|(_, source)| has_file(source));
        let by = if groups { By::Groups(container(kvm)?) } else { By::Iommufd(iommufd(kvm, sources.iommu)?) };
        let mut domain = None;
        let mut opened = Vec::with_capacity(sources.devices.len());
        for (name, source) in sources.devices {
            let device = by.device(source);
            let device =
                device.map_err(|source| PassthroughError::Device { device: name.clone(), source })?;
            if domain.is_none() {
                domain = Some(by.domain(Arc::clone(&ram))?);
            }
            let failed = PassthroughError::device(&name, "keep the file");
            let host = KernelFunction::new(device).map_err(failed)?;
            if host.can_reset() {
                host.reset().map_err(|source| PassthroughError::Reset { device: name.clone(), source })?;
            }
            opened.push(Opened { name, host: Box::new(host) });
        }
        let domain = match domain {
            Some(domain) => domain,
            None => by.domain(ram)?,
        };
        Ok((domain, opened))
    }

    /// How it was made.
    #[must_use]
    pub fn kind(&self) -> DomainKind {
        self.kind
    }

    /// How long the kernel took to map all of the guest's memory.
    #[must_use]
    pub fn mapping_took(&self) -> Duration {
        self.mapping_took
    }

    /// Maps all of the guest's memory at its own addresses: each region by a thread of its own, since
    /// the kernel pins pages one by one.
    fn map(&self) -> Result<(), PassthroughError> {
        std::thread::scope(|scope| {
            let workers: Vec<_> =
                self.ram.regions().iter().map(|region| scope.spawn(|| self.map_region(region))).collect();
            workers.into_iter().try_for_each(|worker| {
                worker.join().unwrap_or_else(|_| Err(PassthroughError::Event(io::ErrorKind::Other.into())))
            })
        })
    }

    fn map_region(&self, region: &RamRegion) -> Result<(), PassthroughError> {
        let failed = |source| PassthroughError::Dma { start: region.gpa.0, bytes: region.bytes, source };
        let too_large = |_| failed(io::ErrorKind::InvalidInput.into());
        let bytes = usize::try_from(region.bytes).map_err(too_large)?;
        let address =
            std::ptr::with_exposed_provenance_mut(usize::try_from(region.hva.0).map_err(too_large)?);
        // SAFETY: the range is memory of the guest's own, mapped for as long as `ram` lives; the domain
        // keeps it, and every device that could reach it is closed before: see `vmm-machine`.
        unsafe { self.ops.vfio_dma_map(region.gpa.0, bytes, address) }.map_err(|e| failed(errno(e)))
    }
}

enum By {
    Groups(Arc<VfioContainer>),
    Iommufd(Arc<VfioIommufd>),
}

impl By {
    fn ops(&self) -> (Arc<dyn VfioOps>, DomainKind) {
        match self {
            Self::Groups(container) => (Arc::<VfioContainer>::clone(container), DomainKind::Groups),
            Self::Iommufd(iommufd) => (Arc::<VfioIommufd>::clone(iommufd), DomainKind::Iommufd),
        }
    }

    fn device(&self, source: Source) -> Result<VfioDevice, VfioError> {
        match (self, source) {
            (By::Iommufd(iommufd), Source::Opened(file)) => {
                VfioDevice::new_from_fd(file, Arc::clone(iommufd), true)
            }
            (By::Groups(_), Source::Opened(_)) => Err(VfioError::InvalidVfioDev),
            (_, Source::Folder(folder)) => VfioDevice::new(&folder, self.ops().0, true),
        }
    }

    fn domain(&self, ram: Arc<GuestRam>) -> Result<Domain, PassthroughError> {
        let (ops, kind) = self.ops();
        let mut domain = Domain { ops, kind, ram, mapping_took: Duration::ZERO };
        let began = Instant::now();
        domain.map()?;
        domain.mapping_took = began.elapsed();
        Ok(domain)
    }
}

/// Whether a device can be had by iommufd.
fn has_file(source: &Source) -> bool {
    match source {
        Source::Opened(_) => true,
        Source::Folder(folder) => Path::new(IOMMU).exists() && has_node(folder),
    }
}

/// Kernels before 6.6 number functions as well, without nodes for them.
fn has_node(folder: &Path) -> bool {
    let numbered = std::fs::read_dir(folder.join("vfio-dev")).into_iter().flatten().flatten();
    numbered.into_iter().any(|entry| entry.path().join("dev").exists())
}

fn container(kvm: Arc<VfioDeviceFd>) -> Result<Arc<VfioContainer>, PassthroughError> {
    let container = VfioContainer::new(Some(kvm));
    container.map(Arc::new).map_err(|e| PassthroughError::Open { path: CONTAINER, source: e.into() })
}

fn iommufd(kvm: Arc<VfioDeviceFd>, file: Option<File>) -> Result<Arc<VfioIommufd>, PassthroughError> {
    let failed = |source| PassthroughError::Open { path: IOMMU, source };
    let iommu = match file {
        Some(file) => IommuFd::new_from_fd(file),
        None => IommuFd::new().map_err(|e| failed(e.into()))?,
    };
    let made = VfioIommufd::new(Arc::new(iommu), None, Some(kvm));
    made.map(Arc::new).map_err(|e| failed(e.into()))
}

/// The kernel counts pinned pages against the limit, unless the process may lock what it likes.
fn check_locked_memory(ram: &GuestRam) -> Result<(), PassthroughError> {
    let needed = ram.regions().iter().map(|r| r.bytes).sum();
    let mut limit = libc::rlimit { rlim_cur: 0, rlim_max: 0 };
    // SAFETY: the kernel fills in the structure that is given to it.
    let read = unsafe { libc::getrlimit(libc::RLIMIT_MEMLOCK, &raw mut limit) } == 0;
    if !read || limit.rlim_cur >= needed || may_lock_anything() {
        return Ok(());
    }
    let raised = libc::rlimit { rlim_cur: limit.rlim_max.min(needed), rlim_max: limit.rlim_max };
    // SAFETY: the kernel reads the structure that is given to it.
    let set = unsafe { libc::setrlimit(libc::RLIMIT_MEMLOCK, &raw const raised) } == 0;
    if set && raised.rlim_cur >= needed {
        return Ok(());
    }
    Err(PassthroughError::LockedMemory { needed, limit: limit.rlim_max })
}

/// `CAP_IPC_LOCK` is bit 14 of the effective set.
fn may_lock_anything() -> bool {
    let status = std::fs::read_to_string("/proc/self/status").unwrap_or_default();
    let effective = status.lines().find_map(|line| line.strip_prefix("CapEff:"));
    effective.and_then(|set| u64::from_str_radix(set.trim(), 16).ok()).is_some_and(|set| set & 1 << 14 != 0)
}

fn errno(error: VfioError) -> io::Error {
    match error {
        VfioError::IommuDmaMap(e) => io::Error::from_raw_os_error(e.errno()),
        other => io::Error::other(other),
    }
}
