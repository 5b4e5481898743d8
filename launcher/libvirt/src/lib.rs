//! A guest on QEMU, through libvirt.
//!
//! A program of its own, `pinion-launcher-libvirt`, since libvirt's library draws in some fifty others. It is the
//! session of the native launcher with another backend: `domain` writes libvirt's document from spec and placement,
//! `backend` starts it paused and finds its threads and pages, `running` is what it is while it runs.
//! `import` goes the other way, for guests that come from elsewhere.

#![forbid(unsafe_code)]

mod backend;
mod console;
mod domain;
mod error;
mod hypervisor;
mod import;
mod overlay;
mod process;
mod repair;
mod running;
mod xml;

pub use backend::Libvirt;
pub use domain::{Assets, domain, name};
pub use error::LibvirtError;
pub use import::program::import_program;
pub use import::{Fault, ImportError, Imported, MOST_BYTES, Note, import};
