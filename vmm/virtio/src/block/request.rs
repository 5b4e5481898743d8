//! One block request: what the driver's bytes mean.

use vm_memory::{GuestMemoryMmap, Permissions};

use super::config::{MAX_RANGE_SECTORS, MAX_RANGES};
use crate::buffers::Buffers;
use crate::{Chain, QueueError};
use vmm_block::{SECTOR, Space};

/// Bytes of a request's header, and of a range in a discard.
const HEADER: usize = 16;
const RANGE: usize = 16;
const RANGE_UNMAP: u32 = 1;

/// What the driver reads in the status byte.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Status {
    Ok,
    IoError,
    Unsupported,
}

impl Status {
    pub(crate) const fn byte(self) -> u8 {
        match self {
            Self::Ok => 0,
            Self::IoError => 1,
            Self::Unsupported => 2,
        }
    }
}

/// Bytes of the disk.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct DiskRange {
    pub(crate) offset: u64,
    pub(crate) len: u64,
    pub(crate) space: Space,
}

/// What is asked for.
#[derive(Debug)]
pub(crate) enum Kind<'a> {
    Read {
        to: Buffers<'a>,
        offset: u64,
    },
    Write {
        from: Buffers<'a>,
        offset: u64,
    },
    Flush,
    GetId {
        to: Buffers<'a>,
    },
    Discard(Vec<DiskRange>),
    WriteZeroes(Vec<DiskRange>),
    /// Not a request that can be done.
    Refused(Status),
}

/// A request and the byte for its status.
#[derive(Debug)]
pub(crate) struct Request<'a> {
    pub(crate) kind: Kind<'a>,
    pub(crate) status: Buffers<'a>,
}

impl<'a> Request<'a> {
    /// Reads a request. Its parts may be cut into descriptors in any way.
    pub(crate) fn parse(memory: &'a GuestMemoryMmap, chain: &Chain) -> Result<Self, QueueError> {
        let mut readable = Buffers::new(memory, &chain.readable, Permissions::Read)?;
        let mut writable = Buffers::new(memory, &chain.writable, Permissions::Write)?;
        let header = readable.take_front(HEADER as u64).ok_or(QueueError::Request)?;
        let status = writable.take_back(1).ok_or(QueueError::Request)?;
        let mut bytes = [0; HEADER];
        header.read_into(&mut bytes);
        let [t0, t1, t2, t3, _, _, _, _, sector @ ..] = bytes;
        let offset = u64::from_le_bytes(sector).checked_mul(SECTOR);
        let kind = match (u32::from_le_bytes([t0, t1, t2, t3]), offset) {
            (0, Some(offset)) if whole_sectors(&writable) => Kind::Read { to: writable, offset },
            (1, Some(offset)) if whole_sectors(&readable) => Kind::Write { from: readable, offset },
            (4, _) => Kind::Flush,
            (8, _) => Kind::GetId { to: writable },
            (11, _) => ranges(readable, Purpose::Discard).map_or_else(Kind::Refused, Kind::Discard),
            (13, _) => ranges(readable, Purpose::WriteZeroes).map_or_else(Kind::Refused, Kind::WriteZeroes),
            (0 | 1, _) => Kind::Refused(Status::IoError),
            _ => Kind::Refused(Status::Unsupported),
        };
        Ok(Self { kind, status })
    }
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Purpose {
    Discard,
    WriteZeroes,
}

fn whole_sectors(buffers: &Buffers<'_>) -> bool {
    buffers.len() > 0 && buffers.len().is_multiple_of(SECTOR)
}

fn ranges(mut data: Buffers<'_>, purpose: Purpose) -> Result<Vec<DiskRange>, Status> {
    if data.len() == 0
        || !data.len().is_multiple_of(RANGE as u64)
        || data.len() / RANGE as u64 > u64::from(MAX_RANGES)
    {
        return Err(Status::IoError);
    }
    let mut ranges = Vec::new();
    while let Some(range) = data.take_front(RANGE as u64) {
        let mut bytes = [0; RANGE];
        range.read_into(&mut bytes);
        let [sector @ .., n0, n1, n2, n3, f0, f1, f2, f3] = bytes;
        let (sectors, flags) = (u32::from_le_bytes([n0, n1, n2, n3]), u32::from_le_bytes([f0, f1, f2, f3]));
        let unmap = flags & RANGE_UNMAP != 0;
        if flags & !RANGE_UNMAP != 0 || (unmap && purpose == Purpose::Discard) {
            return Err(Status::Unsupported);
        }
        if sectors > MAX_RANGE_SECTORS {
            return Err(Status::IoError);
        }
        let offset = u64::from_le_bytes(sector).checked_mul(SECTOR).ok_or(Status::IoError)?;
        let space = if unmap { Space::Free } else { Space::Keep };
        ranges.push(DiskRange { offset, len: u64::from(sectors) * SECTOR, space });
    }
    Ok(ranges)
}
