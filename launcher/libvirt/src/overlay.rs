//! What a guest writes to an image that stays as it is: a qcow2 image on top of it, made by QEMU's own tool.
//!
//! Called by the backend while it opens a guest. The image goes with the pod.

use std::process::Command;

use pinion_api::ImageFormat;
use pinion_launcher::DiskFile;

use crate::error::LibvirtError;

const PROGRAM: &str = "qemu-img";

/// Makes it, where the disk has an image below.
pub(crate) fn make(disk: &DiskFile) -> Result<(), LibvirtError> {
    let Some((base, format)) = &disk.base else { return Ok(()) };
    let failed = |why: String| LibvirtError::Overlay { path: disk.path.clone(), base: base.clone(), why };
    let mut create = Command::new(PROGRAM);
    create
        .args(["create", "-q", "-f", word(disk.format), "-F", word(*format), "-b"])
        .arg(base)
        .arg(&disk.path);
    let done = create.output().map_err(|e| failed(format!("{PROGRAM}: {e}")))?;
    if done.status.success() {
        return Ok(());
    }
    Err(failed(String::from_utf8_lossy(&done.stderr).trim().to_owned()))
}

/// QEMU's word for a format.
pub(crate) const fn word(format: ImageFormat) -> &'static str {
    match format {
        ImageFormat::Raw => "raw",
        ImageFormat::Qcow2 => "qcow2",
    }
}
