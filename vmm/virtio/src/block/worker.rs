//! Serves the queues of a disk, on the disk's I/O thread.

use std::sync::{Arc, PoisonError};
use std::time::Instant;

use vm_memory::GuestMemoryMmap;
use vmm_block::{Disk, DiskError, SharedDisk};
use vmm_event_loop::{Control, Event, Subscriber};

use super::device::SerialNumber;
use super::metrics::{BlockMetrics, Operation};
use super::request::{DiskRange, Kind, Request, Status};
use crate::service::{StopFlag, drain};
use crate::{ActiveQueue, Chain, QueueError, VirtioInterrupt};

/// What does requests: everything but the queues.
#[derive(Debug)]
pub(crate) struct Executor {
    pub(crate) disk: SharedDisk,
    pub(crate) metrics: Arc<BlockMetrics>,
    pub(crate) serial: SerialNumber,
    pub(crate) writeback: bool,
}

#[derive(Debug)]
pub(crate) struct BlockWorker {
    pub(crate) queues: Vec<ActiveQueue>,
    pub(crate) executor: Executor,
    pub(crate) interrupt: Arc<VirtioInterrupt>,
    pub(crate) stop: StopFlag,
}

impl Subscriber for BlockWorker {
    fn ready(&mut self, event: Event, control: &mut Control<'_>) {
        let Self { queues, executor, interrupt, stop } = self;
        let queue = usize::try_from(event.token).ok().and_then(|position| queues.get_mut(position));
        let Some(active) = queue else { return };
        let memory = active.queue.memory();
        if drain(active, stop, |chain| executor.execute(&memory, chain)).is_err() {
            interrupt.needs_reset();
            control.remove_me();
        }
    }
}

impl Executor {
    /// Does one request; says how many bytes of the chain were written.
    fn execute(&self, memory: &GuestMemoryMmap, chain: &Chain) -> Result<u32, QueueError> {
        let Request { kind, status } = Request::parse(memory, chain)?;
        let mut disk = self.disk.lock().unwrap_or_else(PoisonError::into_inner);
        let (outcome, written) = self.run(&mut **disk, kind);
        drop(disk);
        status.write_from(&[outcome.byte()]);
        Ok(u32::try_from(written).unwrap_or(u32::MAX).saturating_add(1))
    }

    fn run(&self, disk: &mut dyn Disk, kind: Kind<'_>) -> (Status, u64) {
        let outcome = match kind {
            Kind::Read { to, offset } => {
                let len = to.len();
                let read = || disk.read(to.slices(), offset).map(|()| len);
                return match self.timed(Operation::Read, read) {
                    Ok(()) => (Status::Ok, len),
                    Err(status) => (status, 0),
                };
            }
            Kind::GetId { to } => {
                return (Status::Ok, to.write_from(self.serial.bytes()) as u64);
            }
            Kind::Write { from, offset } => {
                let write = || disk.write(from.slices(), offset).map(|()| from.len());
                self.timed(Operation::Write, write).and_then(|()| self.settle(disk))
            }
            Kind::Flush => self.timed(Operation::Flush, || disk.flush().map(|()| 0)),
            Kind::Discard(ranges) => self.each(&ranges, |range| disk.discard(range.offset, range.len)),
            Kind::WriteZeroes(ranges) => self
                .each(&ranges, |range| disk.write_zeroes(range.offset, range.len, range.space))
                .and_then(|()| self.settle(disk)),
            Kind::Refused(status) => {
                self.metrics.count_bad_request(disk.name());
                Err(status)
            }
        };
        (outcome.err().unwrap_or(Status::Ok), 0)
    }

    /// Write-through: a write is done when it is stable.
    fn settle(&self, disk: &mut dyn Disk) -> Result<(), Status> {
        if self.writeback { Ok(()) } else { self.timed(Operation::Flush, || disk.flush().map(|()| 0)) }
    }

    fn each(
        &self,
        ranges: &[DiskRange],
        mut action: impl FnMut(&DiskRange) -> Result<(), DiskError>,
    ) -> Result<(), Status> {
        for range in ranges {
            self.timed(Operation::Discard, || action(range).map(|()| range.len))?;
        }
        Ok(())
    }

    fn timed(
        &self,
        operation: Operation,
        action: impl FnOnce() -> Result<u64, DiskError>,
    ) -> Result<(), Status> {
        let start = Instant::now();
        let result = action();
        self.metrics.count(operation, result.as_ref().ok().copied(), start.elapsed());
        result.map(drop).map_err(|error| {
            self.metrics.count_error(&error);
            Status::IoError
        })
    }
}
