//! Binding a mapping to a NUMA node, and populating it.

use std::io;

use libc::{c_int, c_long, c_ulong};

const MPOL_BIND: c_int = 2;
const MPOL_MF_STRICT: c_long = 1;
const MPOL_MF_MOVE: c_long = 2;
const MADV_POPULATE_WRITE: c_int = 23;

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

/// Makes the kernel take all pages of the range now, by writing zeroes; ENOMEM (or EFAULT for
/// hugetlb) where the node has not enough.
pub(crate) fn populate(start: *mut libc::c_void, len: usize) -> io::Result<()> {
    // SAFETY: the range is a private mapping of ours that nobody reads yet, and populating
    // does not change what it holds.
    let result = unsafe { libc::madvise(start, len, MADV_POPULATE_WRITE) };
    if result == 0 { Ok(()) } else { Err(io::Error::last_os_error()) }
}
