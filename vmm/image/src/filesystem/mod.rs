//! File systems: what a partition holds, by its first bytes; ext4 and FAT are read.

mod ext;
mod fat;

use std::fmt;
use std::io::{self, Read, Write};

use serde::{Deserialize, Serialize};

use crate::media::Window;

/// What a partition holds.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum FileSystemKind {
    /// ext2, ext3 or ext4.
    Ext4,
    /// FAT.
    Fat,
    /// XFS.
    Xfs,
    /// btrfs.
    Btrfs,
    /// A physical volume of LVM.
    Lvm,
    /// Encrypted with LUKS.
    Luks,
    /// Encrypted with BitLocker.
    BitLocker,
    /// NTFS: Windows.
    Ntfs,
    /// F2FS.
    F2fs,
    /// A member of a Linux RAID.
    Raid,
    /// ZFS.
    Zfs,
    /// SquashFS.
    SquashFs,
    /// EROFS.
    Erofs,
    /// A CD.
    Iso9660,
    /// Swap space.
    Swap,
    /// Nothing that is known.
    Unknown,
}

impl fmt::Display for FileSystemKind {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Ext4 => "ext4",
            Self::Fat => "FAT",
            Self::Xfs => "XFS",
            Self::Btrfs => "btrfs",
            Self::Lvm => "an LVM volume",
            Self::Luks => "LUKS encryption",
            Self::BitLocker => "BitLocker encryption",
            Self::Ntfs => "NTFS",
            Self::F2fs => "F2FS",
            Self::Raid => "a member of a RAID",
            Self::Zfs => "ZFS",
            Self::SquashFs => "SquashFS",
            Self::Erofs => "EROFS",
            Self::Iso9660 => "a CD (ISO 9660)",
            Self::Swap => "swap",
            Self::Unknown => "nothing known",
        })
    }
}

impl FileSystemKind {
    /// Whether a boot configuration may be in there that is not read.
    pub(crate) fn may_boot(self) -> bool {
        !matches!(self, Self::Ext4 | Self::Fat | Self::Swap | Self::Unknown)
    }

    /// By its marks.
    pub(crate) fn of(partition: &Window) -> Self {
        let marked = |(offset, mark, kind): &(u64, &[u8], Self)| {
            let mut bytes = vec![0; mark.len()];
            (partition.read_exact_at(&mut bytes, *offset).is_ok() && bytes == *mark).then_some(*kind)
        };
        MARKS.iter().find_map(marked).unwrap_or(Self::Unknown)
    }
}

/// Where each kind has its mark. FAT comes last: others keep code of boot loaders in their first sector, too.
const MARKS: [(u64, &[u8], FileSystemKind); 25] = [
    (0, b"LUKS\xba\xbe", FileSystemKind::Luks),
    (0, b"XFSB", FileSystemKind::Xfs),
    (0x1_0040, b"_BHRfS_M", FileSystemKind::Btrfs),
    (0x1000, b"\xfc\x4e\x2b\xa9", FileSystemKind::Raid),
    (0, b"\xfc\x4e\x2b\xa9", FileSystemKind::Raid),
    (512, b"LABELONE", FileSystemKind::Lvm),
    (0, b"LABELONE", FileSystemKind::Lvm),
    (1024, b"LABELONE", FileSystemKind::Lvm),
    (1536, b"LABELONE", FileSystemKind::Lvm),
    (3, b"-FVE-FS-", FileSystemKind::BitLocker),
    (3, b"NTFS    ", FileSystemKind::Ntfs),
    (1024, b"\x10\x20\xf5\xf2", FileSystemKind::F2fs),
    (1024, b"\xe2\xe1\xf5\xe0", FileSystemKind::Erofs),
    (0x438, b"\x53\xef", FileSystemKind::Ext4),
    (0, b"hsqs", FileSystemKind::SquashFs),
    (0x8001, b"CD001", FileSystemKind::Iso9660),
    (4086, b"SWAPSPACE2", FileSystemKind::Swap),
    (0x2_0000, b"\x0c\xb1\xba\0\0\0\0\0", FileSystemKind::Zfs),
    (0x2_0400, b"\x0c\xb1\xba\0\0\0\0\0", FileSystemKind::Zfs),
    (0x2_1000, b"\x0c\xb1\xba\0\0\0\0\0", FileSystemKind::Zfs),
    (82, b"FAT32   ", FileSystemKind::Fat),
    (54, b"FAT16   ", FileSystemKind::Fat),
    (54, b"FAT12   ", FileSystemKind::Fat),
    (54, b"FAT     ", FileSystemKind::Fat),
    (3, b"MSDOS5.0", FileSystemKind::Fat),
];

/// A file system that can be read. Paths start with `/`; links are followed.
pub(crate) trait Files {
    /// Its UUID, as Linux writes it.
    fn uuid(&self) -> String;

    /// Its label; empty without.
    fn label(&self) -> String;

    /// Copies a file of at most so many bytes; says how many it has.
    ///
    /// # Errors
    /// Why not; [`FileError::Absent`] where there is no such file.
    fn copy(&self, path: &str, most: u64, to: &mut dyn Write) -> Result<u64, FileError>;

    /// Bytes of a file.
    ///
    /// # Errors
    /// As [`Files::copy`].
    fn read(&self, path: &str, most: u64) -> Result<Vec<u8>, FileError> {
        let mut bytes = Vec::new();
        self.copy(path, most, &mut bytes)?;
        Ok(bytes)
    }

    /// Names in a folder, sorted.
    ///
    /// # Errors
    /// As [`Files::copy`].
    fn names(&self, path: &str) -> Result<Vec<String>, FileError>;

    /// Bytes of a file; `None` where there is no such file.
    fn size(&self, path: &str) -> Option<u64>;

    /// Whether there is a folder of that name.
    fn is_folder(&self, path: &str) -> bool {
        self.names(path).is_ok()
    }
}

/// Why a file was not read.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub(crate) enum FileError {
    /// There is none.
    #[error("there is no such file")]
    Absent,
    /// It is too large.
    #[error("its {size} bytes are more than the {most} that are read")]
    TooLarge {
        /// Bytes.
        size: u64,
        /// Most that are read.
        most: u64,
    },
    /// The file system is damaged, or has something that is not known.
    #[error("{0}")]
    Damaged(String),
}

/// Bytes of a file that are written at once.
const PIECE: usize = 256 << 10;

/// Copies what is in a file, in pieces: a kernel with its initrd may be larger than what this process may hold.
fn copy(from: impl Read, most: u64, to: &mut dyn Write) -> Result<u64, FileError> {
    let damaged = |e: io::Error| FileError::Damaged(e.to_string());
    let (mut from, mut piece, mut copied) = (from.take(most), Vec::with_capacity(PIECE), 0);
    loop {
        piece.clear();
        let count = from.by_ref().take(PIECE as u64).read_to_end(&mut piece).map_err(damaged)?;
        if count == 0 {
            return Ok(copied);
        }
        to.write_all(&piece).map_err(damaged)?;
        copied += count as u64;
    }
}

/// Opens a file system that can be read; `None` for another.
pub(crate) fn open(kind: FileSystemKind, partition: &Window) -> Option<Result<Box<dyn Files>, FileError>> {
    match kind {
        FileSystemKind::Ext4 => Some(ext::open(partition)),
        FileSystemKind::Fat => Some(fat::open(partition)),
        _ => None,
    }
}
