//! Safe wrappers of host system calls: threads on exact CPUs, scheduling classes, tap devices.
//!
//! Called by the machine's builder and by the launcher. It decides nothing: it is told CPUs
//! and names.

mod schedule;
mod tap;
mod thread;

pub use schedule::{ScheduleError, lock_memory, set_fifo, set_ordinary};
pub use tap::{Tap, TapError};
pub use thread::{PinnedThread, ThreadError, set_affinity, spawn_on};
