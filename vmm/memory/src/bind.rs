//! Binding a mapping to a NUMA node, and advising the kernel on it.

use std::io;

use libc::{c_int, c_long, c_ulong};

const MPOL_BIND: c_int = 2;
const MPOL_MF_STRICT: c_long = 1;
const MPOL_MF_MOVE: c_long = 2;
pub(crate) const MADV_POPULATE_WRITE: c_int = 23;

/// Binds `len` bytes at `start` to one node. Must come before the first touch.
///
/// The kernel reads one bit less than `maxnode` says (mm/mempolicy.c, `get_nodes`), so it
/// is given two more than the node.
pub(crate) fn to_node(start: *mut libc::c_void, len: usize, node: u32) -> io::Result<()> {
    let bits = c_ulong::BITS;
    let mut mask: Vec<c_ulong> = vec![0; (node / bits) as usize + 1];
    if let Some(word) = mask.last_mut() {
        *word |= 1 << (node % bits);
    }
    // SAFETY: mbind changes where the pages of an address range of ours will lie, never
    // their contents; the mask outlives the call and holds maxnode - 1 bits at least.
    let result = unsafe {
        libc::syscall(
            libc::SYS_mbind,
            start,
            len,
            MPOL_BIND,
            mask.as_ptr(),
            c_ulong::from(node) + 2,
            MPOL_MF_STRICT | MPOL_MF_MOVE,
        )
    };
    if result == 0 { Ok(()) } else { Err(io::Error::last_os_error()) }
}

/// Advises the kernel on a mapping of the guest's. Populating ([`MADV_POPULATE_WRITE`]) takes all pages
/// now: ENOMEM, or EFAULT for huge pages, where the node has not enough.
pub(crate) fn advise(start: *mut libc::c_void, len: usize, advice: c_int) -> io::Result<()> {
    // SAFETY: the callers pass ranges of private mappings that nobody reads yet, and advice that
    // does not change what they hold.
    let result = unsafe { libc::madvise(start, len, advice) };
    if result == 0 { Ok(()) } else { Err(io::Error::last_os_error()) }
}
