//! Which format an image has.
//!
//! A guest writes what it likes into a raw disk, also the first bytes of a qcow2 header that
//! names `/etc/shadow` as its backing file. So the name decides, never the content of
//! something a guest may have written:
//! 1. A format that the caller states is taken.
//! 2. `.qcow2` and `.qcow` are qcow2; `.raw` and `.iso` are raw.
//! 3. Any other name is raw. If it begins like qcow2 it is refused when writable, and taken
//!    as qcow2 without backing file when read-only.

use std::fs::File;
use std::os::unix::fs::FileExt;
use std::path::Path;

use crate::Access;

/// The formats.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum ImageFormat {
    /// The disk's bytes and nothing else.
    Raw,
    /// QEMU's copy-on-write format, version 2 or 3.
    Qcow2,
}

impl ImageFormat {
    /// What an image is by its content: for one that no guest has ever written. One that cannot be read is raw.
    #[must_use]
    pub fn of_content(image: &File) -> Self {
        if first_bytes(image).starts_with(&MAGIC) { Self::Qcow2 } else { Self::Raw }
    }
}

/// Empty when they cannot be read: then opening says why.
pub(crate) fn first_bytes(image: &File) -> Vec<u8> {
    let mut first = vec![0; MAGIC.len()];
    match image.read_exact_at(&mut first, 0) {
        Ok(()) => first,
        Err(_) => Vec::new(),
    }
}

const MAGIC: [u8; 4] = *b"QFI\xfb";

/// What name and content of an image say.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Verdict {
    Is(ImageFormat),
    /// By its first bytes only.
    LooksLikeQcow2,
    Ambiguous,
}

pub(crate) fn judge(path: &Path, first: &[u8], access: Access) -> Verdict {
    let extension = path.extension().and_then(|extension| extension.to_str()).unwrap_or_default();
    match extension.to_ascii_lowercase().as_str() {
        "qcow2" | "qcow" => Verdict::Is(ImageFormat::Qcow2),
        "raw" | "iso" => Verdict::Is(ImageFormat::Raw),
        _ if !first.starts_with(&MAGIC) => Verdict::Is(ImageFormat::Raw),
        _ => match access {
            Access::ReadOnly => Verdict::LooksLikeQcow2,
            Access::ReadWrite => Verdict::Ambiguous,
        },
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_name_decides_before_the_content() {
        let judged = |name: &str, first: &[u8], access| judge(Path::new(name), first, access);
        let qcow2 = Verdict::Is(ImageFormat::Qcow2);
        let raw = Verdict::Is(ImageFormat::Raw);
        assert_eq!(judged("a.qcow2", b"", Access::ReadWrite), qcow2);
        assert_eq!(judged("a.QCOW2", b"", Access::ReadWrite), qcow2);
        assert_eq!(judged("a.raw", &MAGIC, Access::ReadWrite), raw);
        assert_eq!(judged("a.img", b"\x55\xaa", Access::ReadWrite), raw);
        assert_eq!(judged("disk", b"", Access::ReadOnly), raw);
    }

    #[test]
    fn a_writable_image_is_never_qcow2_by_content() {
        assert_eq!(judge(Path::new("a.img"), &MAGIC, Access::ReadWrite), Verdict::Ambiguous);
        assert_eq!(judge(Path::new("a.img"), &MAGIC, Access::ReadOnly), Verdict::LooksLikeQcow2);
    }
}
