//! Which CPUs the host's interrupts come to.
//!
//! Owns the reading of `/proc/interrupts`, the shield that keeps the host's own
//! interrupts off dedicated CPUs, and the routes that bring the vectors of
//! passed-through devices to the CPUs of their guest. Called by the node's
//! daemon, before a guest starts and then about once a second. It must never
//! choose the CPUs: it is told them.

mod table;

pub use table::{Interrupt, Table, Vector, VectorError, VectorKind};
