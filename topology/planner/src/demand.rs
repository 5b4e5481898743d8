//! A request in the planner's units: guest cores and pages.
//!
//! Made once per plan by `plan`, read by everything below it.

use pinion_machine::PageSize;

use crate::{CpuPolicy, GuestTopology, IoThreadPlace, Request};

/// What has to be placed.
#[derive(Clone, Debug)]
pub(crate) struct Demand {
    /// Guest cores; never 0.
    pub(crate) cores: u32,
    /// Threads per guest core; never 0.
    pub(crate) threads: u32,
    /// Guest cores per guest socket; never 0.
    pub(crate) per_socket: u32,
    /// Pages of memory; never 0.
    pub(crate) pages: u64,
    /// Their size.
    pub(crate) page: PageSize,
    /// Dedicated or shared CPUs.
    pub(crate) policy: CpuPolicy,
    /// I/O threads with a CPU of their own.
    pub(crate) io: u32,
}

impl Demand {
    pub(crate) fn of(request: &Request) -> Self {
        let GuestTopology { sockets, cores, threads } = request.cpu.topology;
        let per_socket = cores.max(1);
        let own = |t: &&crate::IoThreadRequest| t.place == IoThreadPlace::Dedicated;
        Self {
            cores: sockets.max(1).saturating_mul(per_socket),
            threads: threads.max(1),
            per_socket,
            pages: request.memory.bytes.div_ceil(request.memory.page_size.bytes()).max(1),
            page: request.memory.page_size,
            policy: request.cpu.policy,
            io: request.io_threads.iter().filter(own).map(|_| 1).fold(0, u32::saturating_add),
        }
    }

    /// The fewest guest cores a cell may have: its share of the memory is a whole page at least.
    pub(crate) fn least_cores(&self) -> u32 {
        u32::try_from(u64::from(self.cores).div_ceil(self.pages)).unwrap_or(u32::MAX).max(1)
    }

    /// CPUs that a free core needs to be of use: a guest core's, or one to float over.
    pub(crate) fn width(&self) -> u32 {
        if self.dedicated() { self.threads } else { 1 }
    }

    pub(crate) fn dedicated(&self) -> bool {
        self.policy == CpuPolicy::Dedicated
    }
}
