//! What a program other than our own virtual machine monitor is given of a volume: files, by their paths.
//!
//! Called by the libvirt backend while it opens a guest, on the session's thread. The rules are those of the images that are
//! opened: no link leads out of a folder, and what a guest can write is never looked into. QEMU opens the files itself, as
//! this process's user; what is made here goes with the pod, or with the guest's folder.

use std::fs::{self, File, OpenOptions};
use std::io::{self, Seek};
use std::os::fd::AsRawFd;
use std::os::unix::fs::OpenOptionsExt;
use std::path::{Path, PathBuf};

use pinion_api::{Disk, HostDisk, ImageFormat, PodVolumes, VirtualMachineInstance, Volume, is_only_read};
use vmm_block::Access;

use super::pod::Claim;
use super::{VolumeError, Volumes, cloud_init_image, folder, host, pod};

/// The image of a disk.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct DiskFile {
    /// Where it is.
    pub path: PathBuf,
    /// What it is; qcow2 on top of `base` where there is one, to be made by whoever runs the guest.
    pub format: ImageFormat,
    /// An image that stays as it is, below what the guest writes.
    pub base: Option<(PathBuf, ImageFormat)>,
    /// Whether the guest can only read it, as what is made for it.
    pub read_only: bool,
}

impl DiskFile {
    fn new(path: PathBuf, format: ImageFormat) -> Self {
        Self { path, format, base: None, read_only: false }
    }

    fn made(path: PathBuf) -> Self {
        Self { read_only: true, ..Self::new(path, ImageFormat::Raw) }
    }
}

/// The file that a disk holds. What is made for it, and does not go with the pod, is made in `folder`.
///
/// # Errors
/// [`VolumeError`].
pub fn disk_file(
    instance: &VirtualMachineInstance,
    pod: Option<&PodVolumes>,
    (disk, volume): (&Disk, &Volume),
    folder: &Path,
) -> Result<DiskFile, VolumeError> {
    let volumes = Volumes { instance, pod };
    let access = if is_only_read(disk, volume) { Access::ReadOnly } else { Access::ReadWrite };
    let file = volumes.file(volume, access, folder)?;
    Ok(DiskFile { read_only: file.read_only || access == Access::ReadOnly, ..file })
}

impl Volumes<'_> {
    fn file(&self, volume: &Volume, access: Access, folder: &Path) -> Result<DiskFile, VolumeError> {
        let name = &volume.name;
        if let Some(disk) = &volume.host_disk {
            return self.host_file(name, disk);
        }
        if let Some(data) = volume.cloud_init() {
            let data = self.cloud_init_data(name, data)?;
            let image = cloud_init_image(self.instance, volume, data).map_err(VolumeError::Seed)?;
            return store(image, folder, name);
        }
        let pod = self.pod.ok_or(VolumeError::NotInPod)?;
        if let Some(empty) = &volume.empty_disk {
            let path = pod.scratch().join(format!("{name}.img"));
            let failed = |source| VolumeError::Create { path: path.clone(), source };
            let file = private(&path).map_err(failed)?;
            file.set_len(empty.capacity.rounded_up()).map_err(failed)?;
            return Ok(DiskFile::new(path, ImageFormat::Raw));
        }
        if volume.claim().is_some() {
            return Ok(DiskFile::new(claim(pod, name, access)?, ImageFormat::Raw));
        }
        if volume.ephemeral.is_some() {
            let path = claim(pod, name, Access::ReadOnly)?;
            return Ok(on_top(pod, name, (path, ImageFormat::Raw), access));
        }
        if let Some(inside) = &volume.container_disk {
            let base = container_disk(pod, name, inside.path.as_deref())?;
            return Ok(on_top(pod, name, base, access));
        }
        if volume.secret.is_some() || volume.config_map.is_some() || volume.downward_api.is_some() {
            return store(folder::image(&pod.folder(name), volume.label())?, folder, name);
        }
        Err(VolumeError::Unknown)
    }

    fn host_file(&self, name: &str, disk: &HostDisk) -> Result<DiskFile, VolumeError> {
        let path = host::locate(disk, self.pod.map(|pod| pod.folder(name)))?;
        Ok(DiskFile::new(path, disk.format()))
    }
}

fn claim(pod: &PodVolumes, volume: &str, access: Access) -> Result<PathBuf, VolumeError> {
    match pod::find_claim(pod, volume, access)? {
        Claim::Device(path) => Ok(path),
        Claim::Image { file, path } => real_path(&file, &path),
    }
}

/// Opened once, by whoever knows what may be in it: an image that refers to another file is refused.
fn container_disk(
    pod: &PodVolumes,
    volume: &str,
    inside: Option<&str>,
) -> Result<(PathBuf, ImageFormat), VolumeError> {
    let image = pod.image(volume);
    drop(pod::open_container_disk(&image, inside)?);
    let (file, path) = pod::find_container_disk(&image, inside)?;
    let format = match vmm_block::ImageFormat::of_content(&file) {
        vmm_block::ImageFormat::Raw => ImageFormat::Raw,
        vmm_block::ImageFormat::Qcow2 => ImageFormat::Qcow2,
    };
    Ok((real_path(&file, &path)?, format))
}

fn on_top(pod: &PodVolumes, volume: &str, base: (PathBuf, ImageFormat), access: Access) -> DiskFile {
    match access {
        Access::ReadOnly => DiskFile::new(base.0, base.1),
        Access::ReadWrite => {
            let path = pod.scratch().join(format!("{volume}.qcow2"));
            DiskFile { base: Some(base), ..DiskFile::new(path, ImageFormat::Qcow2) }
        }
    }
}

/// Where an open file is, without links.
fn real_path(file: &File, path: &Path) -> Result<PathBuf, VolumeError> {
    let link = format!("/proc/self/fd/{}", file.as_raw_fd());
    fs::read_link(link).map_err(|source| VolumeError::Find { path: path.to_owned(), source })
}

/// Puts a file of memory into a folder. What is in it may be secret.
fn store(mut image: File, folder: &Path, volume: &str) -> Result<DiskFile, VolumeError> {
    let path = folder.join(format!("{volume}.img"));
    let failed = |source| VolumeError::Create { path: path.clone(), source };
    let mut file = private(&path).map_err(failed)?;
    image.rewind().and_then(|()| io::copy(&mut image, &mut file)).map_err(failed)?;
    Ok(DiskFile::made(path))
}

fn private(path: &Path) -> io::Result<File> {
    OpenOptions::new().write(true).create(true).truncate(true).mode(0o600).open(path)
}
