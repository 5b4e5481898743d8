//! Loads an x86_64 Linux kernel, its initrd and its command line into guest memory.
//!
//! Called by the machine's builder, and again at each reboot, on the emulator's thread. Files are
//! hostile: what is not a kernel is named, never believed.

#![forbid(unsafe_code)]

mod bzimage;
mod elf;
mod entry;
mod image;
mod initrd;
mod memory_map;
#[cfg(test)]
mod tests;

use std::fs::File;

use vm_memory::{Bytes, GuestAddress, GuestMemoryMmap};
use vmm_bus::Gpa;
use vmm_memory::layout;

pub use entry::{BootEntry, Protocol, SEGMENTS, Segment};
pub use image::Looks;
pub use memory_map::{Kind, MapEntry, memory_map};

/// What to boot.
#[derive(Debug)]
pub struct BootSource<'a> {
    /// A bzImage, or an ELF image with a PVH entry.
    pub kernel: &'a mut File,
    /// Initial RAM disk.
    pub initrd: Option<&'a mut File>,
    /// Kernel command line, without a final zero.
    pub command_line: &'a str,
}

/// Why a kernel was not loaded.
#[derive(Debug, thiserror::Error)]
pub enum BootError {
    /// The file is something else.
    #[error(
        "The kernel file is {0}: give a Linux kernel, either a bzImage (vmlinuz) or an ELF image with a PVH entry (vmlinux)"
    )]
    NotAKernel(Looks),
    /// A kernel, but not one that can be entered.
    #[error("The kernel cannot be entered: {0}")]
    Unsupported(&'static str),
    /// The file ends before the kernel does.
    #[error(
        "The kernel file is cut short: it has {has} bytes of {needed}; copy it again, and see that its file system is not full"
    )]
    KernelTruncated {
        /// Bytes in the file.
        has: u64,
        /// Bytes that its header promises, at least.
        needed: u64,
    },
    /// The kernel does not fit.
    #[error(
        "The kernel needs {needed} bytes of memory from {at}, which ends at {end}: give the guest more memory"
    )]
    KernelTooLarge {
        /// Where it would be loaded.
        at: Gpa,
        /// Bytes it needs there.
        needed: u64,
        /// End of the guest's memory below 3 GiB.
        end: Gpa,
    },
    /// The initrd does not fit.
    #[error(
        "The initrd of {bytes} bytes does not fit between the kernel, which ends at {from}, and {end}: give the guest more memory"
    )]
    InitrdTooLarge {
        /// Its length.
        bytes: u64,
        /// End of the kernel.
        from: Gpa,
        /// End of the memory it may lie in.
        end: Gpa,
    },
    /// The initrd is empty.
    #[error("The initrd file is empty")]
    EmptyInitrd,
    /// The command line is too long.
    #[error("The kernel command line has {bytes} bytes; this kernel takes {most}")]
    CommandLineTooLong {
        /// Its length.
        bytes: u64,
        /// Most that the kernel takes.
        most: u64,
    },
    /// The command line holds a zero.
    #[error("The kernel command line holds a zero byte")]
    CommandLineZero,
    /// A file could not be read.
    #[error("Cannot read the {what} file")]
    Read {
        /// `kernel` or `initrd`.
        what: &'static str,
        /// From the operating system.
        #[source]
        source: std::io::Error,
    },
    /// Guest memory could not be written.
    #[error("Cannot write the {what} to guest memory")]
    Write {
        /// What.
        what: &'static str,
        /// Why.
        #[source]
        source: vm_memory::GuestMemoryError,
    },
}

/// Loads a kernel and says how to enter it.
///
/// The order matters: the kernel decides where the initrd may lie, and both decide what the
/// boot structures say.
/// 1. The kernel goes where it prefers to be, or as low as possible.
/// 2. The initrd goes to the top of low memory, beyond what the kernel needs to unpack itself.
/// 3. The command line and the boot structures go below 1 MiB.
///
/// # Errors
/// [`BootError`]; guest memory may have been written to.
pub fn load(memory: &GuestMemoryMmap, source: BootSource<'_>, rsdp: Gpa) -> Result<BootEntry, BootError> {
    let map = memory_map(memory);
    let low_end = memory_map::low_ram_end(memory);
    let image = image::Image::open(source.kernel)?;
    let kernel = match image {
        image::Image::BzImage(header) => bzimage::load(memory, source.kernel, &header, low_end)?,
        image::Image::Elf => elf::load(memory, source.kernel, low_end)?,
    };
    let initrd = source.initrd.map(|file| initrd::load(memory, file, &kernel, low_end)).transpose()?;
    command_line(memory, source.command_line, kernel.command_line_max)?;
    let setup = entry::Setup { initrd, command_line: source.command_line.len(), map: &map, rsdp };
    match kernel.start {
        entry::Start::Linux64 { header } => entry::linux64(memory, &kernel.range, header.as_ref(), &setup),
        entry::Start::Pvh { address } => entry::pvh(memory, address, &setup),
    }
}

fn command_line(memory: &GuestMemoryMmap, text: &str, most: u64) -> Result<(), BootError> {
    let bytes = text.len() as u64;
    let most = most.min(layout::COMMAND_LINE_MAX - 1);
    if bytes > most {
        return Err(BootError::CommandLineTooLong { bytes, most });
    }
    if text.contains('\0') {
        return Err(BootError::CommandLineZero);
    }
    let write = |bytes: &[u8], at: Gpa| {
        memory
            .write_slice(bytes, GuestAddress(at.0))
            .map_err(|source| BootError::Write { what: "command line", source })
    };
    write(text.as_bytes(), layout::COMMAND_LINE)?;
    write(&[0], Gpa(layout::COMMAND_LINE.0 + bytes))
}
