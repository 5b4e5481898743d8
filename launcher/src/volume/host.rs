//! Disks of the host: images and devices that it keeps, and files that go with the guest.

use std::env;
use std::fs::{self, File, OpenOptions};
use std::io;
use std::path::{Path, PathBuf};

use pinion_api::{HostDisk, HostDiskType, ImageFormat, PodVolumes, Quantity};
use vmm_block::{Access, DiskOptions};

use super::{Image, VolumeError};

/// Where one host has large files for a while, unless the environment says otherwise. Source: file-hierarchy(7).
const SCRATCH: &str = "/var/tmp";

/// Opens a disk of the host; in a pod, `folder` is the host's folder that it is in.
pub(super) fn open(host: &HostDisk, folder: Option<PathBuf>, access: Access) -> Result<Image, VolumeError> {
    let format = match host.format() {
        ImageFormat::Raw => vmm_block::ImageFormat::Raw,
        ImageFormat::Qcow2 => vmm_block::ImageFormat::Qcow2,
    };
    Ok(vmm_block::open(&locate(host, folder)?, DiskOptions { access, format: Some(format) })?)
}

/// Where it is; made where it is not there and the spec says so.
pub(super) fn locate(host: &HostDisk, folder: Option<PathBuf>) -> Result<PathBuf, VolumeError> {
    let path = Path::new(&host.path);
    let path = match (folder, path.file_name()) {
        (Some(folder), Some(name)) => folder.join(name),
        _ => path.to_owned(),
    };
    if host.kind == HostDiskType::DiskOrCreate {
        create(&path, host.capacity.as_ref().map_or(0, Quantity::rounded_up))?;
    }
    Ok(path)
}

/// Makes a sparse image, unless there is one.
fn create(path: &Path, bytes: u64) -> Result<(), VolumeError> {
    let failed = |source| VolumeError::Create { path: path.to_owned(), source };
    match OpenOptions::new().write(true).create_new(true).open(path) {
        Ok(file) => file.set_len(bytes).map_err(|e| {
            let _ = fs::remove_file(path);
            failed(e)
        }),
        Err(e) if e.kind() == io::ErrorKind::AlreadyExists => Ok(()),
        Err(e) => Err(failed(e)),
    }
}

/// An empty file without a name: it is gone with its descriptor.
pub(super) fn scratch(pod: Option<&PodVolumes>) -> Result<File, VolumeError> {
    let folder = pod.map_or_else(
        || env::var_os("TMPDIR").filter(|f| !f.is_empty()).map_or_else(|| SCRATCH.into(), PathBuf::from),
        PodVolumes::scratch,
    );
    tempfile::tempfile_in(&folder).map_err(|source| VolumeError::Scratch { folder, source })
}
