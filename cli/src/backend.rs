//! Which backend runs a guest: our own virtual machine monitor, or QEMU through libvirt.
//!
//! Called by `pinion run` before anything is reserved. Opens images read-only for a moment; changes nothing.

use std::fmt;
use std::path::PathBuf;
use std::sync::{Arc, Mutex};

use clap::ValueEnum;
use pinion_api::VirtualMachineInstance;
use pinion_launcher::image::{self, ImageError, ReadLimits};
use vmm_block::{Access, DiskOptions};

use crate::failure::Failure;

/// What runs a guest.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Backend {
    /// Our own virtual machine monitor.
    Native,
    /// QEMU, through libvirt.
    Libvirt,
}

impl Backend {
    /// The program that runs a guest by it, beside this one.
    pub(crate) const fn program(self) -> &'static str {
        match self {
            Self::Native => "pinion-launcher",
            Self::Libvirt => "pinion-launcher-libvirt",
        }
    }

    /// Whether its program is there.
    fn is_installed(self) -> bool {
        let own = std::env::current_exe().unwrap_or_default();
        own.with_file_name(self.program()).exists()
    }
}

impl fmt::Display for Backend {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Native => "native",
            Self::Libvirt => "libvirt",
        })
    }
}

/// What a command was told to take.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub(crate) enum BackendChoice {
    /// Our own virtual machine monitor where it can run the VM, else libvirt where it is installed
    Auto,
    /// Our own virtual machine monitor
    Native,
    /// QEMU, through libvirt
    Libvirt,
}

/// What runs a VM, and why not the native backend.
#[derive(Clone, Debug)]
pub(crate) struct Chosen {
    pub(crate) backend: Backend,
    /// Absent where it was asked for, or is the native one.
    pub(crate) because: Option<String>,
}

/// Why a guest would not boot from its disk.
#[derive(Debug, thiserror::Error)]
enum BootError {
    #[error("{vm}: volume {volume:?}")]
    Open { vm: String, volume: String, source: vmm_block::OpenError },
    #[error("{vm}: volume {volume:?}: Cannot look into {path:?}")]
    Read { vm: String, volume: String, path: PathBuf, source: ImageError },
    #[error(
        "{vm}: volume {volume:?}: {path:?} does not boot directly: {why}; `pinion image inspect` shows what is on \
         it, firmware.kernelBoot gives a kernel of this host instead, and --backend libvirt runs it on QEMU"
    )]
    Refused { vm: String, volume: String, path: PathBuf, why: String },
}

/// Chooses for each VM of a file.
///
/// # Errors
/// [`Failure::Invalid`] for the first that nothing here can run.
pub(crate) fn choose(
    choice: BackendChoice,
    instances: &[VirtualMachineInstance],
) -> Result<Vec<Chosen>, Failure> {
    instances.iter().map(|instance| choose_one(choice, instance).map_err(Failure::invalid)).collect()
}

fn choose_one(choice: BackendChoice, instance: &VirtualMachineInstance) -> Result<Chosen, BootError> {
    let chosen = |backend, because| Ok(Chosen { backend, because });
    if choice == BackendChoice::Libvirt {
        return chosen(Backend::Libvirt, None);
    }
    match boots_directly(instance) {
        Ok(()) => chosen(Backend::Native, None),
        Err(BootError::Refused { volume, path, why, .. })
            if choice == BackendChoice::Auto && Backend::Libvirt.is_installed() =>
        {
            chosen(
                Backend::Libvirt,
                Some(format!("volume {volume:?}: {path:?} does not boot directly: {why}")),
            )
        }
        Err(e) => Err(e),
    }
}

/// Looks into the boot disk of a VM that names no kernel.
fn boots_directly(instance: &VirtualMachineInstance) -> Result<(), BootError> {
    let spec = &instance.spec;
    if spec.domain.firmware.as_ref().is_some_and(|f| f.kernel_boot.is_some()) {
        return Ok(());
    }
    let disk = spec.boot_disk().and_then(|disk| spec.volume(&disk.name));
    let Some((volume, host)) = disk.and_then(|volume| Some((&volume.name, volume.host_disk.as_ref()?)))
    else {
        return Ok(());
    };
    let (vm, volume, path) = (instance.full_name(), volume.clone(), PathBuf::from(&host.path));
    let format = match host.format() {
        pinion_api::ImageFormat::Raw => vmm_block::ImageFormat::Raw,
        pinion_api::ImageFormat::Qcow2 => vmm_block::ImageFormat::Qcow2,
    };
    let opened = vmm_block::open(&path, DiskOptions { access: Access::ReadOnly, format: Some(format) });
    let image = match opened {
        Ok(image) => Arc::new(Mutex::new(image)),
        Err(source) => return Err(BootError::Open { vm, volume, source }),
    };
    match image::inspect(&image, ReadLimits::default()) {
        Ok(report) => match report.refusal {
            None => Ok(()),
            Some(why) => Err(BootError::Refused { vm, volume, path, why }),
        },
        Err(source) => Err(BootError::Read { vm, volume, path, source }),
    }
}
