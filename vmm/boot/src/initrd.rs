//! The initrd: at the top of low memory, page aligned, beyond the kernel.

use std::fs::File;
use std::io::{Seek, SeekFrom};

use vm_memory::{Bytes, GuestAddress, GuestMemoryMmap};
use vmm_bus::Gpa;

use crate::BootError;
use crate::entry::{Kernel, Range};

const PAGE: u64 = 4096;

/// Loads it whole.
pub(crate) fn load(
    memory: &GuestMemoryMmap,
    file: &mut File,
    kernel: &Kernel,
    low_end: Gpa,
) -> Result<Range, BootError> {
    let read = |source| BootError::Read { what: "initrd", source };
    let bytes = file.seek(SeekFrom::End(0)).map_err(read)?;
    file.seek(SeekFrom::Start(0)).map_err(read)?;
    if bytes == 0 {
        return Err(BootError::EmptyInitrd);
    }
    let end = low_end.min(kernel.initrd_ceiling);
    let too_large = BootError::InitrdTooLarge { bytes, from: kernel.range.end, end };
    let start = end.0.checked_sub(bytes).map(|s| s & !(PAGE - 1)).filter(|s| *s >= kernel.range.end.0);
    let (Some(start), Ok(count)) = (start, usize::try_from(bytes)) else { return Err(too_large) };
    memory
        .read_exact_volatile_from(GuestAddress(start), file, count)
        .map_err(|source| BootError::Write { what: "initrd", source })?;
    Ok(Range { start: Gpa(start), end: Gpa(start + bytes) })
}
