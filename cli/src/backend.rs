//! Which backend runs a guest: our own virtual machine monitor, or QEMU through libvirt.
//!
//! Called by `pinion run` before anything is reserved. Opens images read-only for a moment; changes nothing.

use std::path::PathBuf;
use std::sync::{Arc, Mutex};

use clap::ValueEnum;
use pinion_api::VirtualMachineInstance;
use pinion_launcher::image::{self, ImageError, ReadLimits};
use pinion_launcher::{BackendKind, chain};
use vmm_block::{Access, DiskOptions};

use crate::failure::Failure;

/// The program of a backend: beside this one.
pub(crate) fn program(backend: BackendKind) -> PathBuf {
    let own = std::env::current_exe().unwrap_or_else(|_| backend.program().into());
    own.with_file_name(backend.program())
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
    pub(crate) backend: BackendKind,
    /// Absent where it was asked for, or is the native one.
    pub(crate) because: Option<String>,
}

/// Why nothing here would run a guest.
#[derive(Debug, thiserror::Error)]
enum BootError {
    #[error("{vm} needs QEMU, through libvirt: {remedy}{fields}")]
    Needs { vm: String, fields: String, remedy: &'static str },
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
    instances.iter().map(|instance| choose_one(choice, instance, true).map_err(Failure::invalid)).collect()
}

/// Says for a plan what would run each VM, or why nothing would; looks into images only where they are this host's.
pub(crate) fn describe(instance: &VirtualMachineInstance, look: bool) -> String {
    match choose_one(BackendChoice::Auto, instance, look) {
        Ok(Chosen { backend, because: Some(why) }) => {
            format!("{}: backend {backend}: {why}", instance.full_name())
        }
        Ok(Chosen { backend, because: None }) => format!("{}: backend {backend}", instance.full_name()),
        Err(e) => format!("no backend: {}", chain(&e)),
    }
}

/// Chooses for one; `look`: its disks are this host's, and looked into.
fn choose_one(
    choice: BackendChoice,
    instance: &VirtualMachineInstance,
    look: bool,
) -> Result<Chosen, BootError> {
    let chosen = |backend, because| Ok(Chosen { backend, because });
    let choice = match (choice, instance.asked_backend()) {
        (BackendChoice::Auto, Some(BackendKind::Native)) => BackendChoice::Native,
        (BackendChoice::Auto, Some(BackendKind::Libvirt)) => BackendChoice::Libvirt,
        _ => choice,
    };
    if choice == BackendChoice::Libvirt {
        return chosen(BackendKind::Libvirt, None);
    }
    let may_take_libvirt = choice == BackendChoice::Auto && program(BackendKind::Libvirt).exists();
    let needs = instance.needs_libvirt();
    if let Some(first) = needs.first() {
        if may_take_libvirt {
            let more = match needs.len() - 1 {
                0 => String::new(),
                more => format!(" (and {more} more)"),
            };
            return chosen(
                BackendKind::Libvirt,
                Some(format!("{}: natively, {}{more}", first.path, first.natively)),
            );
        }
        return Err(BootError::Needs {
            vm: instance.full_name(),
            fields: needs
                .iter()
                .map(|need| format!("\n  {}: natively, {}", need.path, need.natively))
                .collect(),
            remedy: if choice == BackendChoice::Native {
                "use --backend auto, or remove them"
            } else {
                "install pinion-launcher-libvirt beside pinion, or remove them"
            },
        });
    }
    match if look { boots_directly(instance) } else { Ok(()) } {
        Ok(()) => chosen(BackendKind::Native, None),
        Err(BootError::Refused { volume, path, why, .. }) if may_take_libvirt => chosen(
            BackendKind::Libvirt,
            Some(format!("volume {volume:?}: {path:?} does not boot directly: {why}")),
        ),
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
