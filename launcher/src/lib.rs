//! One process per guest: arm, verify, run.
//!
//! `pinion run` starts `pinion-launcher` for each guest and hands it a [`LaunchSpec`]; the
//! library is what both of them share. Everything a guest holds lives and dies with this process.

#![forbid(unsafe_code)]

pub mod backend;
pub mod certificate;
mod console;
mod control;
mod end;
mod event;
mod guest;
pub mod guest_agent;
mod identity;
pub mod image;
pub mod metrics;
mod monitor;
mod native;
pub mod pod;
pub mod program;
mod repair;
mod rooted;
mod sandbox;
mod session;
mod spec;
mod trouble;
mod volume;

pub use console::TerminalMode;
pub use control::ControlError;
pub use end::End;
pub use event::{Event, Events};
pub use guest::{CONSOLE_ARGUMENT, Guest, GuestError, with_console};
pub use identity::{guest_uuid, made_uuid};
pub use native::Native;
pub use pinion_api::BackendKind;
pub use pinion_endpoint::chain;
pub use repair::SetThreads;
pub use session::{Session, SessionError};
pub use spec::{AuditPolicy, ClusterPlace, ConsoleMode, LaunchSpec, SpecError, libvirt_folder};
pub use vmm_machine::ConsoleConfig;
pub use volume::{DiskFile, VolumeError, disk_file};
