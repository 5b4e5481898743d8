//! What makes one placement better than another, in the order that decides.

use pinion_machine::NodeId;

/// What the guest may share with itself. Tried in this order; the first with any
/// placement wins, however many nodes it takes.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) enum Level {
    /// Every guest core and every dedicated I/O thread has a host core of its own.
    Apart,
    /// Dedicated I/O threads may sit on a core with others of the guest.
    IoTogether,
    /// Guest cores may share a host core too, each with whole CPUs of it. With shared
    /// CPUs: vCPUs may float over housekeeping CPUs.
    Together,
}

/// How good a placement is on a given number of nodes; less is better.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) struct Score {
    pub(crate) quality: Quality,
    pub(crate) residue: Residue,
}

/// What the guest feels.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) struct Quality {
    /// Sum over ordered pairs of cells, each with itself too, of the distance from the
    /// CPUs of one to the memory of the other.
    pub(crate) distance: u64,
    /// Sum over devices of the distance to the nearest cell's memory.
    pub(crate) device: u64,
    /// Sum over dedicated I/O threads of the distance to the nearest cell's memory.
    pub(crate) io: u64,
    /// Guest sockets in more than one cell.
    pub(crate) straddles: u32,
    /// Sum of squares of the cells' guest cores.
    pub(crate) unevenness: u64,
    /// Shared vCPUs beyond the CPUs they float over.
    pub(crate) overcommit: u64,
    /// Guest cores without a host core of their own.
    pub(crate) packed: u32,
    /// L3 domains, node by node.
    pub(crate) domains: u32,
}

/// What is left for others.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) struct Residue {
    /// Nodes broken that were wholly free.
    pub(crate) whole_nodes: u32,
    /// L3 domains broken that were wholly free.
    pub(crate) whole_domains: u32,
    /// Room lost on nodes: the sum of free cores² before less after.
    pub(crate) node_room: u64,
    /// Room lost in L3 domains, likewise.
    pub(crate) domain_room: u64,
    /// The nodes, ascending: the lowest ids decide last.
    pub(crate) nodes: Vec<NodeId>,
}
