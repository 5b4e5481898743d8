//! The `kubevirt.io/v1` types: parsing, defaulting and validation with field paths.
//!
//! Pure: no I/O, no clock. Called by the command line on the text of a file, and by the
//! controller on admission. [`parse`] reports every problem of a file at once; what it
//! returns has no field that would be ignored.

#![forbid(unsafe_code)]

#[macro_use]
mod define;

mod backend;
mod clock;
mod compatibility;
mod cpu;
mod data_volume;
mod defaults;
mod devices;
mod differences;
mod disk;
mod domain;
mod effective;
mod emit;
mod features;
mod firmware;
mod io_threads;
mod mac_address;
mod memory;
mod metadata;
mod needs;
mod network;
mod node;
mod parse;
mod path;
mod plain;
mod pod_volumes;
mod probe;
mod problem;
mod quantity;
mod read;
mod replica_set;
mod scheduling;
pub mod schema;
mod status;
mod validate;
mod vcpu_mask;
mod vm;
mod vmi;
mod volume;
mod yaml;

pub use backend::{BACKEND_ANNOTATION, BackendKind, NoBackend};
pub use clock::*;
pub use compatibility::{FieldRow, compatibility_markdown, fields};
pub use cpu::*;
pub use data_volume::*;
pub use devices::*;
pub use differences::{DIFFERENCES, Difference};
pub use disk::*;
pub use domain::*;
pub use effective::{
    CpuTopology, DEFAULT_GRACE_SECONDS, DEFAULT_NAMESPACE, HUGE_PAGES, ORDINARY_PAGE, PassedThrough,
};
pub use emit::to_yaml;
pub use features::*;
pub use firmware::*;
pub use io_threads::{IoThread, IoThreadCpu};
pub use mac_address::{MacAddress, MacAddressError};
pub use memory::*;
pub use metadata::*;
pub use needs::LibvirtNeed;
pub use network::*;
pub use parse::{API_VERSION, Document, MAX_BYTES, PlainDocument, parse, parse_at, plain_yaml};
pub use path::{FieldPath, Segment};
pub use plain::{FieldProblem, PlainFields, PlainReading};
pub use pod_volumes::{PodMount, PodSource, PodVolumes, is_only_read};
pub use probe::*;
pub use problem::{DocumentName, Position, Problem, ProblemCode, Problems};
pub use quantity::{Quantity, QuantityError};
pub use read::nearest;
pub use replica_set::*;
pub use scheduling::*;
pub use schema::{IntOrString, Place};
pub use status::*;
pub use vcpu_mask::{VcpuMask, VcpuMaskError};
pub use vm::*;
pub use vmi::*;
pub use volume::*;
