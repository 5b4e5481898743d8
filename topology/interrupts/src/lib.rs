//! Which interrupts this host has, whose they are, and which CPUs they may come to.
//!
//! Reads `/proc/interrupts` and `/proc/irq`. Called by the launcher, for the certificate, and by the
//! node agent, which moves interrupts. It must never change one.

#![forbid(unsafe_code)]

mod irq;
mod mask;
mod table;

pub use irq::{Affinity, IrqFiles, Line};
pub use mask::{format as format_mask, parse as parse_mask};
pub use table::{Interrupt, Table, Vector, VectorError, VectorKind};
