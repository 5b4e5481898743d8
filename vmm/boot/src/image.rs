//! What a kernel file is: a bzImage, an ELF image, or something else that is named.

use std::fmt;
use std::fs::File;
use std::io::{Read, Seek, SeekFrom};

use linux_loader::loader::bootparam::setup_header;
use vm_memory::ByteValued;

use crate::BootError;

/// Offset of the setup header (Documentation/arch/x86/boot.rst).
const SETUP_HEADER: usize = 0x1f1;
const MAGIC: u32 = 0x5372_6448;
/// Bytes that are enough to tell.
const HEAD: usize = 1024;

/// A kernel file that may be loaded.
#[derive(Debug)]
pub(crate) enum Image {
    BzImage(Box<setup_header>),
    Elf,
}

/// What a file looks like that is no kernel.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Looks {
    /// No bytes.
    Empty,
    /// Ends before a kernel's header does.
    Truncated,
    /// An ELF image for another machine or of 32 bits.
    ForeignElf,
    /// A kernel for 64-bit Arm.
    Arm64,
    /// Compressed; the name of the format.
    Compressed(&'static str),
    /// A disk image; the name of the format.
    Disk(&'static str),
    /// Text.
    Text,
    /// None of these.
    Unknown,
}

impl fmt::Display for Looks {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Empty => f.write_str("empty"),
            Self::Truncated => f.write_str("too short: it ends inside the kernel's header"),
            Self::ForeignElf => f.write_str("an ELF image that is not for x86_64"),
            Self::Arm64 => f.write_str("a kernel for 64-bit Arm"),
            Self::Compressed(format) => write!(f, "compressed with {format}"),
            Self::Disk(format) => write!(f, "a disk image ({format})"),
            Self::Text => f.write_str("text"),
            Self::Unknown => f.write_str("no kernel"),
        }
    }
}

impl Image {
    /// Looks at the beginning of a file.
    pub(crate) fn open(file: &mut File) -> Result<Self, BootError> {
        let mut head = Vec::with_capacity(HEAD);
        file.seek(SeekFrom::Start(0))
            .and_then(|_| file.by_ref().take(HEAD as u64).read_to_end(&mut head))
            .map_err(|source| BootError::Read { what: "kernel", source })?;
        Self::recognise(&head).map_err(BootError::NotAKernel)
    }

    fn recognise(head: &[u8]) -> Result<Self, Looks> {
        if head.starts_with(b"\x7fELF") {
            // 64-bit, little endian, machine EM_X86_64.
            let native = head.get(4..6) == Some(&[2, 1]) && head.get(18..20) == Some(&[62, 0]);
            return if native { Ok(Self::Elf) } else { Err(Looks::ForeignElf) };
        }
        let mut header = setup_header::default();
        let len = std::mem::size_of::<setup_header>();
        match head.get(SETUP_HEADER..SETUP_HEADER + len) {
            Some(bytes) => header.as_mut_slice().copy_from_slice(bytes),
            None => return Err(Looks::of_short(head)),
        }
        if header.header == MAGIC { Ok(Self::BzImage(Box::new(header))) } else { Err(Looks::of(head)) }
    }
}

impl Looks {
    fn of_short(head: &[u8]) -> Self {
        match Self::of(head) {
            _ if head.is_empty() => Self::Empty,
            Self::Unknown => Self::Truncated,
            looks => looks,
        }
    }

    fn of(head: &[u8]) -> Self {
        let magics: [(&[u8], Self); 7] = [
            (b"\x1f\x8b", Self::Compressed("gzip")),
            (b"\xfd7zXZ\0", Self::Compressed("xz")),
            (b"BZh", Self::Compressed("bzip2")),
            (b"\x28\xb5\x2f\xfd", Self::Compressed("zstd")),
            (b"\x02\x21\x4c\x18", Self::Compressed("lz4")),
            (b"QFI\xfb", Self::Disk("qcow2")),
            (b"KDMV", Self::Disk("vmdk")),
        ];
        if let Some((_, looks)) = magics.iter().find(|(magic, _)| head.starts_with(magic)) {
            return *looks;
        }
        if head.get(56..60) == Some(b"ARM\x64") {
            return Self::Arm64;
        }
        let printable = |b: &u8| b.is_ascii_graphic() || b.is_ascii_whitespace() || *b >= 0x80;
        if !head.is_empty() && head.iter().all(printable) { Self::Text } else { Self::Unknown }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn looks(head: &[u8]) -> Looks {
        Image::recognise(head).unwrap_err()
    }

    #[test]
    fn what_is_no_kernel_is_named() {
        assert_eq!(looks(b""), Looks::Empty);
        assert_eq!(looks(&[0; 100]), Looks::Truncated);
        assert_eq!(looks(&[0; 1024]), Looks::Unknown);
        assert_eq!(looks(b"apiVersion: v1\n"), Looks::Text);
        assert_eq!(looks(b"\x1f\x8b\x08\0\0\0"), Looks::Compressed("gzip"));
        assert_eq!(looks(b"QFI\xfb\0\0\0\x03"), Looks::Disk("qcow2"));
        assert_eq!(looks(b"\x7fELF\x01\x01\x01"), Looks::ForeignElf);
        let mut arm = [0; 1024];
        arm[56..60].copy_from_slice(b"ARM\x64");
        assert_eq!(looks(&arm), Looks::Arm64);
    }

    #[test]
    fn kernels_are_recognised() {
        let mut bzimage = [0; 1024];
        bzimage[0x202..0x206].copy_from_slice(b"HdrS");
        assert!(matches!(Image::recognise(&bzimage), Ok(Image::BzImage(_))));
        let mut elf = *b"\x7fELF\x02\x01\x01\0\0\0\0\0\0\0\0\0\x02\0\x3e\0";
        assert!(matches!(Image::recognise(&elf), Ok(Image::Elf)));
        elf[18] = 0xb7;
        assert_eq!(looks(&elf), Looks::ForeignElf);
    }
}
