//! What a guest's disks hold: opens the image of each, before anything is started.
//!
//! Called by the backends while they open a guest, on the session's thread. `host` is what one host has, `pod` what a
//! pod has, `file` is for QEMU, which opens files itself; `folder` reads the objects of a cluster that a pod has as files; `cloud_init` and `fat` make disks of them.
//! Where a pod has what is `pinion-api`'s to say. What a guest can write is never looked into to see what it is.

mod cloud_init;
mod error;
mod fat;
mod file;
mod folder;
mod host;
mod pod;

use cloud_init::{CloudInitData, cloud_init_image};
pub use error::VolumeError;
pub use file::{DiskFile, disk_file};

use std::fs::File;

use pinion_api::{CloudInit, Disk, PodVolumes, VirtualMachineInstance, Volume, is_only_read};
use vmm_block::{Access, DiskOptions, ImageFormat};

/// An open image.
type Image = Box<dyn vmm_block::Disk>;

/// The volumes of a guest.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Volumes<'a> {
    pub(crate) instance: &'a VirtualMachineInstance,
    /// Where they are in a pod; none on one host.
    pub(crate) pod: Option<&'a PodVolumes>,
}

impl Volumes<'_> {
    /// Opens what a disk holds.
    pub(crate) fn open(&self, disk: &Disk, volume: &Volume) -> Result<Image, VolumeError> {
        let access = if is_only_read(disk, volume) { Access::ReadOnly } else { Access::ReadWrite };
        if let Some(host) = &volume.host_disk {
            return host::open(host, self.pod.map(|pod| pod.folder(&volume.name)), access);
        }
        if let Some(empty) = &volume.empty_disk {
            return self.open_empty(&volume.name, empty.capacity.rounded_up(), access);
        }
        if let Some(data) = volume.cloud_init() {
            let data = self.cloud_init_data(&volume.name, data)?;
            let image = cloud_init_image(self.instance, volume, data).map_err(VolumeError::Seed)?;
            return raw(image, &volume.name, Access::ReadOnly);
        }
        let pod = self.pod.ok_or(VolumeError::NotInPod)?;
        if volume.claim().is_some() {
            return pod::open_claim(pod, &volume.name, access);
        }
        if volume.ephemeral.is_some() {
            return self.on_top(pod::open_claim(pod, &volume.name, Access::ReadOnly)?, access);
        }
        if let Some(inside) = &volume.container_disk {
            let image = pod::open_container_disk(&pod.image(&volume.name), inside.path.as_deref())?;
            return self.on_top(image, access);
        }
        if volume.secret.is_some() || volume.config_map.is_some() || volume.downward_api.is_some() {
            let image = folder::image(&pod.folder(&volume.name), volume.label())?;
            return raw(image, &volume.name, Access::ReadOnly);
        }
        Err(VolumeError::Unknown)
    }

    /// An image that stays as it is, and what the guest writes to it in a file of its own.
    fn on_top(&self, base: Image, access: Access) -> Result<Image, VolumeError> {
        match access {
            Access::ReadOnly => Ok(base),
            Access::ReadWrite => Ok(vmm_block::overlay(base, host::scratch(self.pod)?)?),
        }
    }

    fn open_empty(&self, volume: &str, bytes: u64, access: Access) -> Result<Image, VolumeError> {
        let file = host::scratch(self.pod)?;
        file.set_len(bytes).map_err(|source| VolumeError::Empty { bytes, source })?;
        raw(file, volume, access)
    }

    fn cloud_init_data(&self, volume: &str, data: &CloudInit) -> Result<CloudInitData, VolumeError> {
        let mut told = CloudInitData::inline(data);
        if data.secret_ref.is_some() {
            let pod = self.pod.ok_or(VolumeError::NotInPod)?;
            told.user_data = folder::key(&pod.folder(volume), ["userdata", "userData"])?;
        }
        if data.network_data_secret_ref.is_some() {
            let pod = self.pod.ok_or(VolumeError::NotInPod)?;
            told.network_data = folder::key(&pod.network_data(volume), ["networkdata", "networkData"])?;
        }
        Ok(told)
    }
}

/// A file of ours, byte for byte.
fn raw(file: File, name: &str, access: Access) -> Result<Image, VolumeError> {
    Ok(vmm_block::open_file(file, name, DiskOptions { access, format: Some(ImageFormat::Raw) })?)
}

#[cfg(test)]
mod tests;
