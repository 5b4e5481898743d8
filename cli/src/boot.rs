//! What a guest boots from its own disk: looked at before anything is reserved.
//!
//! Called by `pinion run`. Opens images read-only for a moment; changes nothing.

use std::path::PathBuf;
use std::sync::{Arc, Mutex};

use pinion_api::VirtualMachineInstance;
use pinion_launcher::image::{self, ImageError, ReadLimits};
use vmm_block::{Access, DiskOptions};

use crate::failure::Failure;

/// Why a guest would not boot from its disk.
#[derive(Debug, thiserror::Error)]
enum BootError {
    #[error("{vm}: volume {volume:?}")]
    Open { vm: String, volume: String, source: vmm_block::OpenError },
    #[error("{vm}: volume {volume:?}: Cannot look into {path:?}")]
    Read { vm: String, volume: String, path: PathBuf, source: ImageError },
    #[error(
        "{vm}: volume {volume:?}: {path:?} does not boot directly: {why}; `pinion image inspect` shows what is on \
         it, and firmware.kernelBoot gives a kernel of this host instead"
    )]
    Refused { vm: String, volume: String, path: PathBuf, why: String },
}

/// Looks into the boot disk of each VM that names no kernel.
///
/// # Errors
/// [`Failure::Invalid`] for the first that would not boot.
pub(crate) fn check(instances: &[VirtualMachineInstance]) -> Result<(), Failure> {
    instances.iter().try_for_each(|instance| check_one(instance).map_err(Failure::invalid))
}

fn check_one(instance: &VirtualMachineInstance) -> Result<(), BootError> {
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
