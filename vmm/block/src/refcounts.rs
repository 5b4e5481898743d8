//! Looks over the refcount table of a qcow2 image before it is opened for writing.
//!
//! The table lists the blocks that count the uses of the image's clusters. Without its first
//! entry, or with a gap, the qcow2 crate may look for a free cluster without end, so that such
//! an image, which no tool makes, is refused. A guest cannot make one: it does not reach the tables.

use std::fs::File;
use std::io;
use std::os::unix::fs::FileExt;

/// Offsets in the header.
const VERSION: u64 = 4;
const CLUSTER_BITS: u64 = 20;
const TABLE_OFFSET: u64 = 48;
const TABLE_CLUSTERS: u64 = 56;
/// Bytes of the table that are looked at in one go, and at most: images of petabytes.
const CHUNK: usize = 64 * 1024;
const MAX_TABLE: u64 = 64 << 20;

/// # Errors
/// `InvalidData` with the reason when the table has a gap, is too large or is cut short.
pub(crate) fn check(file: &File) -> io::Result<()> {
    if !matches!(dword(file, VERSION)?, 2 | 3) {
        // Not an image at all: opening it says what it is.
        return Ok(());
    }
    let cluster_bits = dword(file, CLUSTER_BITS)?;
    if !(9..=21).contains(&cluster_bits) {
        return Ok(());
    }
    let len = u64::from(dword(file, TABLE_CLUSTERS)?) << cluster_bits;
    if len > MAX_TABLE {
        return Err(bad("its refcount table is too large"));
    }
    let mut offset = u64::from_be_bytes(read(file, TABLE_OFFSET)?);
    let end = offset.checked_add(len).ok_or_else(|| bad("its refcount table lies nowhere"))?;
    let (mut any, mut gap, mut bytes) = (false, false, vec![0; CHUNK]);
    while offset < end {
        let count = usize::try_from(end - offset).unwrap_or(CHUNK).min(CHUNK);
        let chunk = bytes.get_mut(..count).unwrap_or_default();
        file.read_exact_at(chunk, offset).map_err(|_| bad("its refcount table is cut short"))?;
        for entry in chunk.chunks_exact(8) {
            // The low bits are reserved.
            let empty = entry.iter().take(7).all(|&byte| byte == 0);
            if empty && !any || gap && !empty {
                return Err(bad("its refcount table has a gap; repair it with `qemu-img check -r all`"));
            }
            gap |= empty;
            any = true;
        }
        offset += count as u64;
    }
    if any { Ok(()) } else { Err(bad("it has no refcount table")) }
}

fn bad(reason: &'static str) -> io::Error {
    io::Error::new(io::ErrorKind::InvalidData, reason)
}

fn dword(file: &File, at: u64) -> io::Result<u32> {
    read(file, at).map(u32::from_be_bytes)
}

fn read<const N: usize>(file: &File, at: u64) -> io::Result<[u8; N]> {
    let mut bytes = [0; N];
    file.read_exact_at(&mut bytes, at)?;
    Ok(bytes)
}
