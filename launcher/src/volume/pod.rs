//! Disks of a pod: claims, and images of containers. Anybody may have made what is in them, so that no link leads out.

use std::fs::{self, File};
use std::io;
use std::os::fd::AsRawFd;
use std::path::{Path, PathBuf};

use nix::fcntl::OFlag;
use pinion_api::PodVolumes;
use vmm_block::{Access, DiskOptions, ImageFormat};

use super::{Image, VolumeError, raw};
use crate::rooted::open_inside;

/// Folder of the disk in an image that does not say where it is. Source: KubeVirt.
const DISKS: &str = "disk";

/// What a claim has for a guest.
#[derive(Debug)]
pub(super) enum Claim {
    /// With `volumeMode: Block`.
    Device(PathBuf),
    /// On its file system.
    Image {
        /// Open as it was asked for.
        file: File,
        /// What it is called.
        path: PathBuf,
    },
}

/// Opens a claim: its device, or its image. Always raw: guests write it.
pub(super) fn open_claim(pod: &PodVolumes, volume: &str, access: Access) -> Result<Image, VolumeError> {
    match find_claim(pod, volume, access)? {
        Claim::Device(path) => {
            Ok(vmm_block::open(&path, DiskOptions { access, format: Some(ImageFormat::Raw) })?)
        }
        Claim::Image { file, path } => raw(file, &path.display().to_string(), access),
    }
}

/// Finds what a claim has; one with a file system and nothing on it gets an image.
pub(super) fn find_claim(pod: &PodVolumes, volume: &str, access: Access) -> Result<Claim, VolumeError> {
    let device = pod.device(volume);
    if fs::symlink_metadata(&device).is_ok() {
        return Ok(Claim::Device(device));
    }
    let (folder, inside) = (pod.folder(volume), Path::new(PodVolumes::claim_image()));
    let (path, flags) = (folder.join(inside), flags(access));
    let found = match open_inside(&folder, inside, flags) {
        Err(e) if e.kind() == io::ErrorKind::NotFound && folder.is_dir() && access == Access::ReadWrite => {
            let bytes = pod.image_bytes(volume).ok_or(VolumeError::NoImage { path: path.clone() })?;
            make(&folder, inside, bytes).map_err(|source| VolumeError::Create { path: path.clone(), source })
        }
        found => found.map_err(|source| VolumeError::Find { path: path.clone(), source }),
    };
    Ok(Claim::Image { file: found?, path })
}

fn flags(access: Access) -> OFlag {
    match access {
        Access::ReadOnly => OFlag::O_RDONLY,
        Access::ReadWrite => OFlag::O_RDWR,
    }
}

/// Makes a sparse image on a claim that has none.
fn make(folder: &Path, inside: &Path, bytes: u64) -> io::Result<File> {
    let file = open_inside(folder, inside, OFlag::O_RDWR | OFlag::O_CREAT | OFlag::O_EXCL)?;
    file.set_len(bytes).inspect_err(|_| {
        let _ = fs::remove_file(folder.join(inside));
    })?;
    Ok(file)
}

/// Opens the disk inside an image, which is only read: what it is may be seen by its content, since no guest writes it. A
/// qcow2 image that refers to another file is refused.
pub(super) fn open_container_disk(image: &Path, inside: Option<&str>) -> Result<Image, VolumeError> {
    let (file, path) = find_container_disk(image, inside)?;
    let options = DiskOptions { access: Access::ReadOnly, format: None };
    Ok(vmm_block::open_file(file, &path.display().to_string(), options)?)
}

/// Finds it, and what it is called.
pub(super) fn find_container_disk(
    image: &Path,
    inside: Option<&str>,
) -> Result<(File, PathBuf), VolumeError> {
    let inside = match inside.filter(|inside| !inside.is_empty()) {
        Some(inside) => PathBuf::from(inside),
        None => only_disk(image)?,
    };
    let path = image.join(inside.strip_prefix("/").unwrap_or(&inside));
    let file = open_inside(image, &inside, OFlag::O_RDONLY)
        .map_err(|source| VolumeError::Find { path: path.clone(), source })?;
    Ok((file, path))
}

/// The only file in the folder of disks.
fn only_disk(image: &Path) -> Result<PathBuf, VolumeError> {
    let folder = image.join(DISKS);
    let failed = |source| VolumeError::Find { path: folder.clone(), source };
    let opened =
        open_inside(image, Path::new(DISKS), OFlag::O_RDONLY | OFlag::O_DIRECTORY).map_err(failed)?;
    let entries = fs::read_dir(format!("/proc/self/fd/{}", opened.as_raw_fd())).map_err(failed)?;
    let names: Vec<_> =
        entries.map(|entry| Ok(entry?.file_name())).collect::<io::Result<_>>().map_err(failed)?;
    match names.as_slice() {
        [name] => Ok(Path::new(DISKS).join(name)),
        several => Err(VolumeError::Which { folder: folder.clone(), found: several.len() }),
    }
}
