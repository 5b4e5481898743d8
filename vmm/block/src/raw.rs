//! Raw images and block devices.

use std::fs::File;
use std::io::{self, Seek, SeekFrom};
use std::os::unix::fs::FileExt;

use nix::errno::Errno;
use nix::fcntl::{FallocateFlags, fallocate};
use vm_memory::VolatileSlice;

use crate::vectored::{Transfer, read_exact, write_all};
use crate::{Access, Disk, DiskError, OpenError, SECTOR, Space};

/// Written in one go when the file system cannot make zeroes itself.
static ZEROES: [u8; 64 * 1024] = [0; 64 * 1024];

#[derive(Debug)]
pub(crate) struct RawDisk {
    file: File,
    name: String,
    access: Access,
    /// Bytes of the file when it was opened; the last sector may be a part of one.
    len: u64,
    capacity: u64,
}

impl RawDisk {
    pub(crate) fn new(mut file: File, name: String, access: Access) -> Result<Self, OpenError> {
        let len = match file.seek(SeekFrom::End(0)) {
            Ok(len) => len,
            Err(source) => return Err(OpenError::Open { name, access, source }),
        };
        let Some(capacity) = len.checked_next_multiple_of(SECTOR).filter(|&capacity| capacity > 0) else {
            return Err(OpenError::Empty { name });
        };
        Ok(Self { file, name, access, len, capacity })
    }

    fn check(&self, action: &'static str, offset: u64, len: u64) -> Result<(), DiskError> {
        match offset.checked_add(len) {
            Some(end) if end <= self.capacity => Ok(()),
            _ => Err(DiskError::out_of_range(action, &self.name)),
        }
    }

    fn check_write(&self, action: &'static str, offset: u64, len: u64) -> Result<(), DiskError> {
        if self.access == Access::ReadOnly {
            return Err(self.fault(action, io::ErrorKind::Unsupported.into()));
        }
        self.check(action, offset, len)
    }

    fn fault(&self, action: &'static str, error: io::Error) -> DiskError {
        DiskError::new(action, &self.name, error)
    }

    fn allocate(&self, mode: FallocateFlags, offset: u64, len: u64) -> io::Result<()> {
        let off = |value: u64| i64::try_from(value).map_err(|_| io::Error::from(io::ErrorKind::InvalidInput));
        let (offset, len) = (off(offset)?, off(len)?);
        loop {
            match fallocate(&self.file, mode | FallocateFlags::FALLOC_FL_KEEP_SIZE, offset, len) {
                Err(Errno::EINTR) => {}
                result => return result.map_err(io::Error::from),
            }
        }
    }

    /// Zeroes by writing them.
    fn overwrite(&self, mut offset: u64, mut len: u64) -> io::Result<()> {
        while len > 0 {
            let chunk = usize::try_from(len).unwrap_or(usize::MAX).min(ZEROES.len());
            self.file.write_all_at(ZEROES.get(..chunk).unwrap_or_default(), offset)?;
            (offset, len) = (offset + chunk as u64, len - chunk as u64);
        }
        Ok(())
    }
}

fn unsupported(error: &io::Error) -> bool {
    error.kind() == io::ErrorKind::Unsupported
}

impl Disk for RawDisk {
    fn name(&self) -> &str {
        &self.name
    }

    fn capacity(&self) -> u64 {
        self.capacity
    }

    fn access(&self) -> Access {
        self.access
    }

    fn read(&mut self, to: &[VolatileSlice<'_>], offset: u64) -> Result<(), DiskError> {
        let len = bytes(to);
        self.check("read", offset, len)?;
        match read_exact(&self.file, to, offset).map_err(|error| self.fault("read", error))? {
            Transfer::Complete => Ok(()),
            // The part of the last sector that the file lacks reads as zeroes.
            Transfer::EndOfFile(read) if offset + read >= self.len => {
                fill_zero(to, read);
                Ok(())
            }
            Transfer::EndOfFile(_) => Err(self.fault("read", io::ErrorKind::UnexpectedEof.into())),
        }
    }

    fn write(&mut self, from: &[VolatileSlice<'_>], offset: u64) -> Result<(), DiskError> {
        self.check_write("write to", offset, bytes(from))?;
        write_all(&self.file, from, offset).map_err(|error| self.fault("write to", error))
    }

    fn flush(&mut self) -> Result<(), DiskError> {
        if self.access == Access::ReadOnly {
            return Ok(());
        }
        self.file.sync_data().map_err(|error| self.fault("flush", error))
    }

    fn discard(&mut self, offset: u64, len: u64) -> Result<(), DiskError> {
        self.check_write("discard blocks of", offset, len)?;
        if len == 0 {
            return Ok(());
        }
        match self.allocate(FallocateFlags::FALLOC_FL_PUNCH_HOLE, offset, len) {
            Err(error) if !unsupported(&error) => Err(self.fault("discard blocks of", error)),
            _ => Ok(()),
        }
    }

    fn write_zeroes(&mut self, offset: u64, len: u64, space: Space) -> Result<(), DiskError> {
        self.check_write("write zeroes to", offset, len)?;
        if len == 0 {
            return Ok(());
        }
        let mode = match space {
            Space::Free => FallocateFlags::FALLOC_FL_PUNCH_HOLE,
            Space::Keep => FallocateFlags::FALLOC_FL_ZERO_RANGE,
        };
        match self.allocate(mode, offset, len) {
            Err(error) if unsupported(&error) => self.overwrite(offset, len),
            result => result,
        }
        .map_err(|error| self.fault("write zeroes to", error))
    }
}

pub(crate) fn bytes(slices: &[VolatileSlice<'_>]) -> u64 {
    slices.iter().fold(0, |sum: u64, slice| sum.saturating_add(slice.len() as u64))
}

/// Zeroes all but the first `skip` bytes.
fn fill_zero(slices: &[VolatileSlice<'_>], mut skip: u64) {
    for slice in slices {
        let len = slice.len() as u64;
        if let Ok(rest) = slice.offset(usize::try_from(skip.min(len)).unwrap_or(usize::MAX)) {
            rest.copy_from(&vec![0u8; rest.len()]);
        }
        skip = skip.saturating_sub(len);
    }
}
