//! One anonymous mapping of this process: mapped, bound, populated.

use std::io;
use std::thread::Builder;

use vm_memory::MmapRegion;

use crate::bind;

const BASE_PAGE: u64 = 4096;
/// Bytes that one thread populates, at least: less is not worth a thread.
const SHARE: u64 = 64 << 20;
/// Stack of a thread that populates, bytes.
const WORKER_STACK: usize = 64 << 10;

/// Why memory of the host could not be had.
#[derive(Debug, thiserror::Error)]
pub enum MappingError {
    /// Not a size that fits this process, or not a multiple of the page.
    #[error("{bytes} bytes are not a positive multiple of {page_size}-byte pages")]
    Size {
        /// Bytes.
        bytes: u64,
        /// Page size.
        page_size: u64,
    },
    /// The kernel refused the mapping.
    #[error(
        "Cannot map {bytes} bytes in {page_size}-byte pages: for huge pages, fill the host's pool of that size"
    )]
    Map {
        /// Bytes.
        bytes: u64,
        /// Page size.
        page_size: u64,
        /// From the kernel.
        source: io::Error,
    },
    /// The kernel refused the node.
    #[error(
        "Cannot bind memory to host NUMA node {node}: is it online, and allowed by this process's cpuset.mems?"
    )]
    Bind {
        /// Host node.
        node: u32,
        /// From the kernel.
        source: io::Error,
    },
    /// Linux before 5.14.
    #[error("This host's kernel cannot populate a guest's memory ahead: it needs Linux 5.14 or newer")]
    OldKernel,
    /// The pages are not there.
    #[error("Cannot populate {bytes} bytes in {page_size}-byte pages{}: free memory there, or fill its pool of huge pages", on_node(*node))]
    Populate {
        /// Bytes.
        bytes: u64,
        /// Page size.
        page_size: u64,
        /// Host node, where bound to one.
        node: Option<u32>,
        /// From the kernel.
        source: io::Error,
    },
}

fn on_node(node: Option<u32>) -> String {
    node.map(|n| format!(" on host NUMA node {n}")).unwrap_or_default()
}

/// Maps, binds and populates, in this order: a page that was touched before it was bound
/// would lie on the node of the thread that touched it. The region unmaps itself.
pub(crate) fn map(bytes: u64, page_size: u64, node: Option<u32>) -> Result<MmapRegion, MappingError> {
    let bad_size = MappingError::Size { bytes, page_size };
    let Ok(len) = usize::try_from(bytes) else { return Err(bad_size) };
    if bytes == 0 || !page_size.is_power_of_two() || !bytes.is_multiple_of(page_size) {
        return Err(bad_size);
    }
    let failed = |source| MappingError::Map { bytes, page_size, source };
    let region = MmapRegion::build(None, len, libc::PROT_READ | libc::PROT_WRITE, flags(page_size))
        .map_err(|e| failed(of_region(e)))?;
    advise(&region, page_size).map_err(failed)?;
    let start = region.as_ptr().cast();
    if let Some(node) = node {
        bind::to_node(start, len, node).map_err(|source| MappingError::Bind { node, source })?;
    }
    populate(start as usize, len, page_size).map_err(|source| match source.raw_os_error() {
        Some(libc::EINVAL) => MappingError::OldKernel,
        _ => MappingError::Populate { bytes, page_size, node, source },
    })?;
    Ok(region)
}

fn flags(page_size: u64) -> libc::c_int {
    let flags = libc::MAP_PRIVATE | libc::MAP_ANONYMOUS;
    if page_size > BASE_PAGE {
        let shift = libc::c_int::try_from(page_size.trailing_zeros()).unwrap_or(0);
        flags | libc::MAP_HUGETLB | (shift << libc::MAP_HUGE_SHIFT)
    } else {
        flags | libc::MAP_NORESERVE
    }
}

fn of_region(error: vm_memory::mmap::MmapRegionError) -> io::Error {
    match error {
        vm_memory::mmap::MmapRegionError::Mmap(error) => error,
        other => io::Error::other(other),
    }
}

fn advise(region: &MmapRegion, page_size: u64) -> io::Result<()> {
    let (start, len) = (region.as_ptr().cast(), region.size());
    bind::advise(start, len, libc::MADV_DONTDUMP)?;
    if page_size > BASE_PAGE {
        return Ok(());
    }
    // Transparent huge pages are left to the host's setting. Merging is not: a write to a page
    // that is shared with another process would stall a vCPU. EINVAL: the kernel has no merging.
    match bind::advise(start, len, libc::MADV_UNMERGEABLE) {
        Err(e) if e.raw_os_error() != Some(libc::EINVAL) => Err(e),
        _ => Ok(()),
    }
}

fn populate(base: usize, len: usize, page_size: u64) -> io::Result<()> {
    let threads = std::thread::available_parallelism().map_or(1, usize::from).min(16);
    let share = (len / threads).max(usize::try_from(SHARE.max(page_size)).unwrap_or(usize::MAX));
    let page = usize::try_from(page_size).unwrap_or(usize::MAX);
    let share = share.checked_next_multiple_of(page).unwrap_or(len);
    let parts: Vec<_> = (0..len).step_by(share).map(|o| (base + o, share.min(len - o))).collect();
    if let [(start, len)] = parts.as_slice() {
        return bind::advise(*start as *mut libc::c_void, *len, bind::MADV_POPULATE_WRITE);
    }
    let part = |start: usize, len| bind::advise(start as *mut libc::c_void, len, bind::MADV_POPULATE_WRITE);
    std::thread::scope(|scope| {
        // Their stacks are small: libc keeps them for later, and locked memory holds what it keeps.
        let start = |&(at, len): &(usize, usize)| {
            Builder::new().stack_size(WORKER_STACK).spawn_scoped(scope, move || part(at, len))
        };
        let workers: Vec<_> = parts.iter().map(start).collect();
        workers.into_iter().try_for_each(|w| {
            w?.join().unwrap_or_else(|_| Err(io::Error::other("the populating thread died")))
        })
    })
}
