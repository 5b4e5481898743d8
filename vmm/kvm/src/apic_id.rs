//! APIC ids from the guest's topology: the one place where they are made.
//!
//! Each level gets a field of whole bits, so that software can tell socket, core and thread
//! from the id (Intel SDM 3A, 10.9): counts that are no powers of two leave gaps.

/// Sockets × cores × threads, as the guest sees them.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Topology {
    /// Sockets.
    pub sockets: u32,
    /// Cores per socket.
    pub cores: u32,
    /// Threads per core.
    pub threads: u32,
}

/// An APIC id.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct ApicId(pub u32);

impl Topology {
    /// The id of the vCPU at a place.
    #[must_use]
    pub fn apic_id(&self, socket: u32, core: u32, thread: u32) -> ApicId {
        ApicId(socket << self.package_shift() | core << self.thread_shift() | thread)
    }

    /// Bits of the thread field.
    #[must_use]
    pub fn thread_shift(&self) -> u32 {
        bits(self.threads)
    }

    /// Bits below the socket field.
    #[must_use]
    pub fn package_shift(&self) -> u32 {
        bits(self.threads) + bits(self.cores)
    }

    /// vCPUs of a socket.
    #[must_use]
    pub fn per_socket(&self) -> u32 {
        self.cores.saturating_mul(self.threads)
    }
}

/// Bits that hold `count` different values.
fn bits(count: u32) -> u32 {
    count.max(1).next_power_of_two().trailing_zeros()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn powers_of_two_leave_no_gaps() {
        let topology = Topology { sockets: 2, cores: 2, threads: 2 };
        let ids: Vec<_> = (0..2)
            .flat_map(|s| (0..2).flat_map(move |c| (0..2).map(move |t| topology.apic_id(s, c, t).0)))
            .collect();
        assert_eq!(ids, [0, 1, 2, 3, 4, 5, 6, 7]);
    }

    #[test]
    fn other_counts_leave_gaps() {
        let topology = Topology { sockets: 2, cores: 3, threads: 1 };
        assert_eq!(topology.apic_id(1, 0, 0), ApicId(4));
        assert_eq!(topology.apic_id(1, 2, 0), ApicId(6));
        assert_eq!(topology.package_shift(), 2);
    }
}
