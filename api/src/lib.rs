//! The `kubevirt.io/v1` types: parsing, defaulting and validation with field paths.
//!
//! Pure: no I/O, no clock. Called by the command line on the text of a file, and by the
//! controller on admission. [`parse`] reports every problem of a file at once; what it
//! returns has no field that would be ignored.

#![forbid(unsafe_code)]

#[macro_use]
mod define;

mod clock;
mod cpu;
mod data_volume;
mod devices;
mod disk;
mod domain;
mod features;
mod firmware;
mod memory;
mod metadata;
mod network;
mod path;
mod probe;
mod quantity;
mod scheduling;
pub mod schema;
mod vm;
mod vmi;
mod volume;

pub use clock::*;
pub use cpu::*;
pub use data_volume::*;
pub use devices::*;
pub use disk::*;
pub use domain::*;
pub use features::*;
pub use firmware::*;
pub use memory::*;
pub use metadata::*;
pub use network::*;
pub use path::{FieldPath, Segment};
pub use probe::*;
pub use quantity::{Quantity, QuantityError};
pub use scheduling::*;
pub use schema::IntOrString;
pub use vm::*;
pub use vmi::*;
pub use volume::*;
