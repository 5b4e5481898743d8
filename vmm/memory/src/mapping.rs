//! One anonymous mapping of this process, and its end.

use std::io;
use std::ptr::{self, NonNull};

use vmm_bus::Hva;

use crate::bind;

const BASE_PAGE: u64 = 4096;
/// Bytes that one thread populates, at least: less is not worth a thread.
const SHARE: u64 = 64 << 20;

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

/// An anonymous private mapping, all pages present.
#[derive(Debug)]
pub(crate) struct Mapping {
    start: NonNull<libc::c_void>,
    len: usize,
}

// SAFETY: the mapping is plain memory, owned by this value alone; moving it to another thread
// does not change that.
unsafe impl Send for Mapping {}
// SAFETY: shared references give out the address and length only.
unsafe impl Sync for Mapping {}

impl Mapping {
    /// Maps, binds and populates, in this order: a page that was touched before it was bound
    /// would lie on the node of the thread that touched it.
    pub(crate) fn new(bytes: u64, page_size: u64, node: Option<u32>) -> Result<Self, MappingError> {
        let bad_size = MappingError::Size { bytes, page_size };
        let Ok(len) = usize::try_from(bytes) else { return Err(bad_size) };
        if bytes == 0 || !page_size.is_power_of_two() || !bytes.is_multiple_of(page_size) {
            return Err(bad_size);
        }
        let mapping =
            Self::map(len, page_size).map_err(|source| MappingError::Map { bytes, page_size, source })?;
        if let Some(node) = node {
            bind::to_node(mapping.start.as_ptr(), len, node)
                .map_err(|source| MappingError::Bind { node, source })?;
        }
        mapping.populate(page_size).map_err(|source| MappingError::Populate {
            bytes,
            page_size,
            node,
            source,
        })?;
        Ok(mapping)
    }

    /// Where it starts in this process.
    pub(crate) fn start(&self) -> Hva {
        Hva(self.start.as_ptr() as u64)
    }

    /// Its length, bytes.
    pub(crate) fn len(&self) -> usize {
        self.len
    }

    fn map(len: usize, page_size: u64) -> io::Result<Self> {
        let mut flags = libc::MAP_PRIVATE | libc::MAP_ANONYMOUS;
        if page_size > BASE_PAGE {
            let shift = libc::c_int::try_from(page_size.trailing_zeros()).unwrap_or(0);
            flags |= libc::MAP_HUGETLB | (shift << libc::MAP_HUGE_SHIFT);
        } else {
            flags |= libc::MAP_NORESERVE;
        }
        // SAFETY: an anonymous mapping at an address of the kernel's choice overlaps nothing.
        let start =
            unsafe { libc::mmap(ptr::null_mut(), len, libc::PROT_READ | libc::PROT_WRITE, flags, -1, 0) };
        if start == libc::MAP_FAILED {
            return Err(io::Error::last_os_error());
        }
        let start = NonNull::new(start).ok_or_else(|| io::Error::other("mapped at address zero"))?;
        let mapping = Self { start, len };
        mapping.advise(libc::MADV_DONTDUMP)?;
        if page_size <= BASE_PAGE {
            // Transparent huge pages are left to the kernel's setting; pages shared with
            // other processes are not: a write to one would stall a vCPU.
            match mapping.advise(libc::MADV_UNMERGEABLE) {
                Err(e) if e.raw_os_error() != Some(libc::EINVAL) => return Err(e),
                _ => {}
            }
        }
        Ok(mapping)
    }

    fn advise(&self, advice: libc::c_int) -> io::Result<()> {
        // SAFETY: the range is this mapping, and the advice given here does not change what it holds.
        let result = unsafe { libc::madvise(self.start.as_ptr(), self.len, advice) };
        if result == 0 { Ok(()) } else { Err(io::Error::last_os_error()) }
    }

    fn populate(&self, page_size: u64) -> io::Result<()> {
        let threads = std::thread::available_parallelism().map_or(1, usize::from).min(16);
        let share = (self.len / threads).max(usize::try_from(SHARE.max(page_size)).unwrap_or(usize::MAX));
        let page = usize::try_from(page_size).unwrap_or(usize::MAX);
        let share = share.checked_next_multiple_of(page).unwrap_or(self.len);
        let base = self.start.as_ptr() as usize;
        let parts: Vec<_> =
            (0..self.len).step_by(share).map(|o| (base + o, share.min(self.len - o))).collect();
        if let [(start, len)] = parts.as_slice() {
            return bind::populate(*start as *mut libc::c_void, *len);
        }
        std::thread::scope(|scope| {
            let workers: Vec<_> = parts
                .iter()
                .map(|&(start, len)| scope.spawn(move || bind::populate(start as *mut libc::c_void, len)))
                .collect();
            workers.into_iter().try_for_each(|w| {
                w.join().unwrap_or_else(|_| Err(io::Error::other("the populating thread died")))
            })
        })
    }
}

impl Drop for Mapping {
    fn drop(&mut self) {
        // SAFETY: the range is this mapping, which nobody can reach any more.
        unsafe { libc::munmap(self.start.as_ptr(), self.len) };
    }
}
