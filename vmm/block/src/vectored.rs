//! preadv(2) and pwritev(2) straight into and out of guest memory.
//!
//! The only unsafe code of this crate: the safe wrappers of these calls want Rust slices, and
//! guest memory, which the guest changes at any time, must never be one.

#![expect(unsafe_code, reason = "guest memory may not be borrowed as Rust slices")]

use std::fs::File;
use std::io;
use std::os::fd::AsRawFd;

use vm_memory::VolatileSlice;

/// The kernel takes this many buffers in one call.
const MAX_BUFFERS: usize = 1024;

/// How far a read came.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Transfer {
    Complete,
    /// The file ended after so many bytes.
    EndOfFile(u64),
}

#[derive(Clone, Copy)]
enum Direction {
    Read,
    Write,
}

pub(crate) fn read_exact(file: &File, to: &[VolatileSlice<'_>], offset: u64) -> io::Result<Transfer> {
    transfer(file, to, offset, Direction::Read)
}

pub(crate) fn write_all(file: &File, from: &[VolatileSlice<'_>], offset: u64) -> io::Result<()> {
    match transfer(file, from, offset, Direction::Write)? {
        Transfer::Complete => Ok(()),
        Transfer::EndOfFile(_) => Err(io::ErrorKind::WriteZero.into()),
    }
}

fn transfer(
    file: &File,
    slices: &[VolatileSlice<'_>],
    offset: u64,
    direction: Direction,
) -> io::Result<Transfer> {
    let mut done = 0;
    for batch in slices.chunks(MAX_BUFFERS) {
        let mut left: Vec<VolatileSlice<'_>> =
            batch.iter().filter(|slice| !slice.is_empty()).copied().collect();
        while !left.is_empty() {
            let at = offset.checked_add(done).and_then(|at| i64::try_from(at).ok());
            let at = at.ok_or_else(|| io::Error::from(io::ErrorKind::InvalidInput))?;
            match call(file, &left, at, direction) {
                Ok(0) => return Ok(Transfer::EndOfFile(done)),
                Ok(moved) => {
                    done += moved as u64;
                    advance(&mut left, moved);
                }
                Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
                Err(error) => return Err(error),
            }
        }
    }
    Ok(Transfer::Complete)
}

/// Drops the first `moved` bytes.
fn advance(left: &mut Vec<VolatileSlice<'_>>, mut moved: usize) {
    let whole = left
        .iter()
        .take_while(|slice| {
            let consumed = slice.len() <= moved;
            moved -= if consumed { slice.len() } else { 0 };
            consumed
        })
        .count();
    left.drain(..whole);
    if let Some(first) = left.first_mut()
        && let Ok(rest) = first.offset(moved)
    {
        *first = rest;
    }
}

fn call(file: &File, slices: &[VolatileSlice<'_>], at: i64, direction: Direction) -> io::Result<usize> {
    let guards: Vec<_> = slices.iter().map(VolatileSlice::ptr_guard_mut).collect();
    let buffers: Vec<libc::iovec> = guards
        .iter()
        .map(|guard| libc::iovec { iov_base: guard.as_ptr().cast(), iov_len: guard.len() })
        .collect();
    let count = libc::c_int::try_from(buffers.len()).map_err(|_| io::ErrorKind::InvalidInput)?;
    let (fd, first) = (file.as_raw_fd(), buffers.as_ptr());
    let moved = match direction {
        // SAFETY: `first` points to `count` buffers, each valid for writes of its length for as
        // long as `guards` lives. The memory is volatile guest memory: no Rust reference to it
        // exists, so the kernel may change it. The descriptor is open.
        Direction::Read => unsafe { libc::preadv(fd, first, count, at) },
        // SAFETY: as above; the kernel only reads from the buffers.
        Direction::Write => unsafe { libc::pwritev(fd, first, count, at) },
    };
    drop(guards);
    usize::try_from(moved).map_err(|_| io::Error::last_os_error())
}
